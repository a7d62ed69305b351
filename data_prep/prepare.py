"""One entry for every task's converter."""

from __future__ import annotations

import inspect
import pkgutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from data_prep.prepared import PreparedStats
from dept_vl.errors import ConfigError
from dept_vl.tasks import Task


def prepare(task: Task, raw: Path | None, out: Path, **options: Any) -> PreparedStats:
    """Prepares one task with the converter that it declares.

    Args:
        task: The task.
        raw: Folder of the official files; None: the hub, for tasks whose source lies there.
        out: Data folder; the task gets a folder of its own in it.
        options: Keyword-only parameters of the converter; None stands for the converter's own default.

    Raises:
        ConfigError: The task has no converter, or its converter does not take an option.
        DataError: As the converter.
    """
    if task.converter is None:
        raise ConfigError(f"task {task.name!r} declares no converter; its splits are made elsewhere")
    convert: Callable[..., PreparedStats] = pkgutil.resolve_name(task.converter)
    given = {name: value for name, value in options.items() if value is not None}
    taken = inspect.signature(convert).parameters
    for name, value in given.items():
        if name not in taken:
            raise ConfigError(f"{_flag(name, value)}: task {task.name!r} takes none; leave it out")
    if raw is None and task.source is None and task.declaration is None:
        raise ConfigError(f"--raw: task {task.name!r} needs the folder of its official files")
    return convert(task, raw, out, **given)


def _flag(option: str, value: object) -> str:
    """Returns the command-line flag of an option: ``image_check=False`` is ``--no-image-check``."""
    return f"--{'no-' if value is False else ''}{option.replace('_', '-')}"
