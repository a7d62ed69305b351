"""What an attention reads beside the text's own keys and values: a method's (prefix tuning), or a shared prompt's.

transformers lets an attention's core, softmax(q k + bias) v, be one's own function (``AttentionInterface``). For as
long as a ``with`` block lasts it is the one here, on every family alike: in training, scoring and generation, whose
cache holds the text's keys alone. Extra keys get no position here: no position bias (T5), no rotation (Llama) and no
norm (Qwen3); those of a prompt that was read before have theirs already.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask

from dept_vl.tuners.places.extra_keys import ExtraKeys
from dept_vl.tuners.places.sites import AttentionShape

_NAME = "dept_vl_extra_keys"


@dataclass(frozen=True)
class PackedSegment:
    """A part of a packed sequence: sequences that read those they stand behind, and themselves.

    Attributes:
        num_sequences: One after the other, all of one length.
        length: Their tokens.
        bias: (sequences or 1, 1, length, before + length), added to the scores of what stands before and of their own.
        parents: (sequences,), which sequence of the segment before each stands behind; None: behind the only one, or
            each behind its own.
    """

    num_sequences: int
    length: int
    bias: Tensor
    parents: Tensor | None


@dataclass(frozen=True)
class Packing:
    """Says that a batch is one sequence, [prompt; image 1; image 2; ...; row 1; row 2; ...].

    Attributes:
        segments: Prompt, images and rows, or any others; what stands before what.
    """

    segments: tuple[PackedSegment, ...]


@dataclass(frozen=True)
class Reading:
    """How an attention reads while a block lasts.

    Attributes:
        extra: What it reads beside the text's keys; None for nothing.
        packing: How rows are packed; None where rows are rows.
        made: Where the text's own keys and values are put down, (batch, key heads, source, head width); or None.
    """

    extra: ExtraKeys | None = None
    packing: Packing | None = None
    made: dict[nn.Module, tuple[Tensor, Tensor]] | None = None


_PLAIN = Reading()
_READ: dict[nn.Module, Reading] = {}
"""How attentions read now."""


@dataclass(frozen=True)
class Attention:
    """One attention of a model.

    Attributes:
        module: transformers' module of it.
        shape: Its keys' and values' heads.
    """

    module: nn.Module
    shape: AttentionShape


def reads_extra_keys(attention: nn.Module) -> bool:
    """Returns whether an attention reads extra keys now."""
    return attention in _READ


@contextmanager
def reading(each: Mapping[nn.Module, Reading]) -> Iterator[None]:
    """Lets attentions read in their way for the block; a block within another has its own.

    Args:
        each: By transformers' module of the attention.
    """
    configs: dict[int, Any] = {id(module.config): module.config for module in each}
    before = {key: config._attn_implementation for key, config in configs.items()}
    outer = {module: _READ[module] for module in each if module in _READ}
    _READ.update(each)
    try:
        for config in configs.values():
            config._attn_implementation = _NAME
        yield
    finally:
        for key, config in configs.items():
            config._attn_implementation = before[key]
        for module in each:
            del _READ[module]
        _READ.update(outer)


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    position_bias: Tensor | None = None,
    softcap: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Returns softmax(scaling q [k'; k] + bias) [v'; v] for the extra k' and v'; a function of ``AttentionInterface``.

    A sliding window need not be looked at: no input is longer (`DecoderFamily.max_positions`).

    Args:
        module: Whose attention it is.
        query: (batch, heads, target, head width).
        key: (batch, key heads, source, head width).
        value: As `key`.
        attention_mask: (batch or 1, 1, target or 1, source), added to the scores; None where every key is read. Not
            looked at in a packed sequence, whose segments have their own.
        scaling: Of the scores; None: 1 / sqrt(head width).
        dropout: Rate of dropout on the weights.
        position_bias: (batch or 1, heads, target, source), added to the scores, or None.
        softcap: What scores stay below, before a bias is added: cap * tanh(score / cap), as Gemma 2; None for no cap.

    Returns:
        (batch, target, heads, head width), and no weights.
    """
    biases = [one for one in (attention_mask, position_bias) if one is not None]
    bias = sum(biases[1:], biases[0]).to(query.dtype) if biases else None
    how = _READ.get(module, _PLAIN)
    if how.made is not None:
        how.made[module] = (key, value)
    before = [] if how.extra is None else [_by_head(how.extra, key)]
    if how.packing is not None:
        return _attend_packed(query, key, value, how.packing, before, scaling, dropout, softcap), None
    return _attend(query, key, value, bias, before, scaling, dropout, softcap), None


class _Before(NamedTuple):
    """Keys and values, (1 or rows, key heads, some, head width), and which are not padding, (1 or rows, some)."""

    keys: Tensor
    values: Tensor
    is_token: Tensor | None = None

    def behind(self, parents: Tensor | None) -> _Before:
        """Returns what sequences see of it that stand behind these of its own."""
        if parents is None or len(self.keys) == 1:
            return self
        is_token = None if self.is_token is None else self.is_token[parents]
        return _Before(self.keys[parents], self.values[parents], is_token)


def _attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor | None,
    before: Sequence[_Before],
    scaling: float | None,
    dropout: float,
    softcap: float | None,
) -> Tensor:
    """Attends to further keys and to the text's; those that `bias` is not wide enough for are open, but padding."""
    if before:
        batch = len(key)
        key = torch.cat([*(_for_rows(one.keys, batch) for one in before), key], dim=2)
        value = torch.cat([*(_for_rows(one.values, batch) for one in before), value], dim=2)
        bias = _widened(bias, before, query, key.shape[2])
    is_grouped = query.shape[1] != key.shape[1]
    if is_grouped and (softcap is not None or query.device.type != "cpu"):
        # A GPU's kernels take no mask with fewer key heads.
        key, value = (one.repeat_interleave(query.shape[1] // one.shape[1], dim=1) for one in (key, value))
        is_grouped = False
    if softcap is not None:
        scores = query @ key.transpose(2, 3) * (query.shape[-1] ** -0.5 if scaling is None else scaling)
        return _weigh(softcap * torch.tanh(scores / softcap), value, bias, dropout).transpose(1, 2).contiguous()
    read = nn.functional.scaled_dot_product_attention(
        query, key, value, bias, dropout, scale=scaling, enable_gqa=is_grouped
    )
    return read.transpose(1, 2).contiguous()


def _weigh(scores: Tensor, value: Tensor, bias: Tensor | None, dropout: float) -> Tensor:
    """Returns softmax(scores + bias) v, for scores that torch's fused attention has no way to compute."""
    biased = scores if bias is None else scores + bias
    weights = biased.softmax(dim=-1, dtype=torch.float32).to(value.dtype)
    return nn.functional.dropout(weights, dropout) @ value


def _widened(bias: Tensor | None, before: Sequence[_Before], query: Tensor, total: int) -> Tensor | None:
    """Returns a bias that is wide enough for further keys too, (batch or 1, 1, target or 1, total), or None."""
    if all(one.is_token is None for one in before):
        return None if bias is None else nn.functional.pad(bias, (total - bias.shape[3], 0))
    batch, widths = len(query), [one.keys.shape[2] for one in before]
    own = query.new_zeros(1, 1, 1, total - sum(widths)) if bias is None else bias
    pieces = [query.new_zeros(1, 1, 1, width) for width in widths]
    for number, one in enumerate(before):
        if one.is_token is not None:
            is_token = _for_rows(one.is_token[:, None, None], batch)
            pieces[number] = pieces[number].masked_fill(~is_token, torch.finfo(query.dtype).min)
    return torch.cat([piece.expand(batch, 1, own.shape[2], -1) for piece in (*pieces, own)], dim=3)


def _attend_packed(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    packing: Packing,
    before: Sequence[_Before],
    scaling: float | None,
    dropout: float,
    softcap: float | None,
) -> Tensor:
    """Attends within a packed sequence: every sequence to those it stands behind, and to itself.

    Args:
        query: (1, heads, all tokens, head width); keys and values alike.
        key: Of the same places.
        value: Of the same places.
        packing: What of the sequence is what.
        before: What all read beside.
        scaling: As `attend`.
        dropout: As `attend`.
        softcap: As `attend`.

    Returns:
        (1, all tokens, heads, head width).
    """
    start, read = 0, []
    above: list[_Before] = []
    for segment in packing.segments:
        stop = start + segment.num_sequences * segment.length
        queries, keys, values = (
            one[0, :, start:stop].unflatten(1, (segment.num_sequences, segment.length)).transpose(0, 1)
            for one in (query, key, value)
        )
        above = [one.behind(segment.parents) for one in above]
        bias = segment.bias.to(query.dtype)
        among = _attend(queries, keys, values, bias, [*before, *above], scaling, dropout, softcap)
        read.append(among.flatten(0, 1))
        above.append(_Before(keys, values))  # where it is padding, says the bias
        start = stop
    return torch.cat(read)[None]


def _by_head(extra: ExtraKeys, text: Tensor) -> _Before:
    """Returns extra keys and values in the shape and precision of (batch, key heads, source, head width)."""
    heads, width = text.shape[1], text.shape[3]
    keys, values = (
        own.to(text.dtype).unflatten(-1, (heads, width)).transpose(1, 2) for own in (extra.keys, extra.values)
    )
    return _Before(keys, values, extra.is_token).behind(extra.parents)


def _for_rows(own: Tensor, batch: int) -> Tensor:
    """Returns (1 or rows, ...) for a batch; in beam search it has several beams of each row, one after the other."""
    return own.expand(batch, -1, -1, -1) if len(own) == 1 else own.repeat_interleave(batch // len(own), 0)


AttentionInterface.register(_NAME, attend)
AttentionMaskInterface.register(_NAME, eager_mask)  # the whole mask: SDPA's own leaves out what a flag can say
