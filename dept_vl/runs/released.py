"""Imports adapters of the released DePT code as run folders, and exports runs to the released code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import T5Config

from dept_vl.errors import CheckpointError, ConfigError
from dept_vl.models.adapter.card import model_card
from dept_vl.models.adapter.files import AdapterConfig, BackboneIdentity, load_adapter, save_adapter
from dept_vl.models.adapter.identity import backbone_identity
from dept_vl.models.adapter.released_format import (
    ADAPTER_CONFIG_FILE,
    ReleasedAdapter,
    ReleasedConfig,
    read_released,
    write_released,
)
from dept_vl.models.language.load import load_backbone
from dept_vl.models.language.published_shapes import published_config
from dept_vl.runs.folder import open_run_folder
from dept_vl.runs.refusals import check_export, check_import
from dept_vl.settings.load import config_from_tree
from dept_vl.system.version import __version__
from dept_vl.tasks import get_task
from dept_vl.tasks.released_names import our_name
from dept_vl.tuners.base import Tuner
from dept_vl.tuners.context import TunerContext

PAPER = "paper"
"""The protocol of text tasks that follows the released code."""


def import_released(
    folder: Path,
    run_dir: Path,
    *,
    task: str | None = None,
    backbone: str | None = None,
    prompt_only: bool = False,
    overwrite: bool = False,
) -> AdapterConfig:
    """Writes a run folder that holds a released adapter, for ``eval``, ``predict`` and ``train --init-from``.

    Args:
        folder: The released adapter's.
        run_dir: The run folder to make.
        task: Our or the released name; None for the folder's own name.
        backbone: The T5 it belongs to, loaded to record its weights' hash. None: the published T5 that the adapter
            names, its weights not recorded.
        prompt_only: Import the soft prompt as prompt tuning, without the low-rank pair.
        overwrite: Replace a run in `run_dir`.

    Raises:
        ConfigError: The task or the backbone is not known, or `run_dir` is taken.
        CheckpointError: As `read_released`, or the adapter is not of the backbone's width or depth.
    """
    check_import(folder, run_dir, task=task, overwrite=overwrite, backbone=backbone)
    released = read_released(folder, prompt_only=prompt_only)
    identity = _identity(folder, released.config, backbone)
    config = config_from_tree(
        imported_settings(
            released,
            task=our_name(task or folder.resolve().name),
            backbone=backbone or identity.name,
            run_dir=run_dir,
        ),
        where=str(folder),
    )
    with torch.device("meta"):
        tuner: Tuner = config.tuner.empty(TunerContext(identity.d_model, config.data.max_source_length))
    adapter = AdapterConfig(
        dept_vl_version=__version__,
        backbone=identity,
        max_source_length=tuner.max_source_length,
        tuner=config.tuner,
        facts=tuner.facts(),
        task=config.task,
        origin=released.origin,
    )
    record = {"imported": {"weights_sha256": released.origin.weights_sha256, "lowrank": released.origin.lowrank}}
    open_run_folder(config, resume=False, overwrite=overwrite, record=record)
    save_adapter(run_dir, released.tensors, adapter, model_card(adapter, config.model))
    return adapter


def imported_settings(released: ReleasedAdapter, *, task: str, backbone: str, run_dir: Path) -> dict[str, Any]:
    """Returns the settings tree of an imported run: what the adapter's numbers depend on, the rest by default.

    The one place to say how a released adapter is evaluated: with the protocol it was trained under, by generation.
    How it was trained otherwise is not in its files, so ``optim`` and ``loop`` are this package's defaults.
    """
    data: dict[str, Any] = {}
    decode = {}
    if released.config.max_length is not None:
        data["max_source_length"] = released.config.max_length
    if PAPER in get_task(task).protocols:
        data["protocol"] = PAPER
        decode["method"] = "generate"
    return {
        "task": task,
        "output_dir": str(run_dir),
        "model": {"backbone": backbone},
        "data": data,
        "decode": decode,
        "tuner": released.tuner_settings(),
    }


def export_released(run_dir: Path, out: Path) -> None:
    """Writes a run's adapter as the released code loads it.

    Raises:
        CheckpointError: No adapter in `run_dir`, or one that the released code cannot represent.
        ConfigError: `out` is not empty.
    """
    check_export(run_dir, out)
    tensors, saved = load_adapter(run_dir)
    try:
        write_released(out, tensors, saved)
    except CheckpointError as error:
        raise CheckpointError(f"{run_dir}: cannot be exported: {error}") from None


def _identity(folder: Path, config: ReleasedConfig, backbone: str | None) -> BackboneIdentity:
    """Returns what is known of the adapter's backbone, its width and depth checked.

    Raises:
        ConfigError: The backbone cannot be loaded, or is not a published T5 and was not given.
        CheckpointError: Width or depth differ; both sides are named.
    """
    if backbone is not None:
        identity = backbone_identity(load_backbone(backbone)[0], backbone)
    else:
        name = config.base_model_name_or_path or ""
        t5 = published_config(name)
        if not isinstance(t5, T5Config):
            raise ConfigError(f"{folder}: names the backbone {name!r}, which is not a published T5; give --backbone")
        identity = BackboneIdentity(
            name, t5.d_model, t5.num_layers, t5.num_decoder_layers or t5.num_layers, t5.vocab_size, None
        )
    pairs = {
        "family": ("t5", identity.family),
        "token_dim": (config.token_dim, identity.d_model),
        "num_layers": (config.num_layers or identity.num_layers, identity.num_layers),
    }
    problems = [f"{key} {a}, {identity.name!r} has {b}" for key, (a, b) in pairs.items() if a != b]
    if problems:
        raise CheckpointError(f"{folder / ADAPTER_CONFIG_FILE}: not of this backbone: {'; '.join(problems)}")
    return identity
