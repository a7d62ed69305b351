"""A trained run by its folder or hub id, checked before torch is imported."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from dept_vl.api.recorded_run import ARGUMENTS, read_run
from dept_vl.models.language.stored import check_files
from dept_vl.runs.hub import find_run
from dept_vl.runs.refusals import check_fold

if TYPE_CHECKING:
    import torch

    from dept_vl.api.model import Model
    from dept_vl.runs.fold import Folded
    from dept_vl.runs.session import Session


def load(
    run: str | os.PathLike[str],
    *,
    device: str | torch.device | None = None,
    precision: Literal["float32", "bf16"] | None = None,
    revision: str | None = None,
    backbone: str | os.PathLike[str] | None = None,
    image_encoder: str | os.PathLike[str] | None = None,
    frozen_projection: str | os.PathLike[str] | None = None,
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
        frozen_projection: The run whose projection is read, where it lies elsewhere now: hub id or folder.
        session: Frozen models that several models of this process share; None: this model's own.

    Raises:
        ConfigError: Something recorded is not there any more, and the message names the argument to give; a frozen
            model cannot be loaded; or there is no such device.
        CheckpointError: There is no run, here or on the hub, or its adapter is damaged or does not fit.
    """
    settings: dict[str, Any] = _given(backbone, image_encoder, frozen_projection)
    if precision is not None:
        settings["loop.precision"] = precision
    folder, config = read_run(run, revision, settings)
    check_files(config.model.backbone, config.model.revision)
    if config.uses_images:
        config.model.image_encoder.check_files()
    from dept_vl.api.model import Model

    return Model(folder, config, device=device, session=session)


def fold(
    run: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    revision: str | None = None,
    backbone: str | os.PathLike[str] | None = None,
    frozen_projection: str | os.PathLike[str] | None = None,
) -> Folded:
    """Turns a trained method into plain weights or a plain prompt, in a new run folder that answers the same.

    Args:
        run: The run's folder or hub id.
        out: The new folder; `load` takes it, and so does ``dept-vl eval --checkpoint``.
        revision: As `load`.
        backbone: As `load`.
        frozen_projection: As `load`.

    Returns:
        What became of it, and how far its logits are from the run's.

    Raises:
        DataError: `out` is not empty.
        ConfigError: As `load`.
        CheckpointError: There is no run; its method has no plain form, and the message says which part and why; or the
            logits of the two differ. Nothing is written.
    """
    settings = _given(backbone, None, frozen_projection)
    check_fold(find_run(os.fspath(run), revision=revision), Path(out))
    folder, config = read_run(run, revision, settings)
    check_files(config.model.backbone, config.model.revision)
    from dept_vl.runs.fold import fold_run

    return fold_run(folder, Path(out), config=config)


def _given(*values: str | os.PathLike[str] | None) -> dict[str, str]:
    """Returns the dotted settings of arguments in the order of `ARGUMENTS`, those that are not None."""
    return {key: os.fspath(value) for key, value in zip(ARGUMENTS, values, strict=True) if value is not None}
