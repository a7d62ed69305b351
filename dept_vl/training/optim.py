"""Named parameter groups to an optimiser, and the learning rate of every step.

The schedule is a function of the step, so that a resumed run needs no scheduler state.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from dept_vl.errors import ConfigError
from dept_vl.settings.schema import OptimConfig
from dept_vl.tuners.base import ParamGroup
from dept_vl.tuners.rates import rate_number


def build_optimizer(
    model: nn.Module,
    groups: Sequence[ParamGroup],
    config: OptimConfig,
    embedding_size: Callable[[], float] | None = None,
) -> Optimizer:
    """Returns the optimiser over named groups, each with its own peak rate.

    Args:
        model: Every tensor of it that requires a gradient must be in exactly one group.
        groups: One without a rate of its own, the visual projection, has ``projection_lr``; one without a weight decay
            of its own has that of the settings, its biases none with ``weight_decay_on: not-biases``.
        config: Which optimiser, and the rest of it.
        embedding_size: Returns the root mean square of the word embeddings; asked where a group's rate is a multiple.

    Raises:
        ConfigError: A trainable tensor is in no group or in several.
    """
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    seen: dict[int, str] = {}
    param_groups: list[dict[str, Any]] = []
    for group in groups:
        for parameter in group.parameters:
            if id(parameter) in seen:
                name = names.get(id(parameter), "?")
                raise ConfigError(
                    f"trainable tensor {name!r} is in two groups: {seen[id(parameter)]!r} and {group.name!r}"
                )
            seen[id(parameter)] = group.name
        for part, number, size in _by_rate(group, config, embedding_size):
            for parameters, decay in _by_decay(part, config, names):
                # A step takes rate x decay of a tensor, which must not depend on the size of anything.
                own = {"lr": number * size, "peak_lr": number * size, "weight_decay": decay / size}
                param_groups.append({"params": parameters, "name": group.name, **own})
    leftover = [
        name for name, parameter in model.named_parameters() if parameter.requires_grad and id(parameter) not in seen
    ]
    if leftover:
        raise ConfigError(f"trainable tensors in no parameter group: {', '.join(leftover)}")
    if config.name != "adamw":
        return _other(config.name)(param_groups, config)
    betas = (config.beta1, config.beta2)
    return torch.optim.AdamW(param_groups, betas=betas, eps=config.eps, weight_decay=config.weight_decay)


def _other(name: str) -> Any:
    """Returns the class of an optimiser, each in a module of its own: libraries that not everybody has."""
    if name == "adafactor":
        from dept_vl.training.adafactor import Adafactor  # transformers imports peft for it, where that is installed

        return Adafactor
    if name == "prodigy":
        from dept_vl.training.prodigy import Prodigy

        return Prodigy
    from dept_vl.training.schedule_free import ScheduleFree

    return ScheduleFree


def _by_rate(
    group: ParamGroup, config: OptimConfig, embedding_size: Callable[[], float] | None
) -> Iterator[tuple[ParamGroup, float, float]]:
    """Yields a group's tensors with the number and the unit of their peak rate, those without a size apart."""
    rate = config.projection_lr if group.lr is None else group.lr
    if not isinstance(rate, str):
        yield group, rate, 1.0
        return
    assert embedding_size is not None  # a method whose rate may be a multiple is trained on a backbone
    if group.unsized:
        yield replace(group, parameters=group.unsized), rate_number(rate), 1.0
    unsized = {id(parameter) for parameter in group.unsized}
    sized = tuple(parameter for parameter in group.parameters if id(parameter) not in unsized)
    yield replace(group, parameters=sized), rate_number(rate), embedding_size()


def _by_decay(
    group: ParamGroup, config: OptimConfig, names: Mapping[int, str]
) -> list[tuple[list[nn.Parameter], float]]:
    """Returns a group's tensors with their weight decay, the biases apart where they have none."""
    parameters = list(group.parameters)
    if group.weight_decay is not None:
        return [(parameters, group.weight_decay)]
    if config.weight_decay_on == "all":
        return [(parameters, config.weight_decay)]
    is_bias = {id(p): "bias" in names.get(id(p), "") for p in parameters}
    parts = [
        ([p for p in parameters if not is_bias[id(p)]], config.weight_decay),
        ([p for p in parameters if is_bias[id(p)]], 0.0),
    ]
    return [(tensors, decay) for tensors, decay in parts if tensors]


def moment_shapes(optimizer: Optimizer, parameter: nn.Parameter) -> dict[str, tuple[int, ...]]:
    """Returns what the optimiser keeps of a tensor once it had a gradient: name -> shape, ``()`` for a number."""
    shape = tuple(parameter.shape)
    if isinstance(optimizer, torch.optim.AdamW):
        return {"step": (), "exp_avg": shape, "exp_avg_sq": shape}
    found: dict[str, tuple[int, ...]] = optimizer.moment_shapes(shape)  # type: ignore[attr-defined]  # all of `_other`
    return found


def kept_numbers(optimizer: Optimizer) -> list[dict[str, float]]:
    """Returns what each group of the optimiser knows beside the moments of its tensors, by name."""
    names = getattr(optimizer, "kept_numbers", ())
    return [{name: group[name] for name in names} for group in optimizer.param_groups] if names else []


def averaged(optimizer: Optimizer) -> AbstractContextManager[Any]:
    """Has in the trained tensors, within the block, the values that are evaluated and saved."""
    block: AbstractContextManager[Any] = getattr(optimizer, "averaged", nullcontext)()
    return block


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
    if config.schedule == "constant" or config.name == "schedule-free":
        return 1.0
    progress = (step - warmup) / max(1, max_steps - warmup)
    if config.schedule == "cosine":
        return 0.5 * (1.0 + math.cos(math.pi * progress))
    return 1.0 - progress


def set_learning_rates(optimizer: Optimizer, factor: float) -> dict[str, float]:
    """Sets every group to `factor` times its peak rate and returns the rates by group name, Prodigy's with its d."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * factor
    return {group["name"]: group["lr"] * group.get("d", 1.0) for group in optimizer.param_groups}
