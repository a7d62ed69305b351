"""A visual projection that another run has trained, and that stays frozen: `ModelConfig.frozen_projection`."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor

from dept_vl.errors import CheckpointError
from dept_vl.models.adapter.announced import PROJECTION, announced_tensors, empty_tuner, part_of
from dept_vl.models.adapter.files import AdapterConfig, copy_tensors, load_adapter
from dept_vl.models.adapter.presence import blamed_on_projection, projection_source
from dept_vl.models.config import ModelConfig
from dept_vl.models.language.base import Backbone
from dept_vl.models.vision.projection import VisualProjection, build_projection

logger = logging.getLogger(__name__)


def load_projection(
    model: ModelConfig, backbone: Backbone[Any], feature_dim: int, find_run: Callable[[str], Path]
) -> VisualProjection:
    """Returns the projection of a trained run, without gradients.

    Args:
        model: Names the run.
        backbone: What the projection must have been trained for, by width.
        feature_dim: Width of the features that it must take.
        find_run: From the run's name to its folder.

    Raises:
        CheckpointError: As `projection_source`, or its projection is for another backbone or other features.
        ConfigError: What computes the run's method is not installed.
    """
    folder = projection_source(model, find_run)

    def expect(source: AdapterConfig) -> dict[str, Tensor]:
        assert source.visual is not None
        pairs = {
            "features": (source.visual.feature_dim, feature_dim),
            "backbone": (source.backbone.d_model, backbone.d_model),
        }
        problems = [
            f"width of the {of} {theirs}, here {ours}" for of, (theirs, ours) in pairs.items() if theirs != ours
        ]
        if problems:
            raise CheckpointError(f"{folder}: is for other models: {'; '.join(problems)}; name a run of these")
        return announced_tensors(backbone, source, empty_tuner(backbone, source))

    with blamed_on_projection():
        tensors, source = load_adapter(folder, expect)
    recorded = source.backbone.weights_sha256
    if recorded is not None and recorded != backbone.weights_sha256:
        logger.warning(
            "model.frozen_projection: %s: was trained with a %s of other weights than those here",
            folder, source.backbone.name,
        )  # fmt: skip
    projection = build_projection(
        model.visual_projection,
        feature_dim,
        backbone.d_model,
        layer_norm_epsilon=backbone.layer_norm_epsilon,
        has_norm_biases=source.tuner.has_norm_biases,
    )
    copy_tensors({n: p.detach() for n, p in projection.named_parameters()}, part_of(tensors, PROJECTION), str(folder))
    return projection.requires_grad_(False)
