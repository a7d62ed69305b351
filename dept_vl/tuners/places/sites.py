"""Places in a backbone where a method can act, named by their role and never by a module's name. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

ProjectionPart = Literal[
    "self_attn.q", "self_attn.k", "self_attn.v", "self_attn.o",
    "cross_attn.q", "cross_attn.k", "cross_attn.v", "cross_attn.o",
]  # fmt: skip
FeedForwardPart = Literal["ff.in", "ff.gate", "ff.out"]
LinearPart = Literal[ProjectionPart, FeedForwardPart]
LinearChoice = Literal["attn.q", "attn.k", "attn.v", "attn.o", LinearPart]
"""A linear map as settings name it; ``attn.q`` is that of every attention, self and cross."""
NormPart = Literal["self_attn.norm", "cross_attn.norm", "ff.norm", "norm"]
AttentionPart = Literal["self_attn", "cross_attn"]
Part = Literal[LinearPart, NormPart, AttentionPart, "ff", "lm_head"]
"""What a place is in its layer.

``self_attn`` and ``cross_attn``: an attention itself, where keys and values can be added. With a dot behind them: its
linear maps and the norm before it. ``ff.in`` and ``ff.out``: the
feed-forward's two linear maps; ``ff.gate``: the one that goes through the activation where a third is its factor (T5
v1.1, Llama). ``ff``: the feed-forward with its norm, dropout and residual sum, hidden states to hidden states, where a
module is that (T5). ``norm``: the stack's last. ``lm_head``: hidden states to logits. The output of ``self_attn.o``,
``cross_attn.o`` and ``ff.out`` is that of the sublayer, before dropout and the residual sum.
"""

StackName = Literal["encoder", "decoder"]
"""A stack of layers; a decoder-only model has a decoder alone."""

LINEAR_PARTS: tuple[str, ...] = get_args(LinearPart)
NORM_PARTS: tuple[str, ...] = get_args(NormPart)


@dataclass(frozen=True)
class Site:
    """One place in a backbone.

    Attributes:
        stack: The encoder, or the decoder; the one stack of a decoder-only model is its decoder.
        layer: From 0; None for what the stack as a whole has.
        part: What it is.
    """

    stack: StackName
    layer: int | None
    part: Part

    def __str__(self) -> str:
        """Returns ``decoder.3.cross_attn.q``."""
        return ".".join(str(piece) for piece in (self.stack, self.layer, self.part) if piece is not None)

    @property
    def key(self) -> str:
        """Its name as a module or tensor can have it, ``decoder_3_cross_attn_q``."""
        return str(self).replace(".", "_")


@dataclass(frozen=True)
class SiteShape:
    """How wide a place is.

    Attributes:
        inputs: Width of what goes in.
        outputs: Width of what comes out.
        bias: The backbone's parameter that is added there, by its name; None where it adds none.
        weight: The backbone's parameter that is the matrix, or the norm's scale, by its name; None for a place that is
            more than one map.
    """

    inputs: int
    outputs: int
    bias: str | None = None
    weight: str | None = None


@dataclass(frozen=True)
class AttentionShape:
    """The keys and values of an attention.

    Attributes:
        heads: Of keys and values; queries may have a multiple of them.
        head_width: Of each.
    """

    heads: int
    head_width: int

    @property
    def width(self) -> int:
        """Of all heads together: what its k and v put out."""
        return self.heads * self.head_width
