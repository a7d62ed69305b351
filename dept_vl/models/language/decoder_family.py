"""What makes one family of decoder-only models another than the next. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from dept_vl.errors import ConfigError
from dept_vl.models.language.family import Family, Positions, read_sizes
from dept_vl.tuners.places.backbone_shape import BackboneShape
from dept_vl.tuners.places.sites import Part, Site

if TYPE_CHECKING:
    from dept_vl.models.language.causal import CausalBackbone


@dataclass(frozen=True)
class DecoderFamily(Family):
    """Where a family's modules lie, and what its settings are called.

    Attributes:
        model_class: Its class, a name in transformers.
        blocks: The list of blocks, from the model.
        norm: The norm after the last block, from the model.
        parts: What each part is, from a block, in the order they compute: a module's place, or a place and which of how
            many equal parts of its output, from 0.
        attention: The attention, from a block.
        norm_epsilon: The field of the configuration that holds the epsilon of the norms.
        dropout_fields: Its fields that are rates of dropout.
        width_field: The setting of a ``config.json`` that is the width.
        depth_field: The one that is the number of blocks.
        positions_field: The one that is how many positions there are.
        word_tables: The parameters that are its word embeddings, all of them one tensor; weights may hold any of them.
        window: Which blocks read no further back than ``sliding_window`` says, where that is set: those that
            ``layer_types`` calls ``sliding_attention``, or every one; None for a family without.
        score_cap: The setting that is the largest attention score, towards which tanh bends them; None for a family
            without. torch's fused attention cannot do it, and transformers' written-out one is taken.
        logit_cap: The setting that is the largest logit, in the same way.
        has_plain_attention: Whether an attention is softmax(q k) v over everything before a token and no more but what
            `window` and `score_cap` say: no sinks. Of one with images, an image may also see itself. What rows begin
            with is then read once for all that have it; else by each.
    """

    model_class: str
    blocks: str
    norm: str
    parts: Mapping[Part, str | tuple[str, int, int]]
    attention: str
    norm_epsilon: str
    dropout_fields: tuple[str, ...]
    width_field: str = "hidden_size"
    depth_field: str = "num_hidden_layers"
    positions_field: str = "max_position_embeddings"
    word_tables: tuple[str, ...] = ("model.embed_tokens.weight",)
    window: Literal["by layer", "every block"] | None = None
    score_cap: str | None = None
    logit_cap: str | None = None
    has_plain_attention: bool = False

    @cached_property
    def backbone_class(self) -> type[CausalBackbone]:
        """See `Family.backbone_class`."""
        from dept_vl.models.language.causal import CausalBackbone, causal_class

        return causal_class(self, CausalBackbone)

    def shape(self, stored: Mapping[str, Any]) -> BackboneShape | None:
        """See `Family.shape`."""
        sizes = read_sizes(stored, self.width_field, self.depth_field)
        if sizes is None:
            return None
        width, depth = sizes
        blocks = (Site("decoder", number, part) for number in range(depth) for part in self.parts)
        return BackboneShape(width, (*blocks, Site("decoder", None, "norm"), Site("decoder", None, "lm_head")))

    def max_positions(self, stored: Mapping[str, Any]) -> Positions | None:
        """See `Family.max_positions`.

        Within a sliding window every block reads all that is before it; no input is longer.
        """
        limits = {self.positions_field: ""}
        if self._slides(stored):
            limits["sliding_window"] = "; longer inputs are not supported"
        found = [(sizes[0], name + why) for name, why in limits.items() if (sizes := read_sizes(stored, name))]
        return Positions(*min(found)) if found else None

    def _slides(self, stored: Mapping[str, Any]) -> bool:
        """Returns whether there is a block with a sliding window, as far as its settings say."""
        if self.window == "by layer":
            kinds = stored.get("layer_types")
            return isinstance(kinds, list) and "sliding_attention" in kinds
        return self.window == "every block"

    def check(self, stored: Mapping[str, Any], name: str) -> None:
        """See `Family.check`."""
        if stored.get("use_bidirectional_attention"):
            raise ConfigError(
                f"model.backbone: {name!r} reads a text in both directions (use_bidirectional_attention in its "
                "config.json), expected a model that writes text: one that reads what is before a token alone"
            )
