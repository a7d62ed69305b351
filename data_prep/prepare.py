"""One entry for every task's converter."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data_prep.converters.coco_captions import prepare_coco
from data_prep.converters.text_tasks import prepare_text
from data_prep.converters.vqa import prepare_vqa
from data_prep.prepared import PreparedStats
from dept_vl.errors import ConfigError
from dept_vl.tasks import get_task

CONVERTERS = {"vqa": prepare_vqa, "coco": prepare_coco}
"""Task with images -> what turns its official raw files into prepared splits. Text tasks share one converter."""


def prepare(
    task: str,
    raw: Path | None,
    out: Path,
    *,
    protocol: str | None = None,
    subset: bool = False,
    answer_vocabulary: Path | None = None,
    images: Path | None = None,
    check_images: bool = True,
) -> PreparedStats:
    """Prepares one task.

    Args:
        task: Task name.
        raw: Folder of the official files; None: the hub, for text tasks.
        out: Data folder; the task gets a folder of its own in it.
        protocol: Of a text task; None: its default.
        subset: Take incomplete files of a text task.
        answer_vocabulary: Answers that may be training targets; for tasks whose converter takes it.
        images: Root of the image folders; None: `raw`.
        check_images: Whether each image's file is looked for.

    Raises:
        ConfigError: No such task, or an option that it does not take.
        DataError: As the converter.
    """
    task = get_task(task).name
    if get_task(task).protocols:
        given = {"--answer-vocabulary": answer_vocabulary, "--images": images, "--no-image-check": not check_images}
        _refuse(task, given)
        return prepare_text(task, raw, out, protocol=protocol, subset=subset)
    _refuse(task, {"--protocol": protocol, "--subset": subset})
    if raw is None:
        raise ConfigError(f"--raw: task {task!r} needs the folder of its official files")
    convert = CONVERTERS[task]
    options: dict[str, Any] = {"images": images, "check_images": check_images}
    if answer_vocabulary is not None:
        if convert is not prepare_vqa:
            raise ConfigError(f"--answer-vocabulary: task {task!r} takes none; leave it out")
        options["answer_vocabulary"] = answer_vocabulary
    return convert(raw, out, **options)


def _refuse(task: str, given: Mapping[str, object]) -> None:
    """Refuses options that a task does not take."""
    for option, value in given.items():
        if value:
            raise ConfigError(f"{option}: task {task!r} takes none; leave it out")
