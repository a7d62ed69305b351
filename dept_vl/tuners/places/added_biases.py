"""A bias at every linear map and norm of a backbone: its own, or an added one that starts at zero."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from dept_vl.tuners.context import TunerContext
from dept_vl.tuners.forward_info import ForwardInfo
from dept_vl.tuners.places.hooks import LinearMap, SiteHook
from dept_vl.tuners.places.sites import Site


class _BiasHook(SiteHook):
    def __init__(self, bias: nn.Parameter) -> None:
        self._bias = bias

    @property
    def acts_by_token(self) -> bool:
        """See `SiteHook`."""
        return True

    def __call__(self, inputs: Tensor, output: Tensor, info: ForwardInfo) -> Tensor:
        return output + self._bias.to(output.dtype)

    def fold(self, linear: LinearMap) -> LinearMap:
        """Returns the same map with the sum of the biases."""
        added = self._bias.to(linear.weight.dtype)
        return replace(linear, bias=added if linear.bias is None else linear.bias + added)


class AddedBiases(nn.Module):
    """The biases that BitFit trains.

    A backbone with biases of its own (GPT-2, Qwen2) has those trained and no others. T5 and Llama have none, so each
    linear map, each norm (after its scale) and ``lm_head`` gets one, as in Sung et al.'s T5
    (``ylsung/Ladder-Side-Tuning``; 282,496 on T5-base). A bias of keys changes nothing, because softmax does not see
    what all keys share; it is there for the count.

    Attributes:
        own: Names of the backbone's own biases; empty where it has none.
        added: Else one for each place, by the place's name.
    """

    def __init__(self, context: TunerContext) -> None:
        """Makes the biases that are added, at zero."""
        super().__init__()
        self.own = tuple(dict.fromkeys(shape.bias for shape in context.sites.values() if shape.bias is not None))
        maps = [site for site, shape in context.sites.items() if shape.weight is not None]
        self._sites = [] if self.own else maps
        self.added = nn.ParameterDict({site.key: torch.zeros(context.sites[site].outputs) for site in self._sites})

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Sets the added ones to zero: the model is the frozen one exactly."""
        for bias in self.added.values():
            bias.zero_()

    def hooks(self) -> dict[Site, SiteHook]:
        """Returns what adds them."""
        return {site: _BiasHook(self.added[site.key]) for site in self._sites}
