"""The computation of prefix tuning."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from dept_vl.tuners.base import Fact, ParamGroup, Tuner
from dept_vl.tuners.context import TunerContext
from dept_vl.tuners.forward_info import ForwardInfo
from dept_vl.tuners.places.extra_keys import ExtraKeys
from dept_vl.tuners.places.sites import Site
from dept_vl.tuners.prefix_tuning.config import PrefixTuningConfig


class PrefixTuning(Tuner):
    """softmax(q [P_k; K]) [P_v; V] in every attention (Li & Liang 2021, equation 3).

    Attributes:
        prefixes: P_k and P_v of each attention by its name, (2, prefix_length, width of its keys).
    """

    config: PrefixTuningConfig

    def __init__(self, config: PrefixTuningConfig, context: TunerContext) -> None:
        """Makes keys and values for every attention; `reset_parameters` sets them."""
        super().__init__(config, context)
        self._sites: dict[Site, str] = {site: site.key for site in context.attentions}
        self.prefixes = nn.ParameterDict(
            {
                self._sites[site]: nn.Parameter(torch.zeros(2, config.prefix_length, shape.width))
                for site, shape in context.attentions.items()
            }
        )

    def extra_keys(self, info: ForwardInfo) -> Mapping[Site, ExtraKeys]:
        """Returns every attention's, the same for all rows."""
        pairs: dict[Site, Tensor] = {site: self.prefixes[key] for site, key in self._sites.items()}
        return {site: ExtraKeys(pair[:1], pair[1:]) for site, pair in pairs.items()}

    @torch.no_grad()
    def reset_parameters(self, context: TunerContext) -> None:
        """Draws keys and values from a normal distribution, in the order of the attentions."""
        generator = torch.Generator().manual_seed(context.seed)
        for prefix in self.prefixes.values():
            prefix.copy_(torch.randn(prefix.shape, generator=generator) * self.config.init_std)

    def param_groups(self, own: Mapping[str, nn.Parameter]) -> list[ParamGroup]:
        """Returns the one group ``prefixes``."""
        return [ParamGroup("prefixes", tuple(self.prefixes.values()), self.config.lr)]

    def facts(self) -> dict[str, Fact]:
        """Returns the length, and how many attentions read one."""
        return {"l": self.config.prefix_length, "attentions": len(self.prefixes)}
