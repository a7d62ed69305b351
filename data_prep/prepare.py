"""One entry for every task's converter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from data_prep.coco_captions import prepare_coco
from data_prep.prepared import PreparedStats
from data_prep.vqa import prepare_vqa
from dept_vl.errors import ConfigError
from dept_vl.registry import lookup

CONVERTERS = {"vqa": prepare_vqa, "coco": prepare_coco}
"""Task name -> what turns its official raw files into prepared splits."""


def prepare(task: str, raw: Path, out: Path, *, answer_vocabulary: Path | None = None, **options: Any) -> PreparedStats:
    """Prepares one task.

    Args:
        task: Task name.
        raw: Folder of the official files.
        out: Data folder; the task gets a folder of its own in it.
        answer_vocabulary: Answers that may be training targets; for tasks whose converter takes it.
        options: Handed to the converter: ``images``, ``check_images``.

    Raises:
        ConfigError: No such task, or it takes no answer vocabulary.
        DataError: As the converter.
    """
    convert = lookup(CONVERTERS, task, "task")
    if answer_vocabulary is not None:
        if convert is not prepare_vqa:
            raise ConfigError(f"--answer-vocabulary: task {task!r} takes none; leave it out")
        options["answer_vocabulary"] = answer_vocabulary
    return convert(raw, out, **options)
