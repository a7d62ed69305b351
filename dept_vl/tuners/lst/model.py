"""Ladder side-tuning as a tuner: what its network is made from and starts as."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import cast

import torch
from torch import Tensor, nn

from dept_vl.tuners.base import Fact, ParamGroup, Tuner
from dept_vl.tuners.context import TunerContext
from dept_vl.tuners.layers.side_network import NarrowBlocks
from dept_vl.tuners.lst.config import LstConfig
from dept_vl.tuners.lst.network import LadderNetwork
from dept_vl.tuners.lst.pruning import Importance, by_magnitude, by_squared_gradient, importance_names, prune
from dept_vl.tuners.places.sites import Site, StackName

_STACKS: tuple[StackName, ...] = ("encoder", "decoder")


class LadderSideTuning(Tuner):
    """A `LadderNetwork` beside the backbone, whose own last states are not used.

    Attributes:
        network: All that is trained.
    """

    config: LstConfig

    def __init__(self, config: LstConfig, context: TunerContext) -> None:
        """Makes the network; `reset_parameters` sets its values."""
        super().__init__(config, context)
        narrow = _narrow(context)
        layers: dict[StackName, tuple[int, ...]] = {
            stack: config.chosen_layers(stack) or tuple(range(depth)) for stack, depth in narrow.num_layers.items()
        }
        self.network = LadderNetwork(
            narrow, layers, config.reduction, temperature=config.gate_temperature, dropout=narrow.dropout
        )

    def side_network(self) -> LadderNetwork:
        """Returns the network."""
        return self.network

    @property
    def calibration_rows(self) -> int:
        """Returns ``fisher_rows`` where the start depends on the data."""
        return self.config.fisher_rows if self.config.init == "fisher" else 0

    def calibrated_parameters(self, context: TunerContext) -> Collection[str]:
        """Returns the word embeddings and the blocks' matrices, of blocks that have no side block too."""
        return importance_names(context) if self.config.init == "fisher" else ()

    def calibrate(self, context: TunerContext, squared_gradients: Mapping[str, Tensor]) -> None:
        """Starts the side blocks from the rows of the largest Fisher information; see `Tuner.calibrate`."""
        self._take_rows(context, by_squared_gradient(squared_gradients))

    @torch.no_grad()
    def reset_parameters(self, context: TunerContext) -> None:
        """Draws the maps between the widths, sets the gates to 1/2, and starts the blocks from the backbone's rows.

        With ``init: fisher`` rows are chosen by magnitude here, and again by `calibrate` when training starts.
        """
        generator = torch.Generator().manual_seed(context.seed)
        for linear in self.network.linears():
            _draw_linear(linear, self.config.init_std, generator)
        narrow = _narrow(context)
        for name in _STACKS:
            stack = self.network.stack(name)
            stack.gates.zero_()
            if self.config.init == "random":
                cast(nn.Parameter, stack.norm.weight).fill_(1)
                for block in stack.blocks.values():
                    narrow.draw(block, generator)
        if self.config.init != "random":
            self._take_rows(context, by_magnitude)

    @torch.no_grad()
    def _take_rows(self, context: TunerContext, importance: Importance) -> None:
        """Starts blocks and last norms as rows of the backbone's, and takes over its tables of relative positions."""
        narrow = _narrow(context)
        targets: dict[Site, nn.Module] = {}
        for name in _STACKS:
            stack = self.network.stack(name)
            targets[Site(name, None, "norm")] = stack.norm
            for layer in stack.layers:
                block = stack.blocks[str(layer)]
                targets |= {Site(name, layer, part): module for part, module in narrow.parts(block).items()}
                if (table := narrow.own_positions(block)) is not None:
                    table.copy_(narrow.positions(name))
        for site, value in prune(context, self.config.reduction, importance):
            if (module := targets.get(site)) is not None:
                cast(nn.Parameter, module.weight).copy_(value)

    def param_groups(self, own: Mapping[str, nn.Parameter]) -> list[ParamGroup]:
        """Returns the one group ``side_network``."""
        return [ParamGroup("side_network", tuple(self.network.parameters()), self.config.lr)]

    def facts(self) -> dict[str, Fact]:
        """Returns the reduction, and how many blocks there are beside each stack."""
        return {
            "r": self.config.reduction,
            "encoder_blocks": len(self.network.encoder.layers),
            "decoder_blocks": len(self.network.decoder.layers),
        }


def _narrow(context: TunerContext) -> NarrowBlocks:
    assert context.narrow is not None  # every family with an encoder has it
    return context.narrow


def _draw_linear(linear: nn.Linear, std: float | None, generator: torch.Generator) -> None:
    """Sets N(0, std) and a bias of zero; without `std` ``nn.Linear``'s own start, uniform within 1 / sqrt(inputs)."""
    if std is not None:
        linear.weight.copy_(torch.randn(linear.weight.shape, generator=generator) * std)
        linear.bias.zero_()
        return
    bound = 1 / math.sqrt(linear.in_features)
    for parameter in (linear.weight, linear.bias):
        parameter.copy_((torch.rand(parameter.shape, generator=generator) * 2 - 1) * bound)
