"""Learning from another prompt of the same backbone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from dept_vl.tuners.forward_info import ForwardInfo


@dataclass(frozen=True)
class Teacher:
    """What the model answers with another input for the same rows, and how much that counts.

    While training, ``weight`` times the distance of answers and hidden states is added to each example's loss
    (`dept_vl.models.distillation`).

    Attributes:
        embed: The teacher's input, as `Tuner.embed` returns it and as long: called without gradients and dropout.
        weight: Of the distance; the loss of the labels has 1.
    """

    embed: Callable[[Tensor, ForwardInfo], Tensor]
    weight: float
