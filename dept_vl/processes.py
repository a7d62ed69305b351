"""This process's place in a launch by torchrun or ``accelerate launch``, and its device."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from accelerate import PartialState
from torch import distributed


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


@cache
def _cpu_group() -> Any:
    """Returns a group for tensors of the CPU: the default one if it takes them, else one of its own."""
    return None if distributed.get_backend() == "gloo" else distributed.new_group(backend="gloo")
