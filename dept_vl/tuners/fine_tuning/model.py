"""Full fine-tuning as a method like any other."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from torch import nn

from dept_vl.tuners.base import ParamGroup, Tuner
from dept_vl.tuners.context import TunerContext
from dept_vl.tuners.fine_tuning.config import FineTuningConfig


class FineTuning(Tuner):
    """Has no tensors: it asks for all of the backbone's."""

    config: FineTuningConfig

    def trained_backbone_parameters(self, names: Collection[str]) -> Collection[str]:
        """Returns every name."""
        return names

    def reset_parameters(self, context: TunerContext) -> None:
        """Does nothing: it starts from the backbone's own values."""

    def param_groups(self, own: Mapping[str, nn.Parameter]) -> list[ParamGroup]:
        """Returns the one group ``backbone``."""
        return [ParamGroup("backbone", tuple(own.values()), self.config.lr)]
