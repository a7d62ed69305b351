"""What we train on, as data: ``TASKS`` by name."""

from __future__ import annotations

from dept_vl.registry import lookup
from dept_vl.tasks import glue, mrqa, other, superglue
from dept_vl.tasks.base import Gold, Protocol, RenderedExample, Row, Source, SplitRule, SplitSize, Task
from dept_vl.tasks.vision import COCO, VQA

__all__ = [
    "TASKS",
    "Gold",
    "Protocol",
    "RenderedExample",
    "Row",
    "Source",
    "SplitRule",
    "SplitSize",
    "Task",
    "get_task",
]

TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        VQA,
        COCO,
        *glue.TASKS,
        *superglue.TASKS,
        *mrqa.TASKS,
        *other.TASKS,
    )
}
"""Name -> task, of those that ship with the package."""


_PREFIX = "superglue-"
_SHORT_NAMES = {name.removeprefix(_PREFIX): name for name in TASKS if name.startswith(_PREFIX)}


def get_task(name: str) -> Task:
    """Returns the task called `name`; ``cb`` is short for ``superglue-cb``.

    Raises:
        ConfigError: There is no such task; the message names near ones.
    """
    return lookup(TASKS, _SHORT_NAMES.get(name, name), "task")
