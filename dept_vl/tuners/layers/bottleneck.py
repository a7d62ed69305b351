"""Two linear maps with a non-linearity between them: U f(D x + b_D) + b_U."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from dept_vl.tuners.forward_info import ForwardInfo
from dept_vl.tuners.layers.bottleneck_config import NonLinearity

Activation = Callable[[Tensor], Tensor]

ACTIVATIONS: Mapping[NonLinearity, Activation] = {
    "gelu_new": partial(nn.functional.gelu, approximate="tanh"),
    "gelu": nn.functional.gelu,
    "relu": nn.functional.relu,
    "swish": nn.functional.silu,
    "tanh": torch.tanh,
}


@dataclass(frozen=True)
class Bottleneck:
    """The tensors of one for all rows, or, with an axis before those named here, of one for each example.

    Attributes:
        down: D, (width, inputs).
        down_bias: b_D, (width,).
        up: U, (outputs, width).
        up_bias: b_U, (outputs,).
    """

    down: Tensor
    down_bias: Tensor
    up: Tensor
    up_bias: Tensor

    def __call__(self, inputs: Tensor, activation: Activation) -> Tensor:
        """Returns U f(D x + b_D) + b_U in the precision of its tensors, (rows, tokens, outputs).

        Args:
            inputs: (rows, tokens, inputs); of one for each example, that many rows or, in beam search, several
                times as many, those of one example one after the other.
            activation: f.
        """
        inputs = inputs.to(self.down.dtype)
        if self.down.dim() == 2:
            narrow = activation(nn.functional.linear(inputs, self.down, self.down_bias))
            return nn.functional.linear(narrow, self.up, self.up_bias)
        by_example = inputs.reshape(len(self.down), -1, inputs.shape[-1])  # (examples, beams x tokens, inputs)
        narrow = activation(torch.baddbmm(self.down_bias[:, None], by_example, self.down.mT))
        outputs = torch.baddbmm(self.up_bias[:, None], narrow, self.up.mT)
        return outputs.reshape(*inputs.shape[:-1], -1)


def of_each_row(by_task: Tensor, info: ForwardInfo) -> Tensor:
    """Returns what belongs to the tasks of a batch.

    Taking each example's own copy and multiplying in one batch was faster on a CPU than one multiplication a task, or
    one over all tasks side by side; where all rows have one task nothing is copied.

    Args:
        by_task: (tasks, ...).
        info: The forward pass.

    Returns:
        (...) where all rows have one task, else (examples, ...).
    """
    if (task := info.only_task) is not None:
        return by_task[task]
    assert info.task_ids is not None  # without, there is one task
    return by_task[info.task_ids.to(by_task.device)]


class BottleneckWeights(nn.Module):
    """The trainable tensors of a `Bottleneck`, of one or of one a task.

    Attributes:
        down: (width, inputs), as the others with tasks before it where each has its own.
        down_bias: (width,).
        up: (outputs, width).
        up_bias: (outputs,).
        has_tasks: Whether each task has its own.
    """

    def __init__(self, inputs: int, width: int, outputs: int, num_tasks: int | None = None) -> None:
        """Makes tensors of the right shapes; one of the methods that start it sets their values.

        Args:
            inputs: Width of what goes in.
            width: Of the bottleneck.
            outputs: Width of what comes out.
            num_tasks: How many there are, one a task; None for one that all tasks share.
        """
        super().__init__()
        tasks = () if num_tasks is None else (num_tasks,)
        self.has_tasks = num_tasks is not None
        self.down = nn.Parameter(torch.zeros(*tasks, width, inputs))
        self.down_bias = nn.Parameter(torch.zeros(*tasks, width))
        self.up = nn.Parameter(torch.zeros(*tasks, outputs, width))
        self.up_bias = nn.Parameter(torch.zeros(*tasks, outputs))

    @torch.no_grad()
    def start_normal(self, std: float, generator: torch.Generator) -> None:
        """Draws the matrices from N(0, std^2) and sets the biases to zero."""
        for matrix, bias in ((self.down, self.down_bias), (self.up, self.up_bias)):
            matrix.copy_(torch.randn(matrix.shape, generator=generator) * std)
            bias.zero_()

    @torch.no_grad()
    def start_xavier(self, gain: float, generator: torch.Generator) -> None:
        """Draws the matrices uniform within gain sqrt(6 / (inputs + outputs)) and sets the biases to zero."""
        for matrix, bias in ((self.down, self.down_bias), (self.up, self.up_bias)):
            bound = gain * math.sqrt(6 / sum(matrix.shape[-2:]))
            matrix.copy_(_uniform(matrix, bound, generator))
            bias.zero_()

    @torch.no_grad()
    def start_linear(self, generator: torch.Generator) -> None:
        """Draws matrices and biases as ``nn.Linear`` does: uniform within 1 / sqrt(inputs of the map)."""
        for matrix, bias in ((self.down, self.down_bias), (self.up, self.up_bias)):
            for tensor in (matrix, bias):
                tensor.copy_(_uniform(tensor, 1 / math.sqrt(matrix.shape[-1]), generator))

    def of(self, info: ForwardInfo) -> Bottleneck:
        """Returns the one that acts on the rows of a pass, or each example's own."""
        if not self.has_tasks:
            return Bottleneck(self.down, self.down_bias, self.up, self.up_bias)
        return Bottleneck(*(of_each_row(each, info) for each in (self.down, self.down_bias, self.up, self.up_bias)))


def _uniform(like: Tensor, bound: float, generator: torch.Generator) -> Tensor:
    return (2 * torch.rand(like.shape, generator=generator) - 1) * bound
