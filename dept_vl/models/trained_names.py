"""Which of a backbone's own tensors may be trained: by a method, and as what connects images to a language model."""

from __future__ import annotations

from typing import Any

from dept_vl.models.language.base import Backbone
from dept_vl.models.language.vision_language import VisionLanguageBackbone


def method_names(backbone: Backbone[Any]) -> list[str]:
    """Returns the names of the parameters that a method may ask for: those of the language model.

    So features of images stay what they are whatever the method trains.
    """
    names = [name for name, _ in backbone.model.named_parameters()]
    if not isinstance(backbone, VisionLanguageBackbone):
        return names
    image_side = backbone.image_parameters()
    return [name for name in names if name not in image_side]


def connector_names(backbone: Backbone[Any]) -> set[str]:
    """Returns the names of the connector's parameters; none of a family without."""
    if not isinstance(backbone, VisionLanguageBackbone):
        return set()
    parts = backbone.layout.connector
    modules = tuple(f"{part}." for part in parts)
    return {name for name in backbone.image_parameters() if name in parts or name.startswith(modules)}
