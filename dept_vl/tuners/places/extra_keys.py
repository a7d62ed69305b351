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
        keys: (1 or batch, extra, width of the attention's k).
        values: (1 or batch, extra, width of its v).
    """

    keys: Tensor
    values: Tensor


def merge_extra_keys(*sides: Mapping[Site, ExtraKeys]) -> dict[Site, ExtraKeys]:
    """Returns the extra keys of several sides, those at one attention one after the other."""
    merged: dict[Site, ExtraKeys] = {}
    for side in sides:
        for site, extra in side.items():
            if (before := merged.get(site)) is not None:
                extra = ExtraKeys(_join(before.keys, extra.keys), _join(before.values, extra.values))
            merged[site] = extra
    return merged


def _join(one: Tensor, other: Tensor) -> Tensor:
    """Joins (1 or batch, extra, width) along `extra`."""
    batch = max(len(one), len(other))
    return torch.cat([one.expand(batch, -1, -1), other.expand(batch, -1, -1)], dim=1)
