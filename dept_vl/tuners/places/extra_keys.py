"""Keys and values of a method's own that an attention reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from dept_vl.tuners.places.sites import Site


@dataclass(frozen=True)
class ExtraKeys:
    """What an attention reads before its own keys and values; it has no position.

    Attributes:
        keys: (1 or some or batch, extra, width of the attention's k).
        values: (1 or some or batch, extra, width of its v).
        is_token: (1 or some or batch, extra) bool, False for padding, which is not read; None where nothing is.
        parents: (batch,), which of the keys each row reads; None: the only ones, or each its own.
    """

    keys: Tensor
    values: Tensor
    is_token: Tensor | None = None
    parents: Tensor | None = None


def merge_extra_keys(*sides: Mapping[Site, ExtraKeys]) -> dict[Site, ExtraKeys]:
    """Returns the extra keys of several sides, those at one attention one after the other.

    Beside those with `ExtraKeys.parents` may only be those that all rows read.
    """
    merged: dict[Site, ExtraKeys] = {}
    for side in sides:
        for site, extra in side.items():
            merged[site] = _join(merged[site], extra) if site in merged else extra
    return merged


def _join(one: ExtraKeys, other: ExtraKeys) -> ExtraKeys:
    """Joins extra keys of one attention along `extra`."""
    both = (one, other)
    count = max(len(side.keys) for side in both)
    parents = [side.parents for side in both if side.parents is not None]
    assert not parents or min(len(side.keys) for side in both) == 1
    is_token = None
    if any(side.is_token is not None for side in both):
        every = torch.ones(1, 1, dtype=torch.bool, device=one.keys.device)
        known = [every.expand(1, side.keys.shape[1]) if side.is_token is None else side.is_token for side in both]
        is_token = torch.cat([side.expand(count, -1) for side in known], dim=1)
    return ExtraKeys(
        torch.cat([side.keys.expand(count, -1, -1) for side in both], dim=1),
        torch.cat([side.values.expand(count, -1, -1) for side in both], dim=1),
        is_token,
        parents[0] if parents else None,
    )
