"""The computation of adapters."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import cast

import torch
from torch import Tensor, nn

from dept_vl.tuners.adapter.config import AdapterSettings
from dept_vl.tuners.base import Fact, ParamGroup, Tuner
from dept_vl.tuners.context import TunerContext
from dept_vl.tuners.forward_info import ForwardInfo
from dept_vl.tuners.layers.bottleneck import ACTIVATIONS, Activation, BottleneckWeights
from dept_vl.tuners.places.choice import choose_sites
from dept_vl.tuners.places.hooks import SiteHook
from dept_vl.tuners.places.sites import Site


class _AdapterHook(SiteHook):
    def __init__(self, weights: BottleneckWeights, activation: Activation, post_norm: nn.LayerNorm | None) -> None:
        self._weights = weights
        self._activation = activation
        self._post_norm = post_norm

    @property
    def acts_by_token(self) -> bool:
        """See `SiteHook`."""
        return not self._weights.has_tasks

    def __call__(self, inputs: Tensor, output: Tensor, info: ForwardInfo) -> Tensor:
        change = self._weights.of(info)(output, self._activation)
        if self._post_norm is not None:
            change = self._post_norm(change)
        return output + change.to(output.dtype)


class Adapter(Tuner):
    """y + U f(D y + b_D) + b_U on what comes out of sublayers, before dropout and the residual sum.

    Houlsby et al. 2019, figure 2, as in ``rabeehk/compacter`` (``seq2seq/adapters``, ``third_party/models/t5``): behind
    self-attention and feed-forward, none behind cross-attention, and all of T5's norms train. With `per_task` it is
    Karimi Mahabadi et al.'s Adapters-dagger (``rabeehk/hyperformer`` ``configs/adapter_dagger.json``): D, U and biases
    of each task's own, and y + LN(U f(D y + b_D) + b_U) with one LayerNorm a place for all tasks.

    Attributes:
        adapters: One `BottleneckWeights` a place, by the place's name.
        post_norms: The LayerNorms behind them, by the same names; empty without.
    """

    config: AdapterSettings

    def __init__(self, config: AdapterSettings, context: TunerContext) -> None:
        """Makes an adapter for every place that the settings name."""
        super().__init__(config, context)
        chosen = choose_sites(config.sites, context.shape, config.layers)
        num_tasks = len(context.tasks) if config.per_task else None
        adapters, norms, hooks = {}, {}, {}
        for site in chosen:
            outputs = context.sites[site].outputs
            adapters[site.key] = BottleneckWeights(outputs, config.width_of(outputs), outputs, num_tasks)
            if config.has_post_norm:
                norms[site.key] = nn.LayerNorm(outputs)
            hooks[site] = _AdapterHook(adapters[site.key], ACTIVATIONS[config.non_linearity], norms.get(site.key))
        self.adapters = nn.ModuleDict(adapters)
        self.post_norms = nn.ModuleDict(norms)
        self._width = config.width_of(context.d_model)
        self._norms = context.norm_parameters if config.norms else ()
        self._hooks: dict[Site, SiteHook] = dict(hooks)

    def site_hooks(self) -> Mapping[Site, SiteHook]:
        """Returns the adapters."""
        return self._hooks

    def trained_backbone_parameters(self, names: Collection[str]) -> Collection[str]:
        """Returns the backbone's norms, with ``norms: true``."""
        return self._norms

    @torch.no_grad()
    def reset_parameters(self, context: TunerContext) -> None:
        """Sets the first values, in the order of the places; LayerNorms behind adapters start at 1 and 0."""
        generator = torch.Generator().manual_seed(context.seed)
        for weights in cast("list[BottleneckWeights]", list(self.adapters.values())):
            if self.config.init == "linear":
                weights.start_linear(generator)
            else:
                weights.start_normal(self.config.init_std, generator)
        for norm in self.post_norms.values():
            cast(nn.LayerNorm, norm).reset_parameters()

    def param_groups(self, own: Mapping[str, nn.Parameter]) -> list[ParamGroup]:
        """Returns ``adapters``, and ``norms`` where the backbone's train."""
        ours = (*self.adapters.parameters(), *self.post_norms.parameters())
        groups = [ParamGroup("adapters", ours, self.config.lr)]
        if own:
            groups.append(ParamGroup("norms", tuple(own.values()), self.config.lr))
        return groups

    def facts(self) -> dict[str, Fact]:
        """Returns the width of the bottleneck and how many places have one."""
        return {"width": self._width, "sites": len(self.adapters)}
