"""A trained run by its folder or hub id, checked before torch is imported."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from dept_vl.errors import ConfigError
from dept_vl.models.adapter.presence import require_adapter
from dept_vl.models.language.stored import check_files
from dept_vl.runs.folder import RUN_CONFIG_FILE, read_run_config
from dept_vl.runs.hub import find_run
from dept_vl.runs.recorded import check_recorded_paths
from dept_vl.settings.load import load_config
from dept_vl.settings.schema import TrainConfig

if TYPE_CHECKING:
    import torch

    from dept_vl.api.model import Model
    from dept_vl.runs.session import Session

_ARGUMENTS = {"model.backbone": "backbone", "model.image_encoder.model": "image_encoder"}
"""Recorded path -> the argument of `load` that gives another one."""


def load(
    run: str | os.PathLike[str],
    *,
    device: str | torch.device | None = None,
    precision: Literal["float32", "bf16"] | None = None,
    revision: str | None = None,
    backbone: str | os.PathLike[str] | None = None,
    image_encoder: str | os.PathLike[str] | None = None,
    session: Session | None = None,
) -> Model:
    """Loads a trained run, ready to be asked.

    Args:
        run: The run's folder, with ``config.yaml`` and the adapter; or its hub id, ``user/name``.
        device: Where the models are, such as ``"cuda:1"``; None: an accelerator if there is one, else the CPU.
        precision: ``"bf16"`` for autocast; None: as the run was trained.
        revision: Branch, tag or commit of a run on the hub.
        backbone: The frozen language model, where it lies elsewhere now: hub id or folder.
        image_encoder: The frozen image encoder, where it lies elsewhere now.
        session: Frozen models that several models of this process share; None: this model's own.

    Raises:
        ConfigError: Something recorded is not there any more, and the message names the argument to give; a frozen
            model cannot be loaded; or there is no such device.
        CheckpointError: There is no run, here or on the hub, or its adapter is damaged or does not fit.
    """
    settings = {
        "loop.precision": precision,
        "model.backbone": None if backbone is None else os.fspath(backbone),
        "model.image_encoder.model": None if image_encoder is None else os.fspath(image_encoder),
    }
    folder, config = read_run(run, revision, {key: value for key, value in settings.items() if value is not None})
    check_files(config.model.backbone, config.model.revision)
    if config.resolve_task().uses_images:
        config.model.image_encoder.check_files()
    from dept_vl.api.model import Model

    return Model(folder, config, device=device, session=session)


def read_run(
    run: str | os.PathLike[str], revision: str | None, settings: Mapping[str, Any]
) -> tuple[Path, TrainConfig]:
    """Returns the folder of a run that has an adapter, and its settings.

    Args:
        run: As `load`.
        revision: As `load`.
        settings: Dotted settings that are laid over the recorded ones.

    Raises:
        ConfigError: As `load`.
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
        how_to_give=lambda key: f"{_ARGUMENTS[key]}=PATH" if key in _ARGUMENTS else f"{key} in {RUN_CONFIG_FILE}",
    )
    require_adapter(folder)
    return folder, config
