"""Prompts of trained runs that a method builds on."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dept_vl.errors import CheckpointError, ConfigError
from dept_vl.strict import MAX_SIZE
from dept_vl.tuners.context import TunerContext


def read_prompts(setting: str, names: Sequence[str], context: TunerContext, num_virtual_tokens: int) -> Tensor | None:
    """Returns the prompts of some runs, (runs, num_virtual_tokens, d_model) float32 on the CPU.

    Args:
        setting: The setting that names the runs, for messages.
        names: Folders or hub ids.
        context: How they are read.
        num_virtual_tokens: The length that each must have.

    Returns:
        None where there are none to read: the setting names none, or the values are loaded after.

    Raises:
        CheckpointError: As `TunerContext.read_prompt`, or a prompt is of another length; the setting is named.
    """
    if context.read_prompt is None or not names:
        return None
    prompts = []
    for name in names:
        try:
            prompts.append(context.read_prompt(name))
        except CheckpointError as error:
            raise CheckpointError(f"{setting}: {error}") from None
        if len(prompts[-1]) != num_virtual_tokens:
            raise CheckpointError(
                f"{setting}: {name}: its prompt has {len(prompts[-1])} tokens, this run's "
                f"{num_virtual_tokens}; set tuner.num_virtual_tokens={len(prompts[-1])}, or train the sources at "
                f"{num_virtual_tokens}"
            )
    return torch.stack(prompts)


def check_size(num_prompts: int, num_virtual_tokens: int) -> None:
    """Refuses more prompt vectors than any method needs, before they are made: a slip, or a file of a stranger's.

    Raises:
        ConfigError: All prompts together have more than `MAX_SIZE` tokens.
    """
    if num_prompts * num_virtual_tokens > MAX_SIZE:
        raise ConfigError(
            f"tuner.num_virtual_tokens: {num_prompts:,} prompts of {num_virtual_tokens:,} tokens (of tasks, sources "
            f"and teachers) are more than {MAX_SIZE:,} vectors; take shorter ones"
        )


def last_names(names: Sequence[str]) -> tuple[str, ...]:
    """Returns the last part of each name or path: what an adapter says of the runs, without a path of this machine."""
    return tuple(name.replace("\\", "/").rstrip("/").rsplit("/", 1)[-1] for name in names)
