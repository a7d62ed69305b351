"""This process's place in a launch by torchrun or ``accelerate launch``, and its device."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

import torch
from accelerate import PartialState
from torch import distributed, nn


def process_state() -> PartialState:
    """Returns rank, world size and device.

    accelerate ignores a launch of several processes on a machine without an accelerator unless told to use the CPU:
    each process would then believe it was alone, and all would write the same files.
    """
    return PartialState(cpu=not torch.accelerator.is_available())


def agree_on_largest(values: Sequence[int]) -> list[int]:
    """Returns each value's maximum over the processes of the launch; alone, the values themselves.

    Goes through the CPU, so that no process waits for its accelerator: tens of microseconds on one machine.
    """
    if process_state().num_processes == 1:
        return list(values)
    agreed = torch.tensor(values)
    distributed.all_reduce(agreed, distributed.ReduceOp.MAX, group=_cpu_group())
    return [int(value) for value in agreed]


def add_up_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Gives every process of the launch the sum of all processes' gradients; alone, changes nothing.

    The trainable tensors are few, so one exchange at the end of a step, after every accumulated pass, is all there is;
    a backbone without gradients has nothing that could be exchanged earlier.
    """
    if process_state().num_processes == 1:
        return
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    together = torch.cat([gradient.flatten() for gradient in gradients])
    distributed.all_reduce(together)
    parts = together.split([gradient.numel() for gradient in gradients])
    for gradient, part in zip(gradients, parts, strict=True):
        gradient.copy_(part.view_as(gradient))


def leave_launch() -> None:
    """Ends this process's part in a launch of several; alone, does nothing.

    Threads of gloo that outlive the interpreter now and then abort a process whose work is done (SIGABRT), and the
    launcher then reports a failure.
    """
    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


@cache
def _cpu_group() -> Any:
    """Returns a group for tensors of the CPU: the default one if it takes them, else one of its own."""
    return None if distributed.get_backend() == "gloo" else distributed.new_group(backend="gloo")
