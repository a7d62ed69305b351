"""The computation of (IA)3."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from dept_vl.tuners.base import Fact, ParamGroup, Tuner
from dept_vl.tuners.context import TunerContext
from dept_vl.tuners.forward_info import ForwardInfo
from dept_vl.tuners.ia3.config import Ia3Config
from dept_vl.tuners.places.hooks import LinearMap, NarrowMap, SiteHook
from dept_vl.tuners.places.sites import Site

_SCALED = ("self_attn.k", "self_attn.v", "cross_attn.k", "cross_attn.v")
_HIDDEN = "ff.out"
"""Where the feed-forward's hidden units go in."""


class _ScaledOutput(SiteHook):
    """l * (W x + b)."""

    def __init__(self, scale: nn.Parameter) -> None:
        self._scale = scale

    @property
    def acts_by_token(self) -> bool:
        """See `SiteHook`."""
        return True

    def __call__(self, inputs: Tensor, output: Tensor, info: ForwardInfo) -> Tensor:
        return output * self._scale.to(output.dtype)

    def fold(self, linear: LinearMap) -> LinearMap:
        """Returns the map with its rows scaled."""
        scale = self._scale.to(linear.weight.dtype)
        return LinearMap(
            linear.weight * scale[:, None],
            None if linear.bias is None else linear.bias * scale,
            tuple(replace(each, expand=each.expand * scale[:, None]) for each in linear.narrow),
        )


class _ScaledInput(SiteHook):
    """W (l * x) + b."""

    acts_before = True

    def __init__(self, scale: nn.Parameter) -> None:
        self._scale = scale

    @property
    def acts_by_token(self) -> bool:
        """See `SiteHook`."""
        return True

    def before(self, inputs: Tensor, info: ForwardInfo) -> Tensor:
        return inputs * self._scale.to(inputs.dtype)

    def __call__(self, inputs: Tensor, output: Tensor, info: ForwardInfo) -> None:
        """Leaves what comes out."""

    def fold(self, linear: LinearMap) -> LinearMap:
        """Returns the map with its columns scaled."""
        narrow = tuple(self._narrow(each) for each in linear.narrow)
        return replace(linear, weight=linear.weight * self._scale.to(linear.weight.dtype), narrow=narrow)

    def _narrow(self, each: NarrowMap) -> NarrowMap:
        return replace(each, reduce=lambda inputs: each.reduce(inputs * self._scale.to(inputs.dtype)))


class Ia3(Tuner):
    """k <- l_k * k and v <- l_v * v in every attention, and h <- l_ff * h between the feed-forward's two maps.

    Liu et al. 2022, section 3.3. The authors' code scales what comes out of T5 v1.1's ``wi_1``, which is linear in h;
    here, as in PEFT, the input of the map after it is scaled: the same numbers, and with ReLU or GELU too.

    Attributes:
        scales: One vector a place, by the place's name; ones at the start.
    """

    config: Ia3Config

    def __init__(self, config: Ia3Config, context: TunerContext) -> None:
        """Makes a vector for every place."""
        super().__init__(config, context)
        self.scales = nn.ParameterDict()
        self._hooks: dict[Site, SiteHook] = {}
        for site, shape in context.sites.items():
            if site.part in _SCALED:
                self.scales[site.key] = nn.Parameter(torch.ones(shape.outputs))
                self._hooks[site] = _ScaledOutput(self.scales[site.key])
            elif site.part == _HIDDEN and config.feed_forward:
                self.scales[site.key] = nn.Parameter(torch.ones(shape.inputs))
                self._hooks[site] = _ScaledInput(self.scales[site.key])

    def site_hooks(self) -> Mapping[Site, SiteHook]:
        """Returns what scales."""
        return self._hooks

    @torch.no_grad()
    def reset_parameters(self, context: TunerContext) -> None:
        """Sets every vector to ones: the model is the frozen one exactly."""
        for scale in self.scales.values():
            scale.fill_(1.0)

    def param_groups(self, own: Mapping[str, nn.Parameter]) -> list[ParamGroup]:
        """Returns the one group ``scales``."""
        return [ParamGroup("scales", tuple(self.scales.values()), self.config.lr)]

    def facts(self) -> dict[str, Fact]:
        """Returns how many vectors there are."""
        return {"vectors": len(self.scales)}
