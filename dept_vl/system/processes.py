"""This process's place in a launch by torchrun or ``accelerate launch``, and its device."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

import torch
from accelerate import PartialState
from torch import distributed, nn

from dept_vl.errors import ConfigError, first_line


def process_state() -> PartialState:
    """Returns rank, world size and device.

    accelerate ignores a launch of several processes on a machine without an accelerator unless told to use the CPU:
    each process would then believe it was alone, and all would write the same files.
    """
    return PartialState(cpu=not torch.accelerator.is_available())


def choose_device(device: str | torch.device | None) -> torch.device:
    """Returns a device that is there; None for this process's own.

    Raises:
        ConfigError: It is not.
    """
    if device is None:
        return process_state().device
    try:
        return torch.empty(0, device=device).device
    except Exception as error:  # each kind of device has errors of its own
        raise ConfigError(f"device: {device!r} cannot be used here: {first_line(error)}") from error


def agree_on_largest(values: Sequence[int]) -> list[int]:
    """Returns each value's maximum over the processes of the launch; alone, the values themselves.

    Goes through the CPU, so that no process waits for its accelerator: tens of microseconds on one machine.
    """
    return _agree(values, "MAX")


def sum_over_processes(values: Sequence[int]) -> list[int]:
    """Returns each value's sum over the processes of the launch, through the CPU; alone, the values themselves."""
    return _agree(values, "SUM")


def all_reduce_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Gives every process of the launch the sum of all processes' gradients; alone, changes nothing.

    The trainable tensors are few, so one exchange at the end of a step, after every accumulated pass, is all there is;
    a backbone without gradients has nothing that could be exchanged earlier. A tensor that some processes did not touch
    counts as zeros there; one that none of them touched stays without a gradient, as it would in one process.
    """
    if process_state().num_processes == 1:
        return
    given = list(parameters)
    is_touched = agree_on_largest([int(parameter.grad is not None) for parameter in given])
    touched = [parameter for parameter, flag in zip(given, is_touched, strict=True) if flag]
    if not touched:
        return
    for parameter in touched:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    together = torch.cat([parameter.grad.flatten() for parameter in touched if parameter.grad is not None])
    distributed.all_reduce(together)
    for parameter, total in zip(touched, together.split([p.numel() for p in touched]), strict=True):
        assert parameter.grad is not None  # set above
        parameter.grad.copy_(total.view_as(parameter))


def leave_launch() -> None:
    """Ends this process's part in a launch of several; alone, does nothing.

    Threads of gloo that outlive the interpreter now and then abort a process whose work is done (SIGABRT), and the
    launcher then reports a failure.
    """
    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


def _agree(values: Sequence[int], operation: str) -> list[int]:
    if process_state().num_processes == 1:
        return list(values)
    agreed = torch.tensor(values)
    distributed.all_reduce(agreed, getattr(distributed.ReduceOp, operation), group=_cpu_group())
    return [int(value) for value in agreed]


@cache
def _cpu_group() -> Any:
    """Returns a group for tensors of the CPU: the default one if it takes them, else one of its own."""
    return None if distributed.get_backend() == "gloo" else distributed.new_group(backend="gloo")
