"""Text tasks prepared from the hub on first use, for runs that name no data folder."""

from __future__ import annotations

import logging
from pathlib import Path

from data_prep.first_use.cache import cache_root, making, refuse_launch
from data_prep.prepare import prepare
from dept_vl.data.manifest import task_folder
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
    refuse_launch(folder, f"`dept-vl prepare --task {task.name} --protocol {task.protocol} --out {root}`")
    with making(folder, "prepare the task", ", or give --data-dir DATA"):
        if not folder.is_dir():
            logger.info("no --data-dir: preparing %s from %s into %s (once)", task.name, task.source, folder)
            prepare(task, None, root, protocol=task.protocol)
    return root
