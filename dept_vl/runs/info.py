"""The model of a configuration without any weights, and its trainable-parameter budget."""

from __future__ import annotations

from pathlib import PurePath

from dept_vl.models.adapted_model import AdaptedModel
from dept_vl.models.meta_model import build_meta_model
from dept_vl.models.parameter_budget import ParameterBudget
from dept_vl.settings.own_encoder import has_own_image_encoder
from dept_vl.settings.schema import TrainConfig

TABLE_3_VOCABULARY = 32_200
"""Rows of T5-base's word embeddings in Sung et al.'s code (VL-T5's tokenizer: 32,100 words, 100 image tokens)."""


def meta_model(config: TrainConfig, *, vocab_size: int | None = None) -> AdaptedModel:
    """Builds a run's model on the meta device, without any weights.

    Args:
        config: The run's settings.
        vocab_size: Rows of the word embeddings, in place of the backbone's.

    Raises:
        ConfigError: The budget cannot be met, or the backbone's or the image encoder's shape is not known here.
    """
    has_features = config.uses_images and not has_own_image_encoder(config)
    feature_dim = config.model.image_encoder.feature_dim() if has_features else None
    return build_meta_model(
        config.model,
        config.tuner,
        max_source_length=config.data.max_source_length,
        feature_dim=feature_dim,
        vocab_size=vocab_size,
        tasks=config.task_names if config.is_mix else (),
    )


def count_budget(config: TrainConfig, *, vocab_size: int | None = None) -> ParameterBudget:
    """Counts trainable and all parameters on `meta_model`.

    Raises:
        ConfigError: As `meta_model`.
    """
    return meta_model(config, vocab_size=vocab_size).parameter_budget()


def count_as_table_3(config: TrainConfig) -> ParameterBudget | None:
    """Counts as Table 3 of the paper does: with Sung et al.'s visual embedding and their vocabulary.

    Returns:
        None where the run is none of the table's: another backbone or projection, or a task without images.

    Raises:
        ConfigError: As `count_budget`.
    """
    model = config.model
    is_theirs = PurePath(model.backbone).name == "t5-base" and model.visual_projection == "vl-t5"
    if not (is_theirs and config.uses_images):
        return None
    return count_budget(config, vocab_size=TABLE_3_VOCABULARY)
