"""The trainable-parameter budget of a configuration, counted without any weights."""

from __future__ import annotations

from dept_vl.models.meta_model import build_meta_model
from dept_vl.models.parameter_budget import ParameterBudget
from dept_vl.settings.schema import TrainConfig


def count_budget(config: TrainConfig) -> ParameterBudget:
    """Counts trainable and frozen parameters on a model built on the meta device.

    Raises:
        ConfigError: The budget cannot be met, or the backbone's or the image encoder's shape is not known here.
    """
    feature_dim = config.model.image_encoder.feature_dim() if config.uses_images else None
    model = build_meta_model(
        config.model,
        config.tuner,
        max_source_length=config.data.max_source_length,
        feature_dim=feature_dim,
        tasks=config.task_names if config.is_mix else (),
    )
    return model.parameter_budget()
