"""A trained run by its folder or hub id, checked before torch is imported."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Literal

from dept_vl.api.recorded_run import read_run
from dept_vl.models.language.stored import check_files

if TYPE_CHECKING:
    import torch

    from dept_vl.api.model import Model
    from dept_vl.runs.session import Session


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
    if config.uses_images:
        config.model.image_encoder.check_files()
    from dept_vl.api.model import Model

    return Model(folder, config, device=device, session=session)
