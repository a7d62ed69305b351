"""Starts a model from a trained adapter of another task: transfer (Shi & Lipani 2024, section 3.4)."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from dept_vl.errors import CheckpointError
from dept_vl.models.adapted_model import CLIPT5
from dept_vl.models.adapter.files import AdapterConfig, load_adapter

logger = logging.getLogger(__name__)

_TUNER = "tuner."
_PROMPT = "soft_prompt"


def warm_start(model: CLIPT5, folder: Path, parts: Literal["all", "prompt"]) -> dict[str, Any]:
    """Puts the trained values of an adapter into a fresh model.

    ``"prompt"`` takes the soft prompt alone, whatever the methods; its length and width must agree. ``"all"`` takes
    the whole tuner, which must be of the same method and sizes (`Tuner.start_from` says what may differ), and the
    visual projection if both have one of equal shape.

    Args:
        model: Freshly built; changed in place.
        folder: A run's folder or an adapter's.
        parts: What is taken.

    Returns:
        Where the run starts from: folder, parts, the source's task, its method and what was adapted, for ``run.json``.

    Raises:
        CheckpointError: No adapter there, or one of another width, method or size; both sides are named and the model
            is unchanged.
    """
    tensors, source = load_adapter(folder)
    target = model.adapter_config()
    if source.backbone.d_model != target.backbone.d_model:
        raise CheckpointError(
            f"init.from: {folder}: was trained on {source.backbone.name} of width d_model={source.backbone.d_model}, "
            f"this run's {target.backbone.name} has d_model={target.backbone.d_model}; they must be the same"
        )
    own = _tuner_tensors(folder, tensors, source)
    try:
        if parts == "prompt":
            _take_prompt(model, own, source)
            notes = []
        else:
            notes = model.tuner.start_from(own, source.tuner) + _take_projection(model, tensors)
    except CheckpointError as error:
        raise CheckpointError(f"init.from: {folder}: {error}") from None
    recorded = source.backbone.weights_sha256
    if recorded is None:
        notes.append(f"the source does not record its backbone's weights ({source.backbone.name}): not compared")
    elif recorded != target.backbone.weights_sha256:
        notes.append(f"the source's backbone {source.backbone.name} has other weights than {target.backbone.name}")
    logger.info("starting from %s (%s, trained on %s), parts: %s", folder, source.tuner.name, source.task, parts)
    for note in notes:
        logger.info("init.from: %s", note)
    return {
        "from": str(folder),
        "parts": parts,
        "source_task": source.task,
        "source_tuner": source.tuner.name,
        "notes": notes,
    }


def _tuner_tensors(folder: Path, tensors: Mapping[str, Tensor], source: AdapterConfig) -> dict[str, Tensor]:
    """Returns the source tuner's tensors by the tuner's own names.

    Raises:
        CheckpointError: They are not of the shapes that the source's settings give.
    """
    own = {key.removeprefix(_TUNER): value for key, value in tensors.items() if key.startswith(_TUNER)}
    with torch.device("meta"):
        announced = source.tuner.build_empty(source.backbone.d_model, source.max_source_length).trainable_state()
    shapes = [{key: (tuple(tensor.shape), tensor.dtype) for key, tensor in side.items()} for side in (own, announced)]
    if shapes[0] != shapes[1]:
        raise CheckpointError(f"{folder}: holds the tuner {shapes[0]}, its settings say {shapes[1]}")
    return own


@torch.no_grad()
def _take_prompt(model: CLIPT5, tensors: Mapping[str, Tensor], source: AdapterConfig) -> None:
    ours, theirs = model.tuner.num_virtual_tokens, source.num_virtual_tokens
    if ours != theirs or _PROMPT not in tensors:
        raise CheckpointError(
            f"the source's soft prompt has num_virtual_tokens={theirs}, this run's has {ours}; "
            "set tuner.num_virtual_tokens to the source's (above 0)"
        )
    model.tuner.trainable_state()[_PROMPT].copy_(tensors[_PROMPT])


@torch.no_grad()
def _take_projection(model: CLIPT5, tensors: Mapping[str, Tensor]) -> list[str]:
    """Copies the visual projection where both have one of equal shape; returns what to say otherwise."""
    ours = {name: tensor for name, tensor in model.trainable_state().items() if not name.startswith(_TUNER)}
    theirs = {name: tensor for name, tensor in tensors.items() if not name.startswith(_TUNER)}
    shapes = [{name: (tuple(t.shape), t.dtype) for name, t in side.items()} for side in (theirs, ours)]
    if shapes[0] != shapes[1]:
        theirs_text, ours_text = (side or "none" for side in shapes)
        return [f"the visual projection starts fresh: the source has {theirs_text}, this run has {ours_text}"]
    for name, tensor in ours.items():
        tensor.copy_(theirs[name])
    return []
