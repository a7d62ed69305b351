"""The computation of LoRA."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor, nn

from dept_vl.tuners.base import Fact, ParamGroup, Tuner
from dept_vl.tuners.context import TunerContext
from dept_vl.tuners.forward_info import ForwardInfo
from dept_vl.tuners.layers.dropout import dropped_linear
from dept_vl.tuners.lora.config import LoraConfig
from dept_vl.tuners.places.added_biases import AddedBiases
from dept_vl.tuners.places.choice import choose_sites
from dept_vl.tuners.places.hooks import LinearMap, NarrowMap, SiteHook, merge_hooks
from dept_vl.tuners.places.sites import Site, SiteShape


class LowRankUpdate(nn.Module):
    """scaling * B A of one linear map, with dropout on its input.

    Attributes:
        lora_a: A, (rank, inputs).
        lora_b: B, (outputs, rank); zero at the start, so that the map is the backbone's.
        scaling: alpha / rank.
        dropout: Rate of dropout on the input, while training.
    """

    scaling: float
    dropout: float

    def __init__(self, shape: SiteShape, config: LoraConfig) -> None:
        """Makes tensors of the right shapes; `reset_parameters` sets their values."""
        super().__init__()
        self.lora_a = nn.Parameter(torch.zeros(config.rank, shape.inputs))
        self.lora_b = nn.Parameter(torch.zeros(shape.outputs, config.rank))
        self.scaling = config.alpha / config.rank
        self.dropout = config.dropout

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator) -> None:
        """Sets A uniform within 1 / sqrt(inputs), as ``loralib`` does, and B to zero."""
        values = torch.empty(self.lora_a.shape)
        self.lora_a.copy_(nn.init.kaiming_uniform_(values, a=math.sqrt(5), generator=generator))
        self.lora_b.zero_()

    def forward(self, inputs: Tensor) -> Tensor:
        """Returns (..., outputs)."""
        return self.scaling * nn.functional.linear(self.reduce(inputs), self.lora_b)

    def reduce(self, inputs: Tensor) -> Tensor:
        """Returns A dropout(inputs), (..., rank)."""
        return dropped_linear(inputs, self.lora_a, self.dropout, self.training)


class _UpdateHook(SiteHook):
    def __init__(self, update: LowRankUpdate) -> None:
        self._update = update

    @property
    def acts_by_token(self) -> bool:
        """See `SiteHook`."""
        return not (self._update.training and self._update.dropout)

    def __call__(self, inputs: Tensor, output: Tensor, info: ForwardInfo) -> Tensor:
        update: Tensor = self._update(inputs)
        return output + update.to(output.dtype)

    def fold(self, linear: LinearMap) -> LinearMap:
        """Returns W + scaling * B A; while dropout makes every input's map another one, B beside W instead."""
        update = self._update
        scaled = update.scaling * update.lora_b
        dtype = linear.weight.dtype
        if update.training and update.dropout:
            narrow = NarrowMap(lambda inputs: update.reduce(inputs).to(dtype), scaled.to(dtype))
            return replace(linear, narrow=(*linear.narrow, narrow))
        return replace(linear, weight=linear.weight + (scaled @ update.lora_a).to(dtype))


class Lora(Tuner):
    """W x + (alpha / r) B A dropout(x) at chosen linear maps (microsoft/LoRA ``loralib/layers.py``).

    Attributes:
        updates: One `LowRankUpdate` a place, by the place's name.
        biases: What ``biases="all"`` adds, or None.
    """

    config: LoraConfig

    def __init__(self, config: LoraConfig, context: TunerContext) -> None:
        """Makes an update for every place that the settings name."""
        super().__init__(config, context)
        chosen = choose_sites(config.sites, context.shape)
        self.updates = nn.ModuleDict({site.key: LowRankUpdate(context.sites[site], config) for site in chosen})
        self.biases = AddedBiases(context) if config.biases == "all" else None
        updates = {site: _UpdateHook(cast(LowRankUpdate, self.updates[site.key])) for site in chosen}
        self._hooks = merge_hooks(updates, self.biases.hooks() if self.biases else {})

    def site_hooks(self) -> Mapping[Site, SiteHook]:
        """Returns the updates, and the biases where they are added."""
        return self._hooks

    def trained_backbone_parameters(self, names: Collection[str]) -> Collection[str]:
        """Returns the backbone's own biases with ``biases="all"``."""
        return self.biases.own if self.biases else ()

    def reset_parameters(self, context: TunerContext) -> None:
        """Sets A and B of every update, in the order of the places, and added biases to zero."""
        generator = torch.Generator().manual_seed(context.seed)
        for update in self.updates.values():
            cast(LowRankUpdate, update).reset_parameters(generator)
        if self.biases:
            self.biases.reset_parameters()

    def param_groups(self, own: Mapping[str, nn.Parameter]) -> list[ParamGroup]:
        """Returns ``lora``, and ``biases`` where they are trained."""
        groups = [ParamGroup("lora", tuple(self.updates.parameters()), self.config.lr)]
        if self.biases:
            groups.append(ParamGroup("biases", (*self.biases.parameters(), *own.values()), self.config.lr))
        return groups

    def facts(self) -> dict[str, Fact]:
        """Returns the rank and how many places have an update."""
        return {"r": self.config.rank, "sites": len(self.updates)}
