"""What is known of a kind of backbone before one is loaded. No torch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dept_vl.tuners.backbone_shape import BackboneShape

if TYPE_CHECKING:
    from dept_vl.models.language.base import Backbone


class Family(ABC):
    """T5, GPT-2, Llama: what has one architecture, ``model_type`` of its ``config.json``."""

    @property
    @abstractmethod
    def backbone_class(self) -> type[Backbone[Any]]:
        """What a model of the family is loaded as; asking for it imports torch."""

    @abstractmethod
    def shape(self, stored: Mapping[str, Any]) -> BackboneShape | None:
        """Returns the shape of a model; None where its settings do not say it, and transformers' defaults decide.

        Args:
            stored: The content of its ``config.json``.
        """


def read_sizes(stored: Mapping[str, Any], *names: str) -> tuple[int, ...] | None:
    """Returns some settings of a ``config.json``; None where one of them is not there, or is no size."""
    sizes = tuple(size for name in names if type(size := stored.get(name)) is int and size > 0)
    return sizes if len(sizes) == len(names) else None
