"""The numbers of stored features: as they are in 16 or 32 bits, or in 8 with a scale for each token."""

from __future__ import annotations

import torch
from torch import Tensor

INT8 = "int8"
_LARGEST = 127
_KEPT_BITS = -(1 << 8)
"""Of a scale's 24 bits the upper 16 are kept, so that 127 times a scale is exact in float32: numbers that were rounded
once have the same scale again, and are rounded to themselves."""


def pack(values: Tensor, dtype: str) -> tuple[Tensor, Tensor | None]:
    """Returns numbers as they are stored, and of int8 what to multiply each token with.

    Args:
        values: (..., width) floating point.
        dtype: ``"float16"``, ``"bfloat16"``, ``"float32"`` or ``"int8"``.

    Returns:
        (..., width) of that type, contiguous; (...) float32 scales, the largest magnitude of a token over 127, or None.
    """
    if dtype != INT8:
        return values.to(getattr(torch, dtype)).contiguous(), None
    values = values.float()
    scales = (values.abs().amax(dim=-1) / _LARGEST).contiguous()
    scales = (scales.view(torch.int32) & _KEPT_BITS).view(torch.float32)
    divisors = scales.masked_fill(scales == 0, 1.0)[..., None]
    return (values / divisors).round().clamp(-_LARGEST, _LARGEST).to(torch.int8).contiguous(), scales


def unpack(stored: Tensor, scales: Tensor | None) -> Tensor:
    """Returns stored numbers in their own type, those of int8 as float32."""
    return stored if scales is None else stored.float() * scales[..., None]


def rounded(values: Tensor, dtype: str) -> Tensor:
    """Returns float32 numbers as they come back from a store, so that fresh and cached ones are the same."""
    return unpack(*pack(values, dtype)).float()
