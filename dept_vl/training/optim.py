"""Named parameter groups to an optimiser, and the learning rate of every step.

The schedule is a function of the step, so that a resumed run needs no scheduler state.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn

from dept_vl.errors import ConfigError
from dept_vl.settings.schema import OptimConfig
from dept_vl.tuners.base import ParamGroup


def build_optimizer(model: nn.Module, groups: Sequence[ParamGroup], config: OptimConfig) -> torch.optim.AdamW:
    """Returns AdamW over named groups, each with its own peak rate.

    Args:
        model: Every tensor of it that requires a gradient must be in exactly one group.
        groups: One without a rate of its own, the visual projection, has ``projection_lr``.
        config: The rest of AdamW.

    Raises:
        ConfigError: A trainable tensor is in no group or in several.
    """
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    seen: dict[int, str] = {}
    param_groups = []
    for group in groups:
        for parameter in group.parameters:
            if id(parameter) in seen:
                name = names.get(id(parameter), "?")
                raise ConfigError(
                    f"trainable tensor {name!r} is in two groups: {seen[id(parameter)]!r} and {group.name!r}"
                )
            seen[id(parameter)] = group.name
        rate = config.projection_lr if group.lr is None else group.lr
        decay = config.weight_decay if group.weight_decay is None else group.weight_decay
        param_groups.append(
            {"params": list(group.parameters), "name": group.name, "lr": rate, "peak_lr": rate, "weight_decay": decay}
        )
    leftover = [
        name for name, parameter in model.named_parameters() if parameter.requires_grad and id(parameter) not in seen
    ]
    if leftover:
        raise ConfigError(f"trainable tensors in no parameter group: {', '.join(leftover)}")
    return torch.optim.AdamW(
        param_groups, betas=(config.beta1, config.beta2), eps=config.eps, weight_decay=config.weight_decay
    )


def schedule_factor(step: int, max_steps: int, config: OptimConfig) -> float:
    """Returns the share of the peak rate at optimiser step `step` (from 0): warm-up, then decay to 0 at `max_steps`.

    Warm-up is ``warmup_steps``, or ``ceil(warmup_proportion * max_steps)`` (Table 10: 0.06, linear). Its first step has
    a rate above 0; with ``warmup: transformers`` it has none, as in ``get_linear_schedule_with_warmup`` of transformers
    (``optimization.py``), with which the released code and Sung et al. train. After the warm-up the two are the same.
    """
    warmup = config.warmup_steps
    if warmup is None:
        warmup = math.ceil(config.warmup_proportion * max_steps)
    if step < warmup:
        return step / warmup if config.warmup == "transformers" else (step + 1) / (warmup + 1)
    if config.schedule == "constant":
        return 1.0
    progress = (step - warmup) / max(1, max_steps - warmup)
    if config.schedule == "cosine":
        return 0.5 * (1.0 + math.cos(math.pi * progress))
    return 1.0 - progress


def set_learning_rates(optimizer: torch.optim.Optimizer, factor: float) -> dict[str, float]:
    """Sets every group to `factor` times its peak rate and returns the rates by group name."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * factor
    return {group["name"]: group["lr"] for group in optimizer.param_groups}
