"""Several tasks trained together: which they are, and how often each is drawn. No torch."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from dept_vl.errors import ConfigError
from dept_vl.tasks import get_task
from dept_vl.tasks.base import Task

JOINED = "+"
"""Stands between the names of tasks that are trained together: ``rte+cola``."""

MEAN = "mean"
"""What the mean of the tasks' scores is called among scores."""

_FILES = (".yaml", ".yml")


@dataclass(frozen=True)
class TaskMix:
    """Several tasks in one run; for what a run's settings leave open it stands where one task would.

    Attributes:
        tasks: Two or more, in the order of their task ids; not yet under any protocol.
    """

    tasks: tuple[Task, ...]

    @property
    def name(self) -> str:
        """What ``--task`` takes: ``rte+cola``."""
        return JOINED.join(task.name for task in self.tasks)

    @property
    def uses_images(self) -> bool:
        """Whether there are rows with images; `check_alike` says whether there are others beside them."""
        return any(task.uses_images for task in self.tasks)

    def check_alike(self) -> None:
        """Refuses tasks with images beside tasks without, for a backbone that does not read them in one batch.

        Raises:
            ConfigError: There are both.
        """
        with_images = [task.name for task in self.tasks if task.uses_images]
        without = [task.name for task in self.tasks if not task.uses_images]
        if with_images and without:
            raise ConfigError(
                f"{self.name!r} mixes tasks with images ({', '.join(with_images)}) and without ({', '.join(without)}); "
                "all tasks of one run have images, or none has, unless model.backbone is a vision-language model"
            )

    @property
    def max_source_length(self) -> int:
        """Text tokens kept by default: the most that a task keeps."""
        return max(task.max_source_length for task in self.tasks)

    @property
    def max_target_length(self) -> int:
        """Target tokens kept by default: the most that a task keeps; each task keeps its own at most."""
        return max(task.max_target_length for task in self.tasks)

    @property
    def protocols(self) -> tuple[str, ...]:
        """None that all must be under: where the settings name no protocol, every task is under its own default."""
        return ()

    def check_protocol(self, protocol: str | None) -> None:
        """Checks that every task that has protocols has this one, and that one has.

        Raises:
            ConfigError: As said.
        """
        if protocol is None:
            return
        for task in [task for task in self.tasks if task.protocols] or self.tasks:
            task.check_protocol(protocol)


def is_mix(name: str) -> bool:
    """Returns whether what ``--task`` takes names several tasks; a file may have the sign in its name."""
    return JOINED in name and not (name.lower().endswith(_FILES) and os.path.isfile(os.path.expanduser(name)))


def find_mix(name: str) -> TaskMix:
    """Returns the tasks that a name such as ``rte+cola`` joins.

    Raises:
        ConfigError: A task is unknown, named twice or none of the package.
    """
    parts = name.split(JOINED)
    for part in parts:
        if part.lower().endswith(_FILES):
            raise ConfigError(
                f"{part!r} in {name!r} declares a task of your own, and only tasks of the package are trained "
                "together; name those, as in rte+cola, or train it alone"
            )
        if not part:
            raise ConfigError(f"{name!r} has no task before or after a '{JOINED}'; name two or more, as in rte+cola")
    tasks = tuple(map(get_task, parts))
    names = [task.name for task in tasks]
    twice = [one for one in names if names.count(one) > 1]
    if twice:
        raise ConfigError(f"{name!r} names the task {twice[0]!r} twice; name each once, mix.rates says how often")
    return TaskMix(tasks)


def sampling_rates(rows: Sequence[int], temperature: float = 1.0, max_rows: int | None = None) -> list[float]:
    """Returns how often each task is drawn, p_k, summing to 1: in proportion to min(n_k, K) to the power of 1 / T.

    T = 1 is in proportion to size and the limit of large T equal shares (HyperFormer, T = 10:
    ``generate_tasks_distribution`` of ``hyperformer/data/multitask_sampler.py``). K is the artificial limit on a data
    set's size of examples-proportional and temperature-scaled mixing (Raffel et al. 2020, section 3.5.2).

    Args:
        rows: n_k, rows to train on of each task, at least one.
        temperature: T, above 0.
        max_rows: K; None for none.
    """
    sizes = [count if max_rows is None else min(count, max_rows) for count in rows]
    largest = max(sizes)
    weights = [(size / largest) ** (1.0 / temperature) for size in sizes]  # at most 1, so that no power overflows
    return [weight / sum(weights) for weight in weights]
