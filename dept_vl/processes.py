"""This process's place in a launch by torchrun or ``accelerate launch``, and its device."""

from __future__ import annotations

import torch
from accelerate import PartialState


def process_state() -> PartialState:
    """Returns rank, world size and device.

    accelerate ignores a launch of several processes on a machine without an accelerator unless told to use the CPU:
    each process would then believe it was alone, and all would write the same files.
    """
    return PartialState(cpu=not torch.accelerator.is_available())
