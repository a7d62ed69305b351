"""The tensors that the settings of an adapter announce, before any value is read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from dept_vl.models.adapter.files import AdapterConfig
from dept_vl.models.language.base import Backbone
from dept_vl.models.trained_names import connector_names, method_names
from dept_vl.models.vision.projection import build_projection
from dept_vl.tuners.base import Tuner

TUNER = "tuner."
BACKBONE = "backbone.model."
PROJECTION = "visual_projection."
"""What stands before the names of a method's tensors in a file, of the backbone's own, of the projection's."""


def empty_tuner(backbone: Backbone[Any], source: AdapterConfig) -> Tuner:
    """Returns an adapter's tuner on some backbone, on the meta device.

    Raises:
        ConfigError: Its settings do not fit the backbone.
    """
    with torch.device("meta"):
        tuner: Tuner = source.tuner.empty(backbone.tuner_context(source.max_source_length, tasks=source.tasks))
    return tuner


def announced_tensors(backbone: Backbone[Any], source: AdapterConfig, tuner: Tuner) -> dict[str, Tensor]:
    """Returns tensors of the shapes and types that an adapter's file must hold, by their names in it.

    Args:
        backbone: Of the width that the adapter is for.
        source: The adapter's settings.
        tuner: From `empty_tuner`.
    """
    state = {**tuner.trainable_state(), **tuner.frozen_state()}
    announced = {f"{TUNER}{name}": tensor for name, tensor in state.items()}
    parameters = {name: p.detach() for name, p in backbone.model.named_parameters()}
    own = [*tuner.trained_backbone_parameters(method_names(backbone))]
    own += sorted(connector_names(backbone)) if source.train_connector else []
    announced |= {f"{BACKBONE}{name}": parameters[name] for name in own}
    if source.visual is not None and source.visual.frozen_projection_sha256 is None:
        with torch.device("meta"):
            projection = build_projection(
                source.visual.projection,
                source.visual.feature_dim,
                backbone.d_model,
                has_norm_biases=source.tuner.has_norm_biases,
            )
        announced |= {f"{PROJECTION}{name}": p.detach() for name, p in projection.named_parameters()}
    return announced


def part_of(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Returns the tensors under a prefix, by their names below it."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
