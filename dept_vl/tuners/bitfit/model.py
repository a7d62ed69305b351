"""The computation of BitFit."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from torch import nn

from dept_vl.tuners.base import Fact, ParamGroup, Tuner
from dept_vl.tuners.bitfit.config import BitFitConfig
from dept_vl.tuners.context import TunerContext
from dept_vl.tuners.places.added_biases import AddedBiases
from dept_vl.tuners.places.hooks import SiteHook
from dept_vl.tuners.places.sites import Site


class BitFit(Tuner):
    """Only biases train (Ben Zaken et al. 2022); see `AddedBiases` for which.

    Attributes:
        biases: The added ones.
    """

    config: BitFitConfig

    def __init__(self, config: BitFitConfig, context: TunerContext) -> None:
        """Makes the biases that the backbone lacks, at zero."""
        super().__init__(config, context)
        self.biases = AddedBiases(context)
        self._hooks = self.biases.hooks()

    def site_hooks(self) -> Mapping[Site, SiteHook]:
        """Returns what adds the biases."""
        return self._hooks

    def trained_backbone_parameters(self, names: Collection[str]) -> Collection[str]:
        """Returns the backbone's own biases, where it has any."""
        return self.biases.own

    def reset_parameters(self, context: TunerContext) -> None:
        """Sets added biases to zero: the model is the frozen one exactly."""
        self.biases.reset_parameters()

    def param_groups(self, own: Mapping[str, nn.Parameter]) -> list[ParamGroup]:
        """Returns the one group ``biases``."""
        return [ParamGroup("biases", (*self.biases.parameters(), *own.values()), self.config.lr)]

    def facts(self) -> dict[str, Fact]:
        """Returns how many biases there are, the backbone's own or added."""
        return {"biases": len(self.biases.own) or len(self._hooks)}
