"""How many parameters a model trains, by group, and their share of the whole."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import nn

from dept_vl.tuners.dept.budget import Budget


@dataclass(frozen=True)
class ParameterBudget:
    """The parameters of a model.

    Attributes:
        groups: Trainable parameters by group: ``soft_prompt``, ``lowrank``, ``visual_projection``.
        frozen: Frozen parameters, a matrix that is used twice counted once. CLIP is not part of the model and not
            counted, as in the paper's Table 3.
        tuner: m, r, s, d and l of the tuner.
    """

    groups: Mapping[str, int]
    frozen: int
    tuner: Budget

    @property
    def trainable(self) -> int:
        """Trainable parameters."""
        return sum(self.groups.values())

    @property
    def total(self) -> int:
        """Trainable and frozen parameters."""
        return self.trainable + self.frozen

    @property
    def share(self) -> float:
        """Trainable over all parameters, between 0 and 1."""
        return self.trainable / self.total

    @property
    def share_of_backbone(self) -> float:
        """Trainable over frozen parameters, between 0 and 1: the paper's Table 3 in percent.

        1,650,432 / 222,903,552 = 0.7404 %, the 0.74 % printed there for T5-base; of all parameters, the trainable ones
        included, it is 0.7350 %.
        """
        return self.trainable / self.frozen


def count_parameters(model: nn.Module, groups: Mapping[str, Iterable[nn.Parameter]], tuner: Budget) -> ParameterBudget:
    """Counts the parameters of a model; works on the meta device."""
    counted = {name: sum(p.numel() for p in parameters) for name, parameters in groups.items()}
    frozen = sum(p.numel() for p in model.parameters() if not p.requires_grad)
    return ParameterBudget(counted, frozen, tuner)
