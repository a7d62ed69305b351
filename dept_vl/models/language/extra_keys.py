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
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask

from dept_vl.tuners.places.extra_keys import ExtraKeys
from dept_vl.tuners.places.sites import AttentionShape

_NAME = "dept_vl_extra_keys"


@dataclass(frozen=True)
class Packing:
    """Says that a batch is one sequence, [prompt; row 1; row 2; ...], whose rows read the prompt and themselves.

    Attributes:
        num_shared: Tokens of the prompt.
        num_rows: Rows behind it, all of one length.
    """

    num_shared: int
    num_rows: int


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
        attention_mask: (batch or 1, 1, target or 1, source), added to the scores; None where every key is read. Of a
            packed sequence, of its rows: (rows or 1, 1, row, prompt + row).
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
        assert bias is not None  # who packs rows gives one
        assert softcap is None  # a cap is no plain attention
        return _attend_packed(query, key, value, bias, how.packing, before, scaling, dropout), None
    return _attend(query, key, value, bias, before, scaling, dropout, softcap), None


_Pair = tuple[Tensor, Tensor]
"""Keys and values, (1 or rows, key heads, some, head width)."""


def _attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor | None,
    before: Sequence[_Pair],
    scaling: float | None,
    dropout: float,
    softcap: float | None = None,
) -> Tensor:
    """Attends to further keys and to the text's; those that `bias` is not wide enough for are open."""
    if before:
        batch = len(key)
        key, value = (
            torch.cat([*(_for_rows(pair[number], batch) for pair in before), text], dim=2)
            for number, text in enumerate((key, value))
        )
        bias = None if bias is None else nn.functional.pad(bias, (key.shape[2] - bias.shape[3], 0))
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


def _attend_packed(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor,
    packing: Packing,
    before: Sequence[_Pair],
    scaling: float | None,
    dropout: float,
) -> Tensor:
    """Attends within a packed sequence: the prompt to itself, and every row to the prompt and itself.

    Args:
        query: (1, heads, prompt + rows x row, head width); keys and values alike.
        key: Of the same places.
        value: Of the same places.
        bias: (rows or 1, 1, row, prompt + row), added to the scores of the rows.
        packing: What of the sequence is what.
        before: What all read beside.
        scaling: As `attend`.
        dropout: As `attend`.

    Returns:
        (1, prompt + rows x row, heads, head width).
    """
    size, rows = packing.num_shared, packing.num_rows
    ours = [one[:, :, :size] for one in (query, key, value)]
    theirs = [one[0, :, size:].unflatten(1, (rows, -1)).transpose(0, 1) for one in (query, key, value)]
    ahead = bias.new_full((size, size), torch.finfo(bias.dtype).min).triu(1)[None, None]
    prompt = _attend(ours[0], ours[1], ours[2], ahead, before, scaling, dropout)
    among = _attend(theirs[0], theirs[1], theirs[2], bias, [*before, (ours[1], ours[2])], scaling, dropout)
    return torch.cat([prompt, among.flatten(0, 1)[None]], dim=1)


def _by_head(extra: ExtraKeys, text: Tensor) -> _Pair:
    """Returns extra keys and values in the shape and precision of (batch, key heads, source, head width)."""
    heads, width = text.shape[1], text.shape[3]
    keys, values = (
        own.to(text.dtype).unflatten(-1, (heads, width)).transpose(1, 2) for own in (extra.keys, extra.values)
    )
    return keys, values


def _for_rows(own: Tensor, batch: int) -> Tensor:
    """Returns (1 or rows, ...) for a batch; in beam search it has several beams of each row, one after the other."""
    return own.expand(batch, -1, -1, -1) if len(own) == 1 else own.repeat_interleave(batch // len(own), 0)


AttentionInterface.register(_NAME, attend)
AttentionMaskInterface.register(_NAME, eager_mask)  # the whole mask: SDPA's own leaves out what a flag can say
