"""What T5's encoder reads, and the cache that its decoder's keys and values are kept in."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, EncoderDecoderCache, T5ForConditionalGeneration

from dept_vl.models.language.joint import JointInput

CACHE_ARGUMENT = (
    "cache" if "cache" in inspect.signature(T5ForConditionalGeneration.forward).parameters else "past_key_values"
)
"""What T5's modules and ``generate`` call the cache: transformers 5.24 renamed it and warns about the old name."""


@dataclass(frozen=True)
class EncoderInput(JointInput):
    """What an encoder reads.

    Attributes:
        position_bias: (1 or batch, heads, total, total), added to every block's attention scores, padding folded in.
        encoded: What the encoder made of it without gradients: one tensor, or none yet.
        beside: What a side network's encoder reads, the visual tokens in it; the frozen one then reads none.
        outputs: What the frozen blocks put out, by number, of those that a side network reads.
    """

    position_bias: Tensor
    encoded: list[Tensor] = field(default_factory=list, compare=False, repr=False)
    beside: EncoderInput | None = field(default=None, compare=False, repr=False)
    outputs: dict[int, Tensor] = field(default_factory=dict, compare=False, repr=False)

    def decoder_mask(self) -> Tensor | None:
        """Returns the decoder's mask over the encoder's states, (batch, 1, 1, total) additive; None without padding.

        T5 takes a 4-d additive mask as it is; given a 2-d one it would first ask whether there is padding, which
        makes the CPU wait for the GPU at every step.
        """
        if not self.has_padding:
            return None
        is_padding = self.attention_mask[:, None, None, :] == 0
        mask = torch.zeros(is_padding.shape, dtype=self.position_bias.dtype, device=is_padding.device)
        return mask.masked_fill_(is_padding, torch.finfo(mask.dtype).min)


class _BeamCache(EncoderDecoderCache):
    """Leaves the cross-attention's part as it is when beams change places.

    Beams change places within one example, and its beams all have the same keys and values there; moving those, as
    transformers does at every step, copies many times what the step itself writes.
    """

    def reorder_cache(self, beam_idx: Any) -> None:
        """Moves the self-attention's keys and values."""
        self.self_attention_cache.reorder_cache(beam_idx)


def new_cache() -> EncoderDecoderCache:
    """Returns an empty cache for any number of blocks."""
    return EncoderDecoderCache(DynamicCache(), DynamicCache())


def beam_cache(read: Iterable[tuple[Any, Tensor]], num_beams: int) -> EncoderDecoderCache:
    """Returns a cache that holds the cross-attention's keys and values of every beam.

    They are computed once an example; transformers would compute them once a beam.

    Args:
        read: Each cross-attention, in the order of their ``layer_idx``, and the states that it reads, (batch, total,
            width).
        num_beams: Beams an example.
    """
    cross = DynamicCache()
    for attention, states in read:
        keys, values = (
            projection(states).unflatten(-1, (-1, attention.key_value_proj_dim)).transpose(1, 2)
            for projection in (attention.k, attention.v)
        )  # (batch, heads, total, d_kv)
        keys, values = (one.repeat_interleave(num_beams, dim=0) for one in (keys, values))
        cross.update(keys, values, attention.layer_idx)
    return _BeamCache(DynamicCache(), cross)
