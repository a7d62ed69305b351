"""Hashes of frozen weights: as they are computed with, and those that copies of one checkpoint have in common.

Stored features have the first, since another precision makes other features; adapters the second, since they fit a copy
in bfloat16 too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor


def hash_tensors(tensors: Mapping[str, Tensor]) -> str:
    """Returns the sha256 of tensors by name, as they are computed with, whatever file they came from.

    Two files that give a network the same values, one in float16 and one in float32, have one hash.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        values: Any = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        digest.update(values)
    return digest.hexdigest()


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
