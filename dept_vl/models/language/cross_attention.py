"""T5's cross-attention for short targets: keys and values of the source are never made.

A target of t tokens reads a source of n states h through keys W_k h and values W_v h, which cost 2 n d i
multiplications whatever t is (d: width, i: heads x head width). Scores q . (W_k h) are (W_k^T q) . h, and the sum of
a_j (W_v h_j) is W_v (sum of a_j h_j): the same numbers up to the order of additions, at 2 t i d + 2 t heads n d. A
label, or an answer of a few words, is that short: a seventh of T5-base's work is saved (docs/benchmarks.md).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def cross_attend(layer: Any, hidden: Tensor, states: Tensor, mask: Tensor | None) -> Tensor:
    """Lets a target read the source, in the cheaper of the two orders.

    Args:
        layer: T5's ``T5LayerCrossAttention``.
        hidden: (batch, target, d_model).
        states: (batch, source, d_model), the encoder's.
        mask: (batch, 1, 1, source), added to the scores; None without padding.

    Returns:
        (batch, target, d_model): `hidden` and what was read.
    """
    attention = layer.EncDecAttention
    if is_absorbed_cheaper(attention, hidden.shape[1], states.shape[1]):
        read = absorbed_attention(attention, layer.layer_norm(hidden), states, mask)
        return hidden + layer.dropout(read)
    output: Tensor = layer(hidden, states, mask)[0]
    return output


def is_absorbed_cheaper(attention: Any, target: int, source: int) -> bool:
    """Returns whether `absorbed_attention` takes fewer multiplications than keys and values of the whole source."""
    inner, width = attention.inner_dim, attention.d_model
    absorbed = target * width * (inner + attention.n_heads * source)
    return bool(absorbed < source * inner * (width + target))


def absorbed_attention(attention: Any, normed: Tensor, states: Tensor, mask: Tensor | None) -> Tensor:
    """Attends with the key and value matrices applied on the target's side.

    Args:
        attention: T5's ``T5Attention``; its scores are not scaled.
        normed: (batch, target, d_model), the queries' input.
        states: (batch, source, d_model).
        mask: (batch, 1, 1, source), added to the scores; None without padding.

    Returns:
        (batch, target, d_model).
    """
    heads = (attention.n_heads, attention.key_value_proj_dim)
    key_matrix, value_matrix = (one.weight.unflatten(0, heads) for one in (attention.k, attention.v))  # (heads, k, d)
    query = attention.q(normed).unflatten(-1, heads)  # (batch, target, heads, k)
    query = torch.einsum("bthk,hkd->bthd", query, key_matrix).flatten(1, 2)  # (batch, target x heads, d_model)
    scores = query @ states.transpose(1, 2)  # (batch, target x heads, source)
    if mask is not None:
        scores = scores + mask[:, 0]
    weights = nn.functional.softmax(scores.float(), dim=-1).type_as(scores)
    weights = nn.functional.dropout(weights, attention.dropout, attention.training)
    read = (weights @ states).unflatten(1, (-1, attention.n_heads))  # (batch, target, heads, d_model)
    read = torch.einsum("bthd,hkd->bthk", read, value_matrix).flatten(2)  # (batch, target, heads x k)
    output: Tensor = attention.o(read)
    return output
