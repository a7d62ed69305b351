"""The settings of a run of several tasks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from dept_vl.errors import SettingProblem, SettingsError
from dept_vl.registry import suggest
from dept_vl.strict import STRICT


@dataclass(frozen=True, config=STRICT)
class MixConfig:
    """How several tasks share the steps of a run (``--task rte+cola``); null everywhere for a run of one task."""

    batches: Annotated[
        Literal["mixed", "one-task", "shuffled"] | None,
        Field(
            description="'mixed': rows of all tasks in every step (ATTEMPT, MPT); 'one-task': each step is one task's, "
            "drawn anew (HyperFormer); 'shuffled': that in shuffled epochs of steps (Sung et al.); null: 'mixed'"
        ),
    ] = None
    temperature: Annotated[
        float | None,
        Field(gt=0, description="T: a task is drawn in proportion to its rows to the power of 1/T; null: 1"),
    ] = None
    max_rows: Annotated[
        int | None, Field(ge=1, description="rows of a task that count for its share at most; null: all")
    ] = None
    rates: Annotated[
        dict[str, Annotated[float, Field(gt=0)]] | None,
        Field(description="each task's share, instead of one by its rows; they need not add up to 1"),
    ] = None

    def check(self, tasks: Sequence[str], where: str = "") -> None:
        """Refuses what does not fit the tasks of a run.

        Args:
            tasks: Their names.
            where: What holds the settings, for the message.

        Raises:
            SettingsError: The run has one task and something is set; or the rates are not those of its tasks, or come
                with what they stand in for.
        """
        given = [field.name for field in fields(self) if getattr(self, field.name) is not None]
        problems = []
        if len(tasks) == 1:
            text = f"has no effect with one task, {tasks[0]!r}; name several, as in --task rte+cola, or leave it out"
            problems = [SettingProblem(f"mix.{name}", text) for name in given]
        elif self.rates is not None:
            for name in self.rates.keys() - {*tasks}:
                near = suggest(name, tasks)
                problems.append(
                    SettingProblem(f"mix.rates.{name}", f"{name!r} is no task of the run ({', '.join(tasks)}){near}")
                )
            lacking = [name for name in tasks if name not in self.rates]
            if lacking:
                problems.append(
                    SettingProblem("mix.rates", f"has no rate for {', '.join(lacking)}; give every task one")
                )
            problems += [
                SettingProblem(f"mix.{name}", "has no effect beside mix.rates; leave one of them out")
                for name in ("temperature", "max_rows")
                if name in given
            ]
        if problems:
            raise SettingsError(problems, where)
