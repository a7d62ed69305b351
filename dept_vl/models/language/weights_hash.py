"""Hashes of frozen weights that copies in float32 and in bfloat16 of one checkpoint have in common."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import torch
from torch import Tensor


def hash_in_order(tensors: Iterable[Tensor], start: str = "") -> str:
    """Returns the sha256 of some tensors' values, rounded to bfloat16, one after the other.

    Args:
        tensors: Of any floating type and device.
        start: What is hashed before them.
    """
    digest = hashlib.sha256(start.encode())
    for tensor in tensors:
        rounded = tensor.detach().to("cpu", torch.bfloat16).contiguous()
        digest.update(rounded.view(torch.int16).numpy().astype("<i2", copy=False).tobytes())
    return digest.hexdigest()


def hash_together(tensors: Iterable[Tensor]) -> str:
    """Returns the sha256 of some tensors' shapes and values, whatever their order and names: releases change both."""
    each = sorted(f"{tuple(tensor.shape)} {hash_in_order([tensor])}" for tensor in tensors)
    return hashlib.sha256("\n".join(each).encode()).hexdigest()
