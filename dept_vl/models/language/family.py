"""What is known of a kind of backbone before one is loaded. No torch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from dept_vl.errors import ConfigError, DataError
from dept_vl.models.config import ModelConfig
from dept_vl.tuners.places.backbone_shape import BackboneShape

if TYPE_CHECKING:
    from dept_vl.models.language.base import Backbone


_BESIDE = ("image_encoder", "visual_projection", "visual_projection_std", "frozen_projection", "visual_position_bias")
"""Settings of an image encoder beside the backbone, and of what joins the two."""


@dataclass(frozen=True)
class Positions:
    """How many tokens a model can read, source and target together.

    Attributes:
        count: Tokens.
        setting: What says so in its ``config.json``, for people.
    """

    count: int
    setting: str

    def check(self, family: str, source: int, target: int, holds: str, advice: str = "") -> None:
        """Refuses an input that is longer.

        Args:
            family: ``model_type``, for people.
            source: Its tokens.
            target: Tokens after those.
            holds: What the source is of, as the message has it.
            advice: What else than shorter texts would help, with what joins it to that.

        Raises:
            DataError: It is longer.
        """
        if source + target > self.count:
            raise DataError(
                f"a source of {source} tokens{holds} and {target} tokens of the target after it need {source + target} "
                f"positions, and the backbone has {self.count} ({family}'s {self.setting}); {advice}shorten "
                "data.max_source_length, data.max_target_length or the prompt"
            )


class Family(ABC):
    """T5, GPT-2, Llama, Gemma 2: what has one architecture, ``model_type`` of its ``config.json``.

    Attributes:
        has_position_bias: Whether it has T5's relative position bias, for which there is a choice of rules.
        reads_images: Whether it has an image encoder of its own.
    """

    has_position_bias: ClassVar[bool] = False
    reads_images: ClassVar[bool] = False

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

    def max_positions(self, stored: Mapping[str, Any]) -> Positions | None:
        """Returns how many tokens a model can read; None for no limit, or where its settings do not say it.

        Args:
            stored: As `shape`.
        """
        return None

    def check(self, stored: Mapping[str, Any], name: str) -> None:  # noqa: B027
        """Refuses a model that is of the family's type and does not work as the family does.

        Args:
            stored: As `shape`.
            name: The backbone's, for the message.

        Raises:
            ConfigError: It is such a model.
        """


def no_position_bias(rule: str) -> ConfigError:
    """Returns the error that says that a family has no use for ``model.visual_position_bias``."""
    return ConfigError(
        f"model.visual_position_bias: {rule!r} is a rule for T5's relative position bias, and the backbone is "
        "decoder-only; leave it out (null)"
    )


def check_image_settings(family: Family, model: ModelConfig) -> None:
    """Refuses settings of an image encoder beside a backbone that has its own, and of its template for one without.

    Raises:
        ConfigError: A setting has no place in the family; the message names it.
    """
    if not family.reads_images:
        if model.system_prompt is not None:
            raise ConfigError(
                "model.system_prompt: stands in the chat template of a vision-language model's processor, and "
                f"{model.backbone!r} is none; leave it out (null)"
            )
        if model.train_connector:
            raise ConfigError(
                "model.train_connector: is for a vision-language model, whose image encoder has a connector, and "
                f"{model.backbone!r} is none; leave it out: a visual projection beside it is trained"
            )
        return
    default = ModelConfig()
    for name in _BESIDE:
        if getattr(model, name) != getattr(default, name):
            raise ConfigError(
                f"model.{name}: {model.backbone!r} is a vision-language model, which has an image encoder and a "
                f"projection of its own; leave model.{name} out"
            )


def check_positions(positions: Positions | None, family: str, num_virtual_tokens: int, max_source_length: int) -> None:
    """Refuses a prompt and text length that leave no position for a target, before any training.

    Args:
        positions: That a backbone has; None for no limit.
        family: Its ``model_type``.
        num_virtual_tokens: Of the prompt.
        max_source_length: Of the text, tokens.

    Raises:
        ConfigError: They are longer.
    """
    if positions is not None and num_virtual_tokens + max_source_length >= positions.count:
        raise ConfigError(
            f"data.max_source_length: a prompt of {num_virtual_tokens} and a text of {max_source_length} tokens leave "
            f"no room for a target in the {positions.count} positions of this {family} backbone "
            f"({positions.setting}); shorten one of them"
        )


def read_sizes(stored: Mapping[str, Any], *names: str) -> tuple[int, ...] | None:
    """Returns some settings of a ``config.json``; None where one of them is not there, or is no size."""
    sizes = tuple(size for name in names if type(size := stored.get(name)) is int and size > 0)
    return sizes if len(sizes) == len(names) else None
