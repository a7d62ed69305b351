"""Trains a run from Python: on prepared data, as the command line does, or on rows in memory."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dept_vl.errors import ConfigError
from dept_vl.runs.callbacks import Callback
from dept_vl.runs.folder import check_run_folder
from dept_vl.runs.refusals import check_start
from dept_vl.runs.selection import check_best_metric, check_data
from dept_vl.settings.declared import check_declaration
from dept_vl.settings.demo import choose_settings
from dept_vl.settings.load import flat_settings
from dept_vl.settings.schema import TrainConfig

if TYPE_CHECKING:
    from dept_vl.training.result import TrainResult

Rows = Any
"""Rows in memory: a list of mappings, a `datasets.Dataset` or a DataFrame."""


def train(
    config: TrainConfig | Mapping[str, Any],
    train: Rows = None,
    val: Rows = None,
    test: Rows = None,
    *,
    images: str | os.PathLike[str] | None = None,
    callbacks: Sequence[Callback] = (),
    resume: bool = False,
    overwrite: bool = False,
) -> TrainResult:
    """Trains a run, and keeps its best adapter in its folder: ``dept_vl.load(result.run_dir)`` is the model.

    Args:
        config: The settings: nested or dotted, ``{"task": "my_task.yaml", "tuner.lr": 0.3}``. ``config`` in them names
            a file of settings, a shipped one or ``"demo"``, which the others are laid over; ``task`` may be the fields
            of a declaration instead of a name or a file.
        train: Rows to train on, of a task that is declared for rows of one's own: mappings of its columns, or a
            `datasets.Dataset`. Pictures in them are paths, PIL images or the bytes of files. They are prepared, and
            their images encoded, into the cache. None: the data that the settings name.
        val: Rows to choose the best checkpoint by; None: a share of `train`, as the declaration's ``split`` says.
        test: Rows that `dept-vl eval` scores; None: none, or a share of `train` too where it is given alone.
        images: What names of images in the rows start from; None: they are paths of files.
        callbacks: Told of steps, evaluations and checkpoints.
        resume: Go on from the newest checkpoint in the run's folder.
        overwrite: Replace an earlier run in that folder.

    Raises:
        ConfigError, DataError, CheckpointError: Settings, rows or folder do not do; before anything is trained.
        DivergenceError: The loss or a gradient is not finite, or exploded.
    """
    from data_prep.first_use.data_dir import open_data_dir
    from data_prep.first_use.own_rows import records_data_dir

    if not isinstance(callbacks, Sequence) or not all(isinstance(one, Callback) for one in callbacks):
        raise ConfigError(f"callbacks: expected a list of dept_vl.Callback objects, got {callbacks!r:.80}")
    splits = {"train": train, "val": val, "test": test}
    given = {name: rows for name, rows in splits.items() if rows is not None}
    if given and train is None:
        raise ConfigError(f"{next(iter(given))}: given without train; give the rows to train on too")
    config = _settings(config, is_own_data=bool(given))
    if given:
        _check_own(config)
    check_best_metric(config)
    check_run_folder(config.run_dir, resume=resume, overwrite=overwrite)  # before images are encoded
    if given:
        root = None if images is None else Path(images)
        folder = records_data_dir(config, given if len(given) > 1 else train, root)
        config = replace(config, data=replace(config.data, dir=str(folder)))
    check_start(config, resume=resume, overwrite=overwrite)
    data_dir = open_data_dir(config)
    check_data(config, data_dir, ["train", "val"])
    from dept_vl.training.trainer import train as run

    return run(config, data_dir, resume=resume, overwrite=overwrite, callbacks=callbacks)


def _check_own(config: TrainConfig) -> None:
    """Refuses settings that rows in memory do not go with.

    Raises:
        ConfigError: The task is none for rows of one's own, or the settings name data or images too.
    """
    task = config.resolve_task()
    if not task.is_own:
        raise ConfigError(
            f"task: {task.name!r} is prepared from files of its own; rows belong to a task that one declares: give "
            "its file or its fields"
        )
    for key, value in (("dir", config.data.dir), ("rows", config.data.rows), ("image_dir", config.data.image_dir)):
        if value is not None:
            instead = "; give images=" if key == "image_dir" else ""
            raise ConfigError(f"data.{key}: rows are given to train() itself; leave it out{instead}")


def _settings(config: TrainConfig | Mapping[str, Any], *, is_own_data: bool) -> TrainConfig:
    """Returns checked settings of any form that `train` takes."""
    if isinstance(config, TrainConfig):
        return config
    if not isinstance(config, Mapping):
        raise ConfigError(f"config: expected settings, such as {{'task': 'vqa'}}, got {config!r:.80}")
    settings = dict(config)
    base, task = settings.pop("config", None), settings.pop("task", None)
    flat = flat_settings(settings).items()
    settings = {key: os.fspath(value) if isinstance(value, os.PathLike) else value for key, value in flat}
    if isinstance(task, Mapping):
        declaration = check_declaration(task, "task")
        settings |= {"task": declaration.name, "declaration": declaration}
    elif isinstance(task, str | os.PathLike):
        settings["task"] = os.fspath(task)
    elif task is not None:
        raise ConfigError(f"task: expected a name, a file that declares one, or its fields, got {task!r:.80}")
    return choose_settings(None if base is None else Path(base), settings, is_own_data=is_own_data)
