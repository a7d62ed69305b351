"""A run as it lies in its folder or on the hub, read for Python. No torch."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dept_vl.errors import ConfigError
from dept_vl.models.adapter.presence import require_adapter
from dept_vl.runs.folder import RUN_CONFIG_FILE, read_run_config
from dept_vl.runs.hub import find_run
from dept_vl.runs.recorded import check_recorded_paths
from dept_vl.settings.load import load_config
from dept_vl.settings.schema import TrainConfig

ARGUMENTS = {
    "model.backbone": "backbone",
    "model.image_encoder.model": "image_encoder",
    "model.frozen_projection": "frozen_projection",
}
"""Recorded path -> the argument of `dept_vl.load` that gives another one."""


def read_run(
    run: str | os.PathLike[str], revision: str | None, settings: Mapping[str, Any]
) -> tuple[Path, TrainConfig]:
    """Returns the folder of a run that has an adapter, and its settings.

    Args:
        run: As `dept_vl.load`.
        revision: As `dept_vl.load`.
        settings: Dotted settings that are laid over the recorded ones.

    Raises:
        ConfigError: As `dept_vl.load`.
        CheckpointError: There is no run, or no adapter.
    """
    if not isinstance(run, str | os.PathLike):
        raise ConfigError(f"run: expected a folder or a hub id, got {run!r:.80}")
    folder = find_run(os.fspath(run), revision=revision)
    read_run_config(folder, "dept_vl.load(RUN)")
    config = load_config(folder / RUN_CONFIG_FILE, settings)
    check_recorded_paths(
        config,
        folder,
        settings,
        is_read=lambda key: key.startswith("model."),
        how_to_give=lambda key: f"{ARGUMENTS[key]}=PATH" if key in ARGUMENTS else f"{key} in {RUN_CONFIG_FILE}",
    )
    config.tuner.check_packages()
    require_adapter(folder)
    return folder, config
