"""Whether a run's images are encoded by its backbone itself. No torch."""

from __future__ import annotations

from dept_vl.models.language.families import stored_family
from dept_vl.models.language.stored import fetch_config
from dept_vl.settings.schema import TrainConfig


def has_own_image_encoder(config: TrainConfig) -> bool:
    """Returns whether a run's backbone is a vision-language model, which reads images without an encoder beside it.

    Of a hub id that is not on this machine its ``config.json`` is fetched, where the hub may be asked.

    Raises:
        ConfigError: As `stored_family`.
    """
    name, revision = config.model.backbone, config.model.revision
    found = stored_family(name, revision)
    if found is None and fetch_config(name, revision):
        found = stored_family(name, revision)
    return found is not None and found[0].reads_images
