"""Text tasks prepared from the hub on first use, for runs that name no data folder."""

from __future__ import annotations

import logging
from pathlib import Path

from filelock import FileLock

from data_prep.prepare import prepare
from data_prep.raw.json_files import CACHE_VARIABLE, cache_root
from dept_vl.data.manifest import task_folder
from dept_vl.errors import DataError
from dept_vl.system.launch import is_one_of_several
from dept_vl.tasks import Task

logger = logging.getLogger(__name__)


def text_data_dir(task: Task) -> Path:
    """Returns the data folder that holds a text task, prepared from the hub on the first call.

    It is ``data`` in ``$DEPT_VL_CACHE``, by default ``~/.cache/dept_vl``; a prepared task in it is used as it is.

    Args:
        task: A text task, under its protocol.

    Raises:
        DataError: The hub cannot be reached, the folder cannot be written, or several processes were launched before
            the task was prepared.
    """
    root = cache_root() / "data"
    folder = task_folder(root, task)
    if folder.is_dir():
        return root
    if is_one_of_several():
        raise DataError(
            f"{folder}: not made yet, and one process makes it; run `dept-vl prepare --task {task.name} "
            f"--protocol {task.protocol} --out {root}` without a launcher first"
        )
    try:
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / f".{folder.name}.lock"):
            if not folder.is_dir():
                logger.info("no --data-dir: preparing %s from %s into %s (once)", task.name, task.source, folder)
                prepare(task, None, root, protocol=task.protocol)
    except OSError as error:
        raise DataError(
            f"{folder}: cannot prepare the task: {error.strerror or error}; set {CACHE_VARIABLE} to a folder that can "
            "be written, or give --data-dir DATA"
        ) from error
    return root
