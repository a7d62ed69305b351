"""What makes one family of vision-language models another than the next. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from dept_vl.errors import ConfigError
from dept_vl.models.language.decoder_family import DecoderFamily
from dept_vl.models.language.family import Positions, read_sizes
from dept_vl.models.language.llama import LLAMA
from dept_vl.tuners.places.backbone_shape import BackboneShape
from dept_vl.tuners.places.sites import Part, Site

if TYPE_CHECKING:
    from dept_vl.data.image_template import Template
    from dept_vl.models.language.vision_language import VisionLanguageBackbone


_LINEAR = "linear_attention"


@dataclass(frozen=True)
class VisionLanguageFamily(DecoderFamily):
    """A decoder-only language model with an image encoder of its own, one class of transformers.

    Attributes:
        connector: The modules, and single parameters, that make an image's tokens of what its image encoder gives.
        is_connector_last: Whether they are one module, whose result the tokens are: what goes into it can be stored.
        text_types: ``model_type`` of the language models that may be in it, each with what in it differs from `parts`;
            empty where the family has one of its own.
        linear_parts: The parts of a block whose attention is linear, which has no queries, keys and values of its own
            (``layer_types``); None where there are no such blocks.
        image_dim: The dimension of what the processor makes along which images are put together.
        has_grid_positions: Whether a place in the text has three positions (time, row, column: M-RoPE).
        token_types: Which places ``token_type_ids`` marks for its masks: images see themselves whole, or all but the
            target see each other. None for plain causal masks.
        has_one_pass_labels: Whether labels can be scored in one pass with a mask of a tree; else label by label.
        own_template: The layout of a family without chat template.
        extra: The extra that its processor needs.
    """

    connector: tuple[str, ...] = ("model.multi_modal_projector",)
    is_connector_last: bool = False
    text_types: Mapping[str, Mapping[Part, str]] = field(default_factory=dict)
    linear_parts: tuple[Part, ...] | None = None
    image_dim: int = 0
    has_grid_positions: bool = False
    token_types: Literal["image", "target"] | None = None
    has_one_pass_labels: bool = True
    own_template: Template | None = None
    extra: str | None = None

    reads_images: ClassVar[bool] = True

    @cached_property
    def backbone_class(self) -> type[VisionLanguageBackbone]:
        """See `Family.backbone_class`."""
        from dept_vl.models.language.causal import causal_class
        from dept_vl.models.language.vision_language import VisionLanguageBackbone

        return causal_class(self, VisionLanguageBackbone)

    def check_language_model(self, model_type: str, name: str) -> None:
        """Refuses a language model in it that is not known.

        Args:
            model_type: As its part of ``config.json`` has it.
            name: The backbone's, for the message.

        Raises:
            ConfigError: It is of a type whose modules lie elsewhere.
        """
        if self.text_types and model_type not in self.text_types:
            raise ConfigError(
                f"model.backbone: the language model in {name!r} is of type {model_type!r}, expected one of "
                f"{', '.join(self.text_types)}"
            )

    def shape(self, stored: Mapping[str, Any]) -> BackboneShape | None:
        """See `Family.shape`; that of the language model, where its settings say it."""
        settings = _text_settings(stored)
        sizes = read_sizes(settings, self.width_field, self.depth_field)
        layer_types = settings.get("layer_types")
        if sizes is None or (self.linear_parts is not None and not isinstance(layer_types, list)):
            return None
        width, depth = sizes
        kinds = layer_types if isinstance(layer_types, list) else [""] * depth
        blocks = (
            Site("decoder", number, part)
            for number, kind in enumerate(kinds[:depth])
            for part in self.parts_of(str(settings.get("model_type")), str(kind))
        )
        return BackboneShape(width, (*blocks, Site("decoder", None, "norm"), Site("decoder", None, "lm_head")))

    def parts_of(self, text_type: str, layer_type: str) -> Mapping[Part, str | tuple[str, int, int]]:
        """Returns where the parts of a block lie.

        Args:
            text_type: ``model_type`` of the language model.
            layer_type: The block's among ``layer_types``; anything where there are none.
        """
        parts = {**self.parts, **self.text_types.get(text_type, {})}
        if self.linear_parts is None or layer_type != _LINEAR:
            return parts
        return {part: where for part, where in parts.items() if part in self.linear_parts}

    def max_positions(self, stored: Mapping[str, Any]) -> Positions | None:
        """See `Family.max_positions`."""
        return super().max_positions(_text_settings(stored))


def family_on_llama(model_class: str, text: str = "model.language_model", **fields: Any) -> VisionLanguageFamily:
    """Returns a family whose language model has the parts and the plain attention of Llama.

    Args:
        model_class: Of transformers.
        text: Where its language model lies in it.
        fields: What else it has, or has otherwise, as `VisionLanguageFamily`.
    """
    own = {
        "blocks": f"{text}.layers",
        "norm": f"{text}.norm",
        "parts": LLAMA.parts,
        "attention": LLAMA.attention,
        "norm_epsilon": LLAMA.norm_epsilon,
        "dropout_fields": LLAMA.dropout_fields,
        "word_tables": (f"{text}.embed_tokens.weight",),
        "has_plain_attention": True,
    }
    return VisionLanguageFamily(model_class=model_class, **{**own, **fields})


def _text_settings(stored: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns what a ``config.json`` says of the language model; older ones of Qwen2.5-VL say it at the top."""
    settings = stored.get("text_config", stored)
    return settings if isinstance(settings, Mapping) else {}
