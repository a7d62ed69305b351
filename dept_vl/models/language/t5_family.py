"""T5 before one is loaded: the parts of its blocks and where they lie. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from dept_vl.models.language.family import Family, read_sizes
from dept_vl.tuners.places.backbone_shape import BackboneShape
from dept_vl.tuners.places.sites import AttentionPart, Part, Site, StackName

if TYPE_CHECKING:
    from dept_vl.models.language.t5 import T5Backbone

NARROW_WIDTHS = ("d_model", "d_kv", "d_ff")
"""The widths that blocks beside it have a fraction of; the number of heads stays."""

ATTENTIONS: Mapping[StackName, Mapping[AttentionPart, str]] = {
    "encoder": {"self_attn": "layer.0.SelfAttention"},
    "decoder": {"self_attn": "layer.0.SelfAttention", "cross_attn": "layer.1.EncDecAttention"},
}
"""The attentions of a block, and where they lie in it."""


def block_places(stack: StackName, *, is_gated: bool) -> dict[Part, str]:
    """Returns where the parts of a block lie in it, in the order they compute; ``ff``, the last layer, is not there.

    Args:
        stack: Whose block.
        is_gated: Whether the feed-forward has a third map (T5 v1.1, Flan-T5).
    """
    places: dict[str, str] = {}
    for name, attention in ATTENTIONS[stack].items():
        places[f"{name}.norm"] = f"{attention.rpartition('.')[0]}.layer_norm"
        places |= {f"{name}.{letter}": f"{attention}.{letter}" for letter in "qkvo"}
    last = f"layer.{len(ATTENTIONS[stack])}"
    inner = {"ff.gate": "wi_0", "ff.in": "wi_1"} if is_gated else {"ff.in": "wi"}
    places["ff.norm"] = f"{last}.layer_norm"
    places |= {part: f"{last}.DenseReluDense.{name}" for part, name in {**inner, "ff.out": "wo"}.items()}
    return cast(dict[Part, str], places)


class T5Family(Family):
    """T5, T5 v1.1 and Flan-T5."""

    has_position_bias = True

    @property
    def backbone_class(self) -> type[T5Backbone]:
        """See `Family.backbone_class`."""
        from dept_vl.models.language.t5 import T5Backbone

        return T5Backbone

    def shape(self, stored: Mapping[str, Any]) -> BackboneShape | None:
        """See `Family.shape`; the decoder is as deep as the encoder, and no third map there, where nothing is said."""
        depth = stored.get("num_decoder_layers")
        stored = {**stored, "num_decoder_layers": stored.get("num_layers") if depth is None else depth}
        sizes = read_sizes(stored, *NARROW_WIDTHS, "num_layers", "num_decoder_layers")
        if sizes is None:
            return None
        *widths, encoder, decoder = sizes
        is_gated = str(stored.get("feed_forward_proj", "relu")).startswith("gated-")
        sites: list[Site] = []
        depths: dict[StackName, int] = {"encoder": encoder, "decoder": decoder}
        for stack, depth in depths.items():
            parts: tuple[Part, ...] = (*block_places(stack, is_gated=is_gated), "ff")
            sites += [Site(stack, number, part) for number in range(depth) for part in parts]
            sites.append(Site(stack, None, "norm"))
        sites.append(Site("decoder", None, "lm_head"))
        return BackboneShape(widths[0], tuple(sites), dict(zip(NARROW_WIDTHS, widths, strict=True)))


T5 = T5Family()
