"""The network that makes adapters from embeddings of task, block and place."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dept_vl.tuners.hyperformer.config import HyperFormerConfig
from dept_vl.tuners.layers.bottleneck import Bottleneck

PARTS = ("ff.out", "self_attn.o")
"""The places of a block, in the order of their embeddings (`adapter_modeling.py`: feed-forward 0, self-attention 1)."""

_EPSILON = 1e-6
"""Of the LayerNorm on the projected embedding."""


@dataclass(frozen=True)
class GeneratedAdapter:
    """What the network made for one place, (tasks, ...) each.

    Attributes:
        bottleneck: The adapter.
        scale: gamma of the LayerNorm behind it, (tasks, d_model).
        shift: beta, (tasks, d_model).
    """

    bottleneck: Bottleneck
    scale: Tensor
    shift: Tensor


class HyperNetwork(nn.Module):
    """e = LN(W_2 relu(W_1 [task; block; place])); an adapter's weights, biases and LayerNorm are linear in e.

    Attributes:
        layer_embeddings: (blocks, embedding).
        place_embeddings: (2, embedding), in the order of `PARTS`.
        project: [task; block; place] to what is normed.
        norm: The LayerNorm that makes e.
        down: e to D.
        down_bias: e to b_D.
        up: e to U.
        up_bias: e to b_U.
        scale: e to gamma of the LayerNorm behind the adapter.
        shift: e to its beta.
    """

    def __init__(self, config: HyperFormerConfig, num_layers: int, d_model: int) -> None:
        """Makes tensors of the right shapes; `reset_parameters` sets their values.

        Raises:
            ConfigError: The adapters would have no width.
        """
        super().__init__()
        width, dim = config.width_of(d_model), config.projected_dim
        self.d_model, self.width = d_model, width
        self.layer_embeddings = nn.Parameter(torch.zeros(num_layers, config.embedding_dim))
        self.place_embeddings = nn.Parameter(torch.zeros(len(PARTS), config.embedding_dim))
        self.project = nn.Sequential(
            nn.Linear(3 * config.embedding_dim, config.hidden_dim), nn.ReLU(), nn.Linear(config.hidden_dim, dim)
        )
        self.norm = nn.LayerNorm(dim, eps=_EPSILON)
        self.down, self.down_bias = nn.Linear(dim, width * d_model), nn.Linear(dim, width)
        self.up, self.up_bias = nn.Linear(dim, d_model * width), nn.Linear(dim, d_model)
        self.scale, self.shift = nn.Linear(dim, d_model), nn.Linear(dim, d_model)

    @torch.no_grad()
    def reset_parameters(self, std: float, generator: torch.Generator) -> None:
        """Draws embeddings from N(0, 1) and matrices from N(0, std^2); biases are 0, the LayerNorm the identity.

        As ``linear_layer`` and ``nn.Embedding`` in ``rabeehk/hyperformer``. gamma and beta of the adapters' LayerNorms
        therefore start as noise and not as the identity.
        """
        for embeddings in (self.layer_embeddings, self.place_embeddings):
            embeddings.copy_(torch.randn(embeddings.shape, generator=generator))
        for module in self.modules():
            if isinstance(module, nn.Linear):
                module.weight.copy_(torch.randn(module.weight.shape, generator=generator) * std)
                module.bias.zero_()
        self.norm.reset_parameters()

    def forward(self, task_embeddings: Tensor) -> dict[tuple[int, str], GeneratedAdapter]:
        """Makes the adapters of some tasks, (tasks, embedding), by block and place."""
        shape = (len(task_embeddings), len(self.layer_embeddings), len(PARTS), task_embeddings.shape[-1])
        described = torch.cat(
            [
                task_embeddings[:, None, None].expand(shape),
                self.layer_embeddings[None, :, None].expand(shape),
                self.place_embeddings[None, None].expand(shape),
            ],
            dim=-1,
        )
        embedding = self.norm(self.project(described)).flatten(1, 2)  # (tasks, blocks x places, projected)
        made = [
            self.down(embedding).unflatten(-1, (self.width, self.d_model)),
            self.down_bias(embedding),
            self.up(embedding).unflatten(-1, (self.d_model, self.width)),
            self.up_bias(embedding),
            self.scale(embedding),
            self.shift(embedding),
        ]
        places = [(layer, part) for layer in range(len(self.layer_embeddings)) for part in PARTS]
        by_place = zip(*(tensor.unbind(1) for tensor in made), strict=True)
        return {
            place: GeneratedAdapter(Bottleneck(*adapter), scale, shift)
            for place, (*adapter, scale, shift) in zip(places, by_place, strict=True)
        }
