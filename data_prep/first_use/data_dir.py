"""The folder of a run's prepared data: the one it names, or one in the cache that is made on first use."""

from __future__ import annotations

from pathlib import Path

from dept_vl.errors import ConfigError
from dept_vl.settings.schema import TrainConfig


def open_data_dir(config: TrainConfig) -> Path:
    """Returns the folder of prepared data; the demo's, text tasks from the hub and rows of one's own are made here.

    Raises:
        ConfigError: The settings name no data, or name them twice.
        DataError: The data cannot be made.
    """
    task = config.resolve_task()
    if config.data.rows is not None and config.data.dir is not None and task.is_own:
        raise ConfigError("data.rows: rows are prepared into the cache, and data.dir names prepared data; give one")
    if config.data.rows is not None:
        from data_prep.first_use.own_rows import rows_data_dir

        return rows_data_dir(config)
    if config.is_demo_data:
        from data_prep.first_use.demo import demo_data_dir

        return demo_data_dir(config.model.image_encoder)
    if config.data.dir is None and task.protocols:
        from data_prep.first_use.hub import text_data_dir

        return text_data_dir(task)
    if config.data.dir is None:
        what = "--rows ROWS (in Python train=), or --data-dir DATA" if task.is_own else "--data-dir DATA"
        raise ConfigError(f"data.dir: not set; give {what} (what `dept-vl prepare` wrote), or 'demo'")
    return Path(config.data.dir)
