"""Which rows of the backbone's matrices a narrow network starts from (Sung et al. 2022, section 3.2).

``pruning_v2`` of ``ylsung/Ladder-Side-Tuning`` (``seq2seq/pruning/pruning_methods.py``). It goes through the backbone
from the word embeddings to the last norm. Of every matrix the columns are kept whose numbers were kept before, and of
its rows the 1/r with the largest sum of importances; q, k and v keep the same ones, by the product of their
importances. A norm follows what was kept before it. What is kept before a matrix is what the last one kept, not what
the residual stream was kept by, and the decoder's first block goes on from the encoder's last: the start is a choice of
rows that matter and not a smaller model that computes the same.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor

from dept_vl.tuners.context import TunerContext
from dept_vl.tuners.places.sites import Site

Importance = Callable[[str, slice, Tensor], Tensor]
"""A parameter's name, some of its rows and their values to how much each of those numbers matters."""

_ALL = slice(None)
_CHUNK = 4096
"""Rows of the word embeddings that are looked at together, so that no copy of the whole table is made."""

_SHARED = (("self_attn.q", "self_attn.k", "self_attn.v"), ("cross_attn.q", "cross_attn.k", "cross_attn.v"),
           ("ff.gate", "ff.in"))  # fmt: skip
"""Parts that keep the same rows. A gated feed-forward (T5 v1.1), which the released code does not know, does so too."""


@dataclass(frozen=True)
class _Weight:
    name: str
    value: Tensor


def by_magnitude(name: str, rows: slice, weight: Tensor) -> Tensor:
    """Returns absolute values: the start that the released code calls ``t5-base-v2``."""
    return weight.abs()


def by_squared_gradient(squared_gradients: Mapping[str, Tensor]) -> Importance:
    """Returns the importances of the start that the released code calls ``fisher-v2``."""
    return lambda name, rows, weight: squared_gradients[name][rows]


def importance_names(context: TunerContext) -> list[str]:
    """Returns the backbone's parameters whose importance decides what is kept."""
    assert context.word_table is not None
    names = [shape.weight for site, shape in context.sites.items() if site.part.partition(".")[2] not in ("", "norm")]
    return [context.word_table, *(name for name in names if name is not None)]


@torch.no_grad()
def prune(context: TunerContext, reduction: int, importance: Importance) -> Iterator[tuple[Site, Tensor]]:
    """Yields every linear map and norm of the backbone's stacks at 1/r of its widths.

    Args:
        context: The backbone.
        reduction: r.
        importance: How much each number of the backbone's matrices matters.
    """
    kept = _largest(_word_columns(context, importance), reduction)
    weighted = [site for site, shape in context.sites.items() if shape.weight is not None and site.part != "lm_head"]
    for sites in _grouped(weighted):
        weights = [_weight(context, site) for site in sites]
        if weights[0].value.dim() == 1:  # a norm
            yield sites[0], weights[0].value[kept]
            continue
        columns = kept
        importances = [importance(weight.name, _ALL, weight.value)[:, columns] for weight in weights]
        if len(importances) > 1:
            # In float64: the product of three squared gradients is soon too small for float32.
            importances = [reduce(operator.mul, (one.double() for one in importances))]
        kept = _largest(importances[0].sum(dim=1, dtype=torch.float64), reduction)
        for site, weight in zip(sites, weights, strict=True):
            yield site, weight.value[kept][:, columns]


def _word_columns(context: TunerContext, importance: Importance) -> Tensor:
    """Returns the sum of importances in each column of the word embeddings, (d_model,) float64."""
    name, embed = context.word_table, context.embed_tokens
    assert name is not None
    assert embed is not None
    chunks = (slice(start, start + _CHUNK) for start in range(0, context.vocab_size, _CHUNK))
    every = torch.arange(context.vocab_size)
    parts = [importance(name, rows, embed(every[rows])).sum(dim=0, dtype=torch.float64) for rows in chunks]
    return torch.stack(parts).sum(dim=0)


def _weight(context: TunerContext, site: Site) -> _Weight:
    name = context.sites[site].weight
    assert name is not None
    assert context.weight is not None
    return _Weight(name, context.weight(site))


def _grouped(sites: Sequence[Site]) -> Iterator[list[Site]]:
    """Yields the sites that keep the same rows together, in their order."""
    group: list[Site] = []
    for site in sites:
        together = group and any({site.part, group[-1].part} <= set(parts) for parts in _SHARED)
        if group and not together:
            yield group
            group = []
        group.append(site)
    if group:
        yield group


def _largest(sums: Tensor, reduction: int) -> Tensor:
    """Returns the numbers of the largest 1/r, ascending; of equal ones the first."""
    order = torch.sort(sums, descending=True, stable=True).indices[: len(sums) // reduction]
    return order.sort().values
