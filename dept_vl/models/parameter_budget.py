"""How many parameters a model trains, by group, and their share of the whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from dept_vl.tuners.base import Fact, ParamGroup


@dataclass(frozen=True)
class ParameterBudget:
    """The parameters of a model, a matrix that is used twice counted once.

    Attributes:
        groups: Trainable parameters by group: ``soft_prompt``, ``lowrank``, ``lora``, ``visual_projection``, ...
        backbone: Parameters of the backbone, whether trained or not. The image encoder is not part of the model and
            not counted, as in the paper's Table 3.
        total: Every parameter of the model.
        facts: What there is to say of the tuner: m, r, s, d and l of DePT, ...
        num_tasks: Tasks that are trained together.
    """

    groups: Mapping[str, int]
    backbone: int
    total: int
    facts: Mapping[str, Fact]
    num_tasks: int = 1

    @property
    def per_task(self) -> float:
        """Trainable parameters over tasks: what the paper's tables count for methods with a dagger or (m)."""
        return self.trainable / self.num_tasks

    @property
    def trainable(self) -> int:
        """Trainable parameters."""
        return sum(self.groups.values())

    @property
    def tuner(self) -> int:
        """Trainable parameters without the visual projection's, or the connector's."""
        return self.trainable - sum(self.groups.get(name, 0) for name in ("visual_projection", "connector"))

    @property
    def share(self) -> float:
        """Trainable over all parameters, between 0 and 1: what the paper's Table 3 counts, after Sung et al.'s code."""
        return self.trainable / self.total


def count_parameters(
    model: nn.Module,
    backbone: nn.Module,
    groups: Sequence[ParamGroup],
    facts: Mapping[str, Fact],
    num_tasks: int = 1,
) -> ParameterBudget:
    """Counts the parameters of a model; works on the meta device."""
    counted = {group.name: sum(p.numel() for p in group.parameters) for group in groups}
    whole, own = (sum(p.numel() for p in module.parameters()) for module in (model, backbone))
    return ParameterBudget(counted, own, whole, dict(facts), num_tasks)
