"""A method without some of its parts, and one that does nothing."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from copy import deepcopy

from torch import nn

from dept_vl.tuners.base import ParamGroup, Tuner
from dept_vl.tuners.context import TunerContext


class Inactive(Tuner):
    """Does nothing: the model is the frozen one."""

    def __init__(self, tuner: Tuner) -> None:
        """Stands in the place of another tuner."""
        nn.Module.__init__(self)
        self.config = tuner.config
        self.max_source_length = tuner.max_source_length

    def param_groups(self, own: Mapping[str, nn.Parameter]) -> list[ParamGroup]:
        """Returns none."""
        return []

    def reset_parameters(self, context: TunerContext) -> None:
        """Has nothing to set."""


def without_groups(tuner: Tuner, groups: Collection[str]) -> Tuner:
    """Returns what `Tuner.without` does for a method that says nothing else."""
    gone = {id(p) for group in tuner.param_groups({}) if group.name in groups for p in group.parameters}
    names = {name: p for name, p in tuner.named_parameters() if id(p) in gone}
    if all(id(p) in gone for p in tuner.parameters() if p.requires_grad):
        return Inactive(tuner)
    left, prompt = deepcopy(tuner), tuner.prompt()
    for name, parameter in names.items():
        if parameter is prompt:
            setattr(left, name, None)
            left.num_virtual_tokens -= len(parameter)
        else:
            left.get_parameter(name).detach().zero_()
    return left
