"""First values of linear layers."""

from __future__ import annotations

import torch
from torch import nn


@torch.no_grad()
def reset_linear(layer: nn.Linear, generator: torch.Generator) -> None:
    """Sets a layer to what ``nn.Linear`` starts with: weights and bias uniform within 1 / sqrt(inputs).

    Args:
        layer: Changed in place, on whatever device.
        generator: On the CPU, so that the values depend on nothing else.
    """
    bound = layer.in_features**-0.5
    for tensor in (layer.weight, layer.bias):
        if tensor is not None:
            tensor.copy_((torch.rand(tensor.shape, generator=generator) * 2 - 1) * bound)
