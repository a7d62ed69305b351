"""The model without weights, to count its parameters."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from dept_vl.models.adapted_model import AdaptedModel
from dept_vl.models.config import ModelConfig
from dept_vl.models.language.family import check_positions
from dept_vl.models.language.load import backbone_config, meta_backbone
from dept_vl.models.vision.projection import new_projection
from dept_vl.tuners import TunerConfig
from dept_vl.tuners.base import Tuner


def build_meta_model(
    model: ModelConfig,
    tuner: TunerConfig,
    *,
    max_source_length: int,
    feature_dim: int | None,
    tasks: Sequence[str] = (),
    vocab_size: int | None = None,
) -> AdaptedModel:
    """Builds the model on the meta device, without weights, to count its parameters (``dept-vl info``).

    Args:
        model: Frozen models and how they are joined.
        tuner: The method.
        max_source_length: Text length, tokens.
        feature_dim: Width of the visual features; None for a model that reads text alone.
        tasks: Names of the tasks that are trained together; empty for one.
        vocab_size: Rows of the word embeddings, in place of the backbone's.

    Raises:
        ConfigError: The backbone's shape is not known here or has too few positions, or the tuner's settings do not fit
            it.
    """
    config = backbone_config(model.backbone, model.revision)
    if vocab_size is not None:
        config.vocab_size = vocab_size
    backbone = meta_backbone(config, visual_position_bias=model.visual_position_bias)
    with torch.device("meta"):
        built: Tuner = tuner.empty(backbone.tuner_context(max_source_length, tasks=tasks))
        check_positions(backbone.max_positions, backbone.family, built.num_virtual_tokens, max_source_length)
        projection = new_projection(model, backbone, feature_dim, tuner)
        return AdaptedModel(backbone, built, projection, model, tasks=tasks)
