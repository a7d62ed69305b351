"""What we train on, as data: ``TASKS`` by name."""

from __future__ import annotations

from functools import cache
from pathlib import Path

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
    "is_task",
    "task_names",
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


_FILES = Path(__file__).resolve().parent.parent / "assets" / "tasks"


def task_names() -> list[str]:
    """Returns the name of every task of the package, those declared by files last."""
    return [*TASKS, *sorted(path.stem for path in _FILES.glob("*.yaml"))]


def is_task(name: str) -> bool:
    """Returns whether a task of the package is called `name`, in full or in short."""
    return _SHORT_NAMES.get(name, name) in task_names()


def get_task(name: str) -> Task:
    """Returns the task of the package called `name`; ``cb`` is short for ``superglue-cb``.

    Raises:
        ConfigError: There is no such task; the message names near ones.
    """
    name = _SHORT_NAMES.get(name, name)
    if name in TASKS:
        return TASKS[name]
    lookup(dict.fromkeys(task_names()), name, "task")
    return _declared(name)


@cache
def _declared(name: str) -> Task:
    """Returns the task that a file of the package declares."""
    from pydantic import TypeAdapter  # takes a tenth of a second, which most commands need not

    from dept_vl.system.bounded_reading import parse_yaml
    from dept_vl.tasks.declaration import TaskDeclaration
    from dept_vl.tasks.declared import make_task

    content = parse_yaml((_FILES / f"{name}.yaml").read_text(encoding="utf-8"))
    return make_task(TypeAdapter(TaskDeclaration).validate_python(content))
