"""Adapters whose ``vl-t5`` projection has the tensors of earlier versions, without those inert with one image.

They had the bias of the box layer as ``position`` and neither its weight, which zero boxes make inert, nor embeddings
of image numbers. With both at zero the projection of today computes the same, bit for bit.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor

_PREFIX = "visual_projection."
_NOW = {f"{_PREFIX}box.bias": f"{_PREFIX}position", f"{_PREFIX}box_norm.weight": f"{_PREFIX}position_norm.weight"}
"""Name of today -> of then."""
_ADDED = {f"{_PREFIX}{name}" for name in ("box.weight", "image_ids", "feature_norm.bias", "box_norm.bias")}


def is_earlier(names: Collection[str]) -> bool:
    """Returns whether a file's tensors, by their names, have such a projection."""
    return _NOW[f"{_PREFIX}box.bias"] in names


def as_stored(targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns a model's tensors as such a file has them: by their names of then, without those it lacks."""
    return {_NOW.get(name, name): tensor for name, tensor in targets.items() if name not in _ADDED}


def as_now(tensors: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns such a file's tensors as the model's, those it lacks at zero.

    Args:
        tensors: The file's.
        targets: The model's, for names and shapes; of any device.
    """
    return {
        name: torch.zeros(target.shape, dtype=target.dtype) if name in _ADDED else tensors[_NOW.get(name, name)]
        for name, target in targets.items()
    }
