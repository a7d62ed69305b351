"""The folder of a run's prepared data: the one it names, or one in the cache that is made on first use."""

from __future__ import annotations

import logging
from pathlib import Path

from data_prep.first_use.cache import cache_root, making, refuse_making
from dept_vl.data.manifest import task_folder
from dept_vl.errors import ConfigError
from dept_vl.settings.schema import TrainConfig
from dept_vl.tasks import Task

logger = logging.getLogger(__name__)


def open_data_dir(config: TrainConfig, *, may_make: bool = True) -> Path:
    """Returns the folder of prepared data; the demo's, text tasks from the hub and rows of one's own are made here.

    Args:
        config: The run's settings.
        may_make: Whether what is not there is made.

    Raises:
        NotMadeError: It is not there, and nothing may be made.
        ConfigError: The settings name no data, or name them twice.
        DataError: The data cannot be made.
    """
    each = [one.resolve_task() for one in config.each_task()]
    task = each[0]
    if config.is_mix and config.data.rows is not None:
        raise ConfigError(
            f"data.rows: rows are of one task of your own, and {config.task!r} names several; leave it out"
        )
    if config.data.rows is not None and config.data.dir is not None and task.is_own:
        raise ConfigError("data.rows: rows are prepared into the cache, and data.dir names prepared data; give one")
    if config.data.rows is not None:
        from data_prep.first_use.own_rows import rows_data_dir

        return rows_data_dir(config, may_make=may_make)
    if config.is_demo_data:
        from data_prep.first_use.demo import demo_data_dir

        return demo_data_dir(config.model.image_encoder, may_make=may_make)
    if config.data.dir is None and all(one.protocols for one in each):
        folders = [text_data_dir(one, may_make=may_make) for one in each]  # one for all
        return folders[0]
    if config.data.dir is None:
        what = "--rows ROWS (in Python train=), or --data-dir DATA" if task.is_own else "--data-dir DATA"
        raise ConfigError(f"data.dir: not set; give {what} (what `dept-vl prepare` wrote), or 'demo'")
    return Path(config.data.dir)


def text_data_dir(task: Task, *, may_make: bool = True) -> Path:
    """Returns the data folder that holds a text task, prepared from the hub on the first call.

    It is ``data`` in ``$DEPT_VL_CACHE``, by default ``~/.cache/dept_vl``; a prepared task in it is used as it is.

    Args:
        task: A text task, under its protocol.
        may_make: Whether it is prepared where it is not there.

    Raises:
        NotMadeError: It is not there, and nothing may be made.
        DataError: The hub cannot be reached, the folder cannot be written, or several processes were launched before
            the task was prepared.
    """
    from data_prep.prepare import prepare

    root = cache_root() / "data"
    folder = task_folder(root, task)
    if folder.is_dir():
        return root
    command = f"`dept-vl prepare --task {task.name} --protocol {task.protocol} --out {root}`"
    refuse_making(folder, command, may_make=may_make)
    with making(folder, "prepare the task", ", or give --data-dir DATA"):
        if not folder.is_dir():
            logger.info("no --data-dir: preparing %s from %s into %s (once)", task.name, task.source, folder)
            prepare(task, None, root, protocol=task.protocol)
    return root
