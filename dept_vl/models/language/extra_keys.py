"""Keys and values of a method's own, which an attention reads beside the text's (prefix tuning).

transformers lets an attention's core, softmax(q k + bias) v, be one's own function (``AttentionInterface``). For as
long as a ``with`` block lasts it is the one here, on every family alike: in training, scoring and generation, whose
cache holds the text's keys alone. Extra keys have no position: no position bias (T5), no rotation (Llama)
and no norm (Qwen3).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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
_READ: dict[nn.Module, ExtraKeys] = {}
"""What attentions read beside the text's keys now."""


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
def reading(extra: Mapping[nn.Module, ExtraKeys]) -> Iterator[None]:
    """Lets attentions read extra keys and values for the block.

    Args:
        extra: By transformers' module of the attention.
    """
    configs: dict[int, Any] = {id(module.config): module.config for module in extra}
    before = {key: config._attn_implementation for key, config in configs.items()}
    _READ.update(extra)
    try:
        for config in configs.values():
            config._attn_implementation = _NAME
        yield
    finally:
        for key, config in configs.items():
            config._attn_implementation = before[key]
        for module in extra:
            del _READ[module]


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
        attention_mask: (batch or 1, 1, target or 1, source), added to the scores; None where every key is read.
        scaling: Of the scores; None: 1 / sqrt(head width).
        dropout: Rate of dropout on the weights.
        position_bias: (batch or 1, heads, target, source), added to the scores, or None.
        softcap: What scores stay below, before a bias is added: cap * tanh(score / cap), as Gemma 2; None for no cap.

    Returns:
        (batch, target, heads, head width), and no weights.
    """
    biases = [one for one in (attention_mask, position_bias) if one is not None]
    bias = sum(biases[1:], biases[0]).to(query.dtype) if biases else None
    extra = _READ.get(module)
    if extra is not None:
        key, value = (_before(own, text) for own, text in ((extra.keys, key), (extra.values, value)))
        bias = None if bias is None else nn.functional.pad(bias, (key.shape[2] - bias.shape[3], 0))
    key, value = (one.repeat_interleave(query.shape[1] // one.shape[1], dim=1) for one in (key, value))
    if softcap is None:
        read = nn.functional.scaled_dot_product_attention(query, key, value, bias, dropout, scale=scaling)
    else:
        scores = query @ key.transpose(2, 3) * (query.shape[-1] ** -0.5 if scaling is None else scaling)
        read = _weigh(softcap * torch.tanh(scores / softcap), value, bias, dropout)
    return read.transpose(1, 2).contiguous(), None


def _weigh(scores: Tensor, value: Tensor, bias: Tensor | None, dropout: float) -> Tensor:
    """Returns softmax(scores + bias) v, for scores that torch's fused attention has no way to compute."""
    biased = scores if bias is None else scores + bias
    weights = biased.softmax(dim=-1, dtype=torch.float32).to(value.dtype)
    return nn.functional.dropout(weights, dropout) @ value


def _before(own: Tensor, text: Tensor) -> Tensor:
    """Puts (1 or rows, extra, key heads x head width) before (batch, key heads, source, head width).

    In beam search a batch has several beams of each row, one after the other.
    """
    batch, heads, _, width = text.shape
    split = (
        own.to(text.dtype).unflatten(-1, (heads, width)).transpose(1, 2)
    )  # (1 or rows, key heads, extra, head width)
    repeated = split.expand(batch, -1, -1, -1) if len(split) == 1 else split.repeat_interleave(batch // len(split), 0)
    return torch.cat([repeated, text], dim=2)


AttentionInterface.register(_NAME, attend)
AttentionMaskInterface.register(_NAME, eager_mask)  # the whole mask: SDPA's own leaves out what a flag can say
