"""The side network: a narrow T5 that reads the states of the wide one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from dept_vl.tuners.layers.side_network import NarrowBlocks, SideNetwork
from dept_vl.tuners.places.sites import StackName


class LadderStack(nn.Module):
    """One stack of it.

    Attributes:
        down_input: Down_0, d_model -> side width, of the stack's input.
        down: Down_i of what the backbone's block i puts out, by i.
        gates: alpha, one for every block of the backbone; those without a side block are for the count alone.
        blocks: The side blocks, by the block of the backbone that they stand beside.
        norm: The last.
        layers: The keys of `blocks`.
    """

    def __init__(self, narrow: NarrowBlocks, stack: StackName, layers: Sequence[int], reduction: int) -> None:
        """Makes tensors of the right shapes, all zeros."""
        super().__init__()
        width = narrow.widths["d_model"]
        self.layers = tuple(layers)
        self.down_input = empty_linear(width, width // reduction)
        self.down = nn.ModuleDict({str(layer): empty_linear(width, width // reduction) for layer in layers})
        self.gates = nn.Parameter(torch.zeros(narrow.num_layers[stack]))
        self.blocks = nn.ModuleDict(
            {
                str(layer): narrow.block(stack, index, reduction, has_positions=index == 0)
                for index, layer in enumerate(layers)
            }
        )
        self.norm = narrow.norm(stack, reduction)


class LadderNetwork(nn.Module, SideNetwork):
    """s_0 = Down_0 E; at block i: s <- mu_i s + (1 - mu_i) Down_i h_i, then the side block; Up at the end.

    mu_i = sigmoid(alpha_i / T) (Sung et al. 2022, section 3.1; ``modeling_side_t5.py`` of their code). Where the
    backbone reads no visual tokens, Down_i h_i is zero at their places (``modeling_t5.py`` of its CLIP-T5).

    Attributes:
        encoder: Its encoder.
        decoder: Its decoder.
        up: Side width -> d_model.
    """

    def __init__(
        self,
        narrow: NarrowBlocks,
        layers: Mapping[StackName, Sequence[int]],
        reduction: int,
        *,
        temperature: float,
        dropout: float,
    ) -> None:
        """Makes tensors of the right shapes, all zeros.

        Args:
            narrow: Makes blocks of the backbone's kind.
            layers: The backbone's blocks that get one beside them.
            reduction: r.
            temperature: T of the gates.
            dropout: Rate on the input of a stack and behind its last norm, while training.
        """
        super().__init__()
        self.encoder = LadderStack(narrow, "encoder", layers["encoder"], reduction)
        self.decoder = LadderStack(narrow, "decoder", layers["decoder"], reduction)
        self.up = empty_linear(narrow.widths["d_model"] // reduction, narrow.widths["d_model"])
        self._temperature = temperature
        self._dropout = dropout

    def layers(self, stack: StackName) -> Sequence[int]:
        """See `SideNetwork.layers`."""
        return self.stack(stack).layers

    def block(self, stack: StackName, layer: int) -> nn.Module:
        """See `SideNetwork.block`."""
        return self.stack(stack).blocks[str(layer)]

    def enter(self, stack: StackName, embeds: Tensor) -> Tensor:
        """Returns Down_0 dropout(E)."""
        states: Tensor = self.stack(stack).down_input(self._drop(embeds))
        return states

    def mix(self, stack: StackName, layer: int, hidden: Tensor, output: Tensor) -> Tensor:
        """Returns mu s + (1 - mu) Down h."""
        own = self.stack(stack)
        gate = torch.sigmoid(own.gates[layer] / self._temperature)
        down = cast(nn.Linear, own.down[str(layer)])
        read: Tensor = down(output.to(down.weight.dtype))
        if (unread := hidden.shape[1] - read.shape[1]) > 0:
            read = nn.functional.pad(read, (0, 0, 0, unread))
        return gate * hidden + (1 - gate) * read

    def leave(self, stack: StackName, hidden: Tensor) -> Tensor:
        """Returns the normed states; Up of them at the decoder's end."""
        states = self._drop(self.stack(stack).norm(hidden))
        if stack == "decoder":
            states = self.up(states)
        return states

    def linears(self) -> Iterator[nn.Linear]:
        """Yields the maps between the two widths."""
        for stack in (self.encoder, self.decoder):
            yield stack.down_input
            yield from (cast(nn.Linear, down) for down in stack.down.values())
        yield self.up

    def stack(self, stack: StackName) -> LadderStack:
        """Returns one of the two stacks."""
        return self.encoder if stack == "encoder" else self.decoder

    def _drop(self, states: Tensor) -> Tensor:
        return nn.functional.dropout(states, self._dropout, self.training)


def empty_linear(inputs: int, outputs: int) -> nn.Linear:
    """Returns a linear map of zeros with a bias, on the default device; its making draws no random numbers."""
    device = torch.get_default_device()
    linear: nn.Linear = nn.Linear(inputs, outputs, device="meta").to_empty(device=device)
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear
