"""What picks a run's best checkpoint, which way it is better, and what the references say about it. No torch."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from dept_vl.data.manifest import has_targets, read_references
from dept_vl.errors import ConfigError, DataError
from dept_vl.evaluators import (
    EVALUATORS,
    LOSS,
    Concern,
    Reference,
    check_available,
    concerns,
    display_scale,
    evaluator_name,
    fitting,
    is_loss,
    score_name,
    warn_of,
)
from dept_vl.runs.refusals import check_prepared
from dept_vl.settings.schema import TrainConfig
from dept_vl.tasks import Task

logger = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True)
class Selection:
    """How checkpoints are compared.

    Attributes:
        evaluators: What is computed at every evaluation on ``val``.
        metric: What picks the best: a score among theirs, or the validation loss.
        concerns: What the evaluators assume and the references do not keep.
    """

    evaluators: tuple[str, ...]
    metric: str
    concerns: dict[str, list[Concern]]

    @property
    def lower_is_better(self) -> bool:
        """Whether it is so, as of the loss; of every score, higher is."""
        return self.metric == LOSS

    def is_better(self, value: float, best: float | None) -> bool:
        """Returns whether a value is better than the best before; any is where there is none yet."""
        if best is None:
            return True
        return value < best if self.lower_is_better else value > best

    def best(self, candidates: Iterable[T], value: Callable[[T], float]) -> T:
        """Returns the candidate of the best value, the first of equals."""
        return (min if self.lower_is_better else max)(candidates, key=value)

    def describe(self, step: int, value: float, best: float | None, best_step: int) -> str:
        """Returns a line about an evaluation on ``val``: its value and whether it is the best so far.

        Args:
            step: Optimiser steps done.
            value: Of `metric`, in the scorer's own scale.
            best: The best value before; None at the first evaluation.
            best_step: Where that was.
        """
        scale = display_scale(self.metric)
        beside = "the best so far"
        if best is not None and not self.is_better(value, best):
            beside = f"the best is {scale.printed(best)} at step {best_step:,}"
        return f"step {step:,}: {self.metric} on val {scale.printed(value)} {scale.text} ({beside})"

    def check_targets(self, has_targets: Callable[[], bool]) -> None:
        """Refuses to compare checkpoints by the loss on rows without targets.

        Args:
            has_targets: Whether a row of ``val`` that is evaluated has one; asked where it matters.

        Raises:
            DataError: None has.
        """
        if self.metric == LOSS and not has_targets():
            raise DataError(
                "loop.best_metric: the loss is taken of targets, and no row of val that is evaluated has one; choose a "
                "score, or prepare val with answers"
            )


def check_best_metric(config: TrainConfig) -> None:
    """Refuses a ``loop.best_metric`` that is neither the loss nor a score of an evaluator, or cannot be computed here.

    Raises:
        ConfigError: It is one.
    """
    if config.loop.best_metric is None or is_loss(config.loop.best_metric):
        return
    try:
        check_available([config.loop.best_metric])
    except ConfigError as error:
        raise ConfigError(f"loop.best_metric: {error}") from None


def choose_selection(config: TrainConfig, task: Task, references: Sequence[Reference]) -> Selection:
    """Returns how a run's checkpoints are compared.

    By ``loop.best_metric``, a score or the loss; else by the task's own; else, where the references make that score the
    same whatever is predicted or nearly so, by the one that fits (`Concern.instead`).

    Args:
        config: The run's settings.
        task: Its task, under the run's protocol.
        references: What checkpoints are scored against.

    Raises:
        ConfigError: There is no such score.
        DataError: An evaluator cannot score against these references.
    """
    check_best_metric(config)
    asked = config.loop.best_metric
    metric = task.selection_metric if asked is None else LOSS if is_loss(asked) else score_name(asked)
    if metric == LOSS:
        return Selection(task.evaluators, LOSS, concerns(task.evaluators, references))
    owners = [name for name in task.evaluators if metric in EVALUATORS[name].scores]
    owner = owners[0] if owners else evaluator_name(metric)
    names = tuple(dict.fromkeys((*task.evaluators, owner)))
    found = concerns(names, references)
    fits = fitting({owner: found[owner]})
    if asked is not None or not fits:
        return Selection(names, metric, found)
    names = tuple(dict.fromkeys((*names, fits[0])))
    return Selection(names, score_name(fits[0]), found)


def read_selection(config: TrainConfig, data_dir: Path) -> Selection:
    """Returns how a run's checkpoints are compared, by the references of its ``val`` split on disk.

    Raises:
        ConfigError: As `choose_selection`.
        DataError: As `choose_selection` and `Selection.check_targets`; or the split cannot be read.
    """
    task = config.resolve_task()
    rows = read_references(data_dir, task, "val", limit=config.loop.eval_rows)
    selection = choose_selection(config, task, [Reference(**row) for row in rows])
    selection.check_targets(lambda: has_targets(data_dir, task, "val", limit=config.loop.eval_rows))
    return selection


def check_data(config: TrainConfig, data_dir: Path, splits: Sequence[str]) -> None:
    """Refuses data that a run cannot be trained on, warns of scores that say less than they seem to on ``val``.

    It says too by which score the best checkpoint is kept, where that is not the task's own.

    Raises:
        ConfigError, DataError: As `check_prepared` and `read_selection`.
    """
    check_prepared(config, data_dir, splits)
    selection = read_selection(config, data_dir)
    warn_of(selection.concerns, "val")
    own = config.resolve_task().selection_metric
    if selection.metric != own:
        logger.warning("val: the best checkpoint is kept by %s, not by %s", selection.metric, own)
