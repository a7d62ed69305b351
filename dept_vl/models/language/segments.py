"""What rows of a batch begin with, cut off as segments that are read once: [prompt] or [template; prompt] -> [images].

Sequences of one segment have one length, padded, and each stands behind one of the segment before it. With gradient
all segments and the rows go through a model as one packed sequence; without, one segment after the other, each beside
the keys and values of those before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dept_vl.models.language.extra_keys import PackedSegment, Packing
from dept_vl.models.language.joint import JointInput
from dept_vl.models.language.shared_prompt import KeptPromptKeys


@dataclass(frozen=True)
class Deepstack:
    """What is added to places of images behind the first blocks.

    Attributes:
        is_image: (sequences, length) bool, the places.
        added: (blocks, places, d_model), row by row.
    """

    is_image: Tensor
    added: Tensor

    def arguments(self) -> dict[str, Any]:
        """Returns it as transformers' language model takes it."""
        return {"visual_pos_masks": self.is_image, "deepstack_visual_embeds": list(self.added)}


@dataclass(frozen=True)
class Segment:
    """Sequences of one length.

    Attributes:
        embeds: (sequences, length, d_model).
        positions: (sequences, length), or (3, sequences, length) where the family counts time, rows and columns.
        bias: (sequences or 1, 1, length, length), added to the scores of a sequence's tokens among themselves.
        is_token: (sequences, length) bool, False for padding; None where nothing is.
        parents: (sequences,), which sequence of the segment before each stands behind; None: behind the only one, or
            each behind its own.
        deepstack: What Qwen3-VL adds behind its first blocks; None for nothing.
    """

    embeds: Tensor
    positions: Tensor
    bias: Tensor
    is_token: Tensor | None = None
    parents: Tensor | None = None
    deepstack: Deepstack | None = None

    @property
    def length(self) -> int:
        """Tokens of a sequence, padding counted."""
        return self.embeds.shape[1]


@dataclass(frozen=True)
class CausalInput(JointInput):
    """What a decoder-only model reads before the target: padding first, so that every source ends at the same index.

    Attributes:
        position_ids: (batch, total) place of each token in its own unpadded sequence; padding has the first, and is not
            read.
        before: What stands before the rows and is in none of the other tensors, read once for all that have it.
        parents: (batch,), which sequence of the last of those each row stands behind; None as in `Segment`.
        kept: Where the keys and values of the first of those are kept; None where they may change.
    """

    position_ids: Tensor
    before: tuple[Segment, ...] = ()
    parents: Tensor | None = None
    kept: KeptPromptKeys | None = None

    @property
    def num_shared(self) -> int:
        """Tokens that stand before a row, padding counted."""
        return sum(segment.length for segment in self.before)


def causal_bias(length: int, like: Tensor, dtype: torch.dtype) -> Tensor:
    """Returns (1, 1, length, length) that lets a token see those before it and itself, on the device of `like`."""
    closed = torch.full((length, length), torch.finfo(dtype).min, dtype=dtype, device=like.device)
    return closed.triu(1)[None, None]


def pack(segments: Sequence[Segment]) -> tuple[Segment, Packing]:
    """Returns segments as one sequence, and how attentions read it.

    Its `Segment.bias` is empty: transformers then makes no mask of its own. At most one of the segments has a
    `Segment.deepstack`.
    """
    packed: list[PackedSegment] = []
    before: list[Tensor] = []  # (sequences or 1, 1, 1, length) of each segment before
    for segment in segments:
        if segment.parents is not None:
            before = [one if len(one) == 1 else one[segment.parents] for one in before]
        count = max(map(len, [segment.bias, *before]))
        whole = [one.expand(count, 1, segment.bias.shape[2], -1) for one in (*before, segment.bias)]
        packed.append(PackedSegment(len(segment.embeds), segment.length, torch.cat(whole, dim=3), segment.parents))
        padding = segment.bias.new_zeros(1, 1, 1, segment.length)
        if segment.is_token is not None:
            padding = padding.masked_fill(~segment.is_token[:, None, None], torch.finfo(padding.dtype).min)
        before.append(padding)
    embeds = torch.cat([segment.embeds.flatten(0, 1) for segment in segments])[None]
    positions = torch.cat([segment.positions.flatten(-2) for segment in segments], dim=-1)[..., None, :]
    deepstack = _packed_deepstack(segments)
    return Segment(embeds, positions, embeds.new_zeros(1, 1, 1, 1), deepstack=deepstack), Packing(tuple(packed))


def _packed_deepstack(segments: Sequence[Segment]) -> Deepstack | None:
    found = [segment.deepstack for segment in segments if segment.deepstack is not None]
    if not found:
        return None
    (own,) = found
    places = [
        own.is_image.flatten() if segment.deepstack is own else own.is_image.new_zeros(segment.embeds.shape[:2].numel())
        for segment in segments
    ]
    return Deepstack(torch.cat(places)[None], own.added)
