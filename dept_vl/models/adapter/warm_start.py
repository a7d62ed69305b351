"""Starts a model from a trained adapter of another task: transfer (Shi & Lipani 2024, section 3.4)."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from dept_vl.errors import CheckpointError
from dept_vl.models.adapted_model import AdaptedModel
from dept_vl.models.adapter.announced import BACKBONE, PROJECTION, TUNER, announced_tensors, empty_tuner, part_of
from dept_vl.models.adapter.files import AdapterConfig, copy_tensors, load_adapter
from dept_vl.models.trained_names import connector_names
from dept_vl.tuners.base import Tuner

logger = logging.getLogger(__name__)


def warm_start(model: AdaptedModel, folder: Path, parts: Literal["all", "prompt"]) -> dict[str, Any]:
    """Puts the trained values of an adapter into a fresh model.

    ``"prompt"`` takes the soft prompt alone, whatever the methods; its length and width must agree. ``"all"`` takes
    the whole method, which must be the same and of the same sizes (`Tuner.start_from` says what may differ), and the
    visual projection if both have one of equal shape.

    Args:
        model: Freshly built; changed in place.
        folder: A run's folder or an adapter's.
        parts: What is taken.

    Returns:
        Where the run starts from: folder, parts, the source's task, its method and what was adapted, for ``run.json``.

    Raises:
        ConfigError: The source's method does not fit this backbone.
        CheckpointError: No adapter there, or one of another width, method or size; both sides are named.
    """
    target = model.adapter_config()
    announced: dict[str, Tensor] = {}
    source_tuner: list[Tuner] = []

    def expect(source: AdapterConfig) -> dict[str, Tensor]:
        if source.backbone.d_model != target.backbone.d_model:
            raise CheckpointError(
                f"init.from: {folder}: was trained on {source.backbone.name} of width "
                f"d_model={source.backbone.d_model}, this run's {target.backbone.name} has "
                f"d_model={target.backbone.d_model}; they must be the same"
            )
        source_tuner.append(empty_tuner(model.backbone, source))
        announced.update(announced_tensors(model.backbone, source, source_tuner[0]))
        return announced

    tensors, source = load_adapter(folder, expect)
    try:
        if parts == "prompt":
            _take_prompt(model, tensors, source_tuner[0])
            notes = []
        else:
            notes = model.tuner.start_from(part_of(tensors, TUNER), source.tuner)
            notes += _take_backbone(model, tensors)
            notes += _take_projection(model, tensors)
    except CheckpointError as error:
        raise CheckpointError(f"init.from: {folder}: {error}") from None
    recorded = source.backbone.weights_sha256
    if recorded is None:
        notes.append(f"the source does not record its backbone's weights ({source.backbone.name}): not compared")
    elif recorded != target.backbone.weights_sha256:
        notes.append(f"the source's backbone {source.backbone.name} has other weights than {target.backbone.name}")
    if source.backbone.image_weights_sha256 not in (None, target.backbone.image_weights_sha256):
        notes.append(f"the image encoder in {source.backbone.name} has other weights than in {target.backbone.name}")
    logger.info("starting from %s (%s, trained on %s), parts: %s", folder, source.tuner.label, source.task, parts)
    for note in notes:
        logger.info("init.from: %s", note)
    return {
        "from": str(folder),
        "parts": parts,
        "source_task": source.task,
        "source_tuner": source.tuner.label,
        "notes": notes,
    }


def check_can_start(tuner: Tuner, source: Tuner, parts: Literal["all", "prompt"]) -> None:
    """Refuses a source that a run cannot start from, by the rules of `warm_start`, before there are any values.

    Args:
        tuner: The run's, on the meta device.
        source: The source's, on the meta device and the same backbone.
        parts: What will be taken.

    Raises:
        CheckpointError: Another method, or other sizes; both sides are named.
    """
    if parts == "prompt":
        _equal_prompts(tuner, source)
    else:
        tuner.start_from({**source.trainable_state(), **source.frozen_state()}, source.config)


@torch.no_grad()
def _take_prompt(model: AdaptedModel, tensors: Mapping[str, Tensor], source: Tuner) -> None:
    ours, theirs = _equal_prompts(model.tuner, source)
    names = {id(parameter): name for name, parameter in source.named_parameters()}
    ours.copy_(tensors[f"{TUNER}{names[id(theirs)]}"])


def _equal_prompts(tuner: Tuner, source: Tuner) -> tuple[nn.Parameter, nn.Parameter]:
    """Returns the soft prompts of a run and of what it starts from.

    Raises:
        CheckpointError: One has none, or they are of different lengths.
    """
    ours, theirs = tuner.prompt(), source.prompt()
    if ours is None or theirs is None or ours.shape != theirs.shape:
        lengths = [0 if prompt is None else len(prompt) for prompt in (theirs, ours)]
        raise CheckpointError(
            f"the source's soft prompt has num_virtual_tokens={lengths[0]}, this run's has {lengths[1]}; "
            "set tuner.num_virtual_tokens to the source's (above 0)"
        )
    return ours, theirs


def _take_projection(model: AdaptedModel, tensors: Mapping[str, Tensor]) -> list[str]:
    """Copies the visual projection where both train one of equal shape; returns what to say otherwise."""
    if model.config.frozen_projection is not None:
        return [f"the visual projection is that of model.frozen_projection={model.config.frozen_projection}"]
    ours, theirs = (part_of(side, PROJECTION) for side in (model.trainable_state(), tensors))
    shapes = [{name: (tuple(t.shape), t.dtype) for name, t in side.items()} for side in (theirs, ours)]
    if shapes[0] != shapes[1]:
        theirs_text, ours_text = (side or "none" for side in shapes)
        return [f"the visual projection starts fresh: the source trained {theirs_text}, this run trains {ours_text}"]
    copy_tensors(ours, theirs, "the source")
    return []


def _take_backbone(model: AdaptedModel, tensors: Mapping[str, Tensor]) -> list[str]:
    """Copies the backbone's own tensors, the connector's where both train it; returns what to say otherwise."""
    ours, theirs = (part_of(side, BACKBONE) for side in (model.trainable_state(), tensors))
    connector = connector_names(model.backbone)
    lone = connector & (ours.keys() ^ theirs.keys())
    kept = [{name: value for name, value in side.items() if name not in lone} for side in (ours, theirs)]
    copy_tensors(kept[0], kept[1], "the source")
    if not lone:
        return []
    return [
        f"the connector starts as the backbone has it: {'the source' if lone & ours.keys() else 'this run'} trains none"
    ]
