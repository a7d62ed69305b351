"""The network that makes an example's adapters from what the encoder made of it."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from dept_vl.tuners.context import TunerContext
from dept_vl.tuners.hyperdecoder.config import HyperDecoderConfig
from dept_vl.tuners.layers.bottleneck import Bottleneck

_START = 1e-3
"""What the bounds of the last maps' first values are multiplied by (`adapter_generators.py`)."""


class AdapterGenerator(nn.Module):
    """h = relu(W [z; block]); an adapter's D, U and biases are linear in h.

    Attributes:
        mlp: Two maps with ReLU on z before that; None without.
        layer_embeddings: (blocks, layer_dim).
        hidden: [z; block] to h.
        down: h to D.
        down_bias: h to b_D.
        up: h to U.
        up_bias: h to b_U.
    """

    def __init__(self, config: HyperDecoderConfig, num_layers: int, context: TunerContext) -> None:
        """Makes tensors of the right shapes; `reset_parameters` sets their values."""
        super().__init__()
        d_model, width = context.d_model, config.decoder_bottleneck
        self.d_model, self.width = d_model, width
        self.mlp = (
            nn.Sequential(nn.Linear(d_model, d_model), nn.ReLU(), nn.Linear(d_model, d_model)) if config.mlp else None
        )
        self.layer_embeddings = nn.Parameter(torch.zeros(num_layers, config.layer_dim))
        self.hidden = nn.Linear(d_model + config.layer_dim, config.hidden_dim)
        self.down, self.down_bias = nn.Linear(config.hidden_dim, width * d_model), nn.Linear(config.hidden_dim, width)
        self.up, self.up_bias = nn.Linear(config.hidden_dim, d_model * width), nn.Linear(config.hidden_dim, d_model)

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator) -> None:
        """Sets the first values: the adapters are nearly nothing.

        Matrices that make a map's weights are uniform within 1e-3 sqrt(3 / (hidden inputs)), `inputs` those of the map
        that is made, 1 for a bias, and their own biases 0; the others as ``nn.Linear`` and ``nn.Embedding`` start.
        """
        self.layer_embeddings.copy_(torch.randn(self.layer_embeddings.shape, generator=generator))
        before = [module for module in (*(self.mlp or ()), self.hidden) if isinstance(module, nn.Linear)]
        for module in before:
            for tensor in (module.weight, module.bias):
                _draw(tensor, 1 / math.sqrt(module.in_features), generator)
        makers = ((self.down, self.d_model), (self.up, self.width), (self.down_bias, 1), (self.up_bias, 1))
        for module, inputs in makers:
            _draw(module.weight, _START * math.sqrt(3 / (module.in_features * inputs)), generator)
            module.bias.zero_()

    def forward(self, read: Tensor) -> list[Bottleneck]:
        """Makes the adapters of every block for some examples, z (examples, d_model)."""
        read = read if self.mlp is None else self.mlp(read)
        num_layers = len(self.layer_embeddings)
        by_layer = read[:, None].expand(-1, num_layers, -1)  # (examples, blocks, d_model)
        described = torch.cat([by_layer, self.layer_embeddings.expand(len(read), -1, -1)], dim=-1)
        hidden = nn.functional.relu(self.hidden(described))  # (examples, blocks, hidden)
        made = [
            self.down(hidden).unflatten(-1, (self.width, self.d_model)),
            self.down_bias(hidden),
            self.up(hidden).unflatten(-1, (self.d_model, self.width)),
            self.up_bias(hidden),
        ]
        return [Bottleneck(*adapter) for adapter in zip(*(tensor.unbind(1) for tensor in made), strict=True)]


def _draw(tensor: Tensor, bound: float, generator: torch.Generator) -> None:
    """Sets a tensor to values uniform within a bound."""
    tensor.copy_((2 * torch.rand(tensor.shape, generator=generator) - 1) * bound)
