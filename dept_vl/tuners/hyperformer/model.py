"""The computation of HyperFormer++."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import cast

import torch
from torch import Tensor, nn

from dept_vl.tuners.base import Fact, ParamGroup, Tuner
from dept_vl.tuners.context import TunerContext
from dept_vl.tuners.forward_info import ForwardInfo
from dept_vl.tuners.hyperformer.config import HyperFormerConfig
from dept_vl.tuners.hyperformer.hypernetwork import PARTS, GeneratedAdapter, HyperNetwork
from dept_vl.tuners.layers.bottleneck import ACTIVATIONS, Activation, Bottleneck
from dept_vl.tuners.places.hooks import SiteHook
from dept_vl.tuners.places.sites import Site


class _GeneratedHook(SiteHook):
    def __init__(self, network: HyperNetwork, site: Site, activation: Activation) -> None:
        self._network = network
        self._place = (site.layer, site.part)
        self._activation = activation

    def __call__(self, inputs: Tensor, output: Tensor, info: ForwardInfo) -> Tensor:
        made: GeneratedAdapter = info.records[self._network][self._place]
        adapter = made.bottleneck
        rows = [adapter.down, adapter.down_bias, adapter.up, adapter.up_bias, made.scale, made.shift]
        *matrices, scale, shift = (_of_rows(each, info) for each in rows)
        change = Bottleneck(*matrices)(output, self._activation)
        normed = nn.functional.layer_norm(change, change.shape[-1:])
        if scale.dim() == 2:  # each example's own
            scale, shift = (info.for_rows(each, len(output))[:, None] for each in (scale, shift))
        return output + (scale * normed + shift).to(output.dtype)


def _of_rows(made: Tensor, info: ForwardInfo) -> Tensor:
    """Returns what belongs to the only task, for which alone it was made; else each example's own."""
    if info.only_task is not None:
        return made[0]
    assert info.task_ids is not None  # without, there is one task
    return made[info.task_ids.to(made.device)]


class HyperFormer(Tuner):
    """y + LN_{gamma, beta}(U f(D y + b_D) + b_U) behind self-attention and feed-forward, all of it made by a network.

    Karimi Mahabadi et al. 2021, section 2.4, as in ``rabeehk/hyperformer`` (``adapters/adapter_modeling.py``,
    ``AdapterLayersOneHyperNetController``): one network for the encoder and one for the decoder, embeddings of tasks
    shared by both, no adapter behind cross-attention. The adapters of all places are made once a pass, before the
    backbone runs: of the one task, or of all where a batch has several.

    Attributes:
        task_embeddings: (tasks, embedding).
        networks: One `HyperNetwork` a stack, by the stack's name.
    """

    config: HyperFormerConfig

    def __init__(self, config: HyperFormerConfig, context: TunerContext) -> None:
        """Makes a network for every stack.

        Raises:
            ConfigError: The adapters would have no width.
        """
        super().__init__(config, context)
        self.task_embeddings = nn.Parameter(torch.zeros(len(context.tasks), config.embedding_dim))
        sites = [site for site in context.sites if site.part in PARTS]
        depths = {site.stack: 1 + max(each.layer or 0 for each in sites if each.stack == site.stack) for site in sites}
        self.networks = nn.ModuleDict(
            {stack: HyperNetwork(config, depth, context.d_model) for stack, depth in depths.items()}
        )
        activation = ACTIVATIONS[config.non_linearity]
        self._hooks: dict[Site, SiteHook] = {
            site: _GeneratedHook(cast(HyperNetwork, self.networks[site.stack]), site, activation) for site in sites
        }
        self._norms = context.norm_parameters if config.norms else ()
        self._width = config.width_of(context.d_model)

    def embed(self, text_embeds: Tensor, info: ForwardInfo | None = None) -> Tensor:
        """Returns the text as it is, and notes the adapters of the pass for the places where they act.

        Here and not at the first place, because what a block computes may be computed again in the backward pass.
        """
        if info is not None:
            task = info.only_task
            embeddings = self.task_embeddings if task is None else self.task_embeddings[task : task + 1]
            for network in self.networks.values():
                info.records[network] = network(embeddings)
        return text_embeds

    def site_hooks(self) -> Mapping[Site, SiteHook]:
        """Returns the adapters."""
        return self._hooks

    def trained_backbone_parameters(self, names: Collection[str]) -> Collection[str]:
        """Returns the backbone's norms, with ``norms: true``."""
        return self._norms

    @torch.no_grad()
    def reset_parameters(self, context: TunerContext) -> None:
        """Draws the embeddings of tasks from N(0, 1), then what each network starts with."""
        generator = torch.Generator().manual_seed(context.seed)
        self.task_embeddings.copy_(torch.randn(self.task_embeddings.shape, generator=generator))
        for network in self.networks.values():
            cast(HyperNetwork, network).reset_parameters(self.config.init_std, generator)

    def param_groups(self, own: Mapping[str, nn.Parameter]) -> list[ParamGroup]:
        """Returns ``hypernetworks``, and ``norms`` where the backbone's train."""
        groups = [ParamGroup("hypernetworks", (self.task_embeddings, *self.networks.parameters()), self.config.lr)]
        if own:
            groups.append(ParamGroup("norms", tuple(own.values()), self.config.lr))
        return groups

    def facts(self) -> dict[str, Fact]:
        """Returns the width of the adapters, how many places have one, and the tasks."""
        return {"width": self._width, "sites": len(self._hooks), "tasks": len(self.task_embeddings)}
