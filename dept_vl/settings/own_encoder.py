"""Whether a run's images are encoded by its backbone itself. No torch."""

from __future__ import annotations

from dept_vl.models.language.families import fetched_family
from dept_vl.settings.schema import TrainConfig


def has_own_image_encoder(config: TrainConfig) -> bool:
    """Returns whether a run's backbone is a vision-language model, which reads images without an encoder beside it.

    Raises:
        ConfigError: As `fetched_family`.
    """
    return fetched_family(config.model.backbone, config.model.revision)[0].reads_images
