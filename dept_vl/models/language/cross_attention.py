"""T5's cross-attention for short targets: keys and values of the source are never made.

A target of t tokens reads a source of n states h through keys W_k h and values W_v h, which cost 2 n d i
multiplications whatever t is (d: width, i: heads x head width). Scores q . (W_k h) are (W_k^T q) . h, and the sum of
a_j (W_v h_j) is W_v (sum of a_j h_j): the same numbers up to the order of additions, at 2 t i d + 2 t heads n d. A
label, or an answer of a few words, is that short: a seventh of T5-base's work is saved (docs/benchmarks.md).
"""

from __future__ import annotations

import operator
from collections.abc import Iterator
from functools import reduce
from typing import Any, cast

import torch
from torch import Tensor, nn

from dept_vl.models.language.extra_keys import reads_extra_keys
from dept_vl.models.language.places import is_plain
from dept_vl.tuners.layers.dropout import dropout
from dept_vl.tuners.places.hooks import LinearMap, SiteHook


def cross_attend(
    layer: Any,
    hidden: Tensor,
    states: Tensor,
    mask: Tensor | None,
    key_hook: SiteHook | None = None,
    value_hook: SiteHook | None = None,
) -> Tensor:
    """Lets a target read the source, in the cheaper of the two orders.

    Hooks at k and v are folded into their matrices where that is exact; where it is not, where extra keys are read, or
    another library has wrapped or hooked the modules, keys and values are made by calling them.

    Args:
        layer: T5's ``T5LayerCrossAttention``.
        hidden: (batch, target, d_model).
        states: (batch, source, d_model), the encoder's.
        mask: (batch, 1, 1, source), added to the scores; None without padding.
        key_hook: What acts on the output of k.
        value_hook: What acts on the output of v.

    Returns:
        (batch, target, d_model): `hidden` and what was read.
    """
    attention = layer.EncDecAttention
    if is_absorbed_cheaper(attention, hidden.shape[1], states.shape[1]) and not reads_extra_keys(attention):
        keys, values = _folded(attention.k, key_hook), _folded(attention.v, value_hook)
        if keys is not None and values is not None:
            read = absorbed_attention(attention, layer.layer_norm(hidden), states, mask, keys, values)
            return hidden + layer.dropout(read)
    output: Tensor = layer(hidden, states, mask)[0]
    return output


def _folded(module: nn.Module, hook: SiteHook | None) -> LinearMap | None:
    """Returns the map that a module and the hook on it are together; None if they are none, or not known."""
    if not is_plain(module, hook):
        return None
    linear = LinearMap(cast(nn.Linear, module).weight)
    return linear if hook is None else hook.fold(linear)


def is_absorbed_cheaper(attention: Any, target: int, source: int) -> bool:
    """Returns whether `absorbed_attention` takes fewer multiplications than keys and values of the whole source."""
    inner, width = attention.inner_dim, attention.d_model
    absorbed = target * width * (inner + attention.n_heads * source)
    return bool(absorbed < source * inner * (width + target))


def absorbed_attention(
    attention: Any, normed: Tensor, states: Tensor, mask: Tensor | None, keys: LinearMap, values: LinearMap
) -> Tensor:
    """Attends with the key and value matrices applied on the target's side.

    A bias of keys adds one number to all scores of a query, which softmax does not see, and is left out. A bias of
    values is read as often as a query's weights add up to.

    Args:
        attention: T5's ``T5Attention``; its scores are not scaled.
        normed: (batch, target, d_model), the queries' input.
        states: (batch, source, d_model).
        mask: (batch, 1, 1, source), added to the scores; None without padding.
        keys: States to keys.
        values: States to values. What either has of narrow maps is made for the whole source: it costs little.

    Returns:
        (batch, target, d_model).
    """
    heads = (attention.n_heads, attention.key_value_proj_dim)
    query = attention.q(normed).unflatten(-1, heads)  # (batch, target, heads, k)
    scores = reduce(operator.add, (_scores(query, *part) for part in _parts(keys, states)))
    if mask is not None:
        scores = scores + mask[:, 0]
    weights = nn.functional.softmax(scores.float(), dim=-1).type_as(scores)
    weights = dropout(weights, attention.dropout, attention.training)
    read = reduce(operator.add, (_read(weights, *part, heads) for part in _parts(values, states)))
    if values.bias is not None:
        totals = weights.sum(dim=-1).unflatten(1, (-1, attention.n_heads))  # (batch, target, heads); 1 without dropout
        read = read + (totals[..., None] * values.bias.unflatten(0, heads)).flatten(2)
    output: Tensor = attention.o(read)
    return output


def _parts(linear: LinearMap, states: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields what a map's matrices multiply, (batch, source, width), and each matrix, (heads x k, width)."""
    yield states, linear.weight
    for narrow in linear.narrow:
        yield narrow.reduce(states), narrow.expand


def _scores(query: Tensor, states: Tensor, matrix: Tensor) -> Tensor:
    """Returns (batch, target x heads, source): queries (batch, target, heads, k) times the keys ``matrix states``."""
    turned = torch.einsum("bthk,hkd->bthd", query, matrix.unflatten(0, query.shape[2:])).flatten(1, 2)
    return turned @ states.transpose(1, 2)


def _read(weights: Tensor, states: Tensor, matrix: Tensor, heads: tuple[int, int]) -> Tensor:
    """Returns (batch, target, heads x k): values ``matrix states`` by weights (batch, target x heads, source)."""
    read = (weights @ states).unflatten(1, (-1, heads[0]))  # (batch, target, heads, width)
    return torch.einsum("bthd,hkd->bthk", read, matrix.unflatten(0, heads)).flatten(2)
