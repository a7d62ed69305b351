"""The optimiser that both parts of the demo backbone are trained with."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

_SMALLEST_SCALE = 1e-2


def build_optimizer(
    model: nn.Module, *, relative_lr: float, vector_lr: float, num_steps: int, warmup_steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """Builds Adam with every matrix's rate in proportion to its first scale, as Adafactor does in T5's own recipe.

    A T5's matrices start at scales from 0.01 (queries) to 1 (word embeddings), a CLIP's from 0.01 (patch embedding) up:
    with one rate for all of them, some hardly move and others are noise.

    Args:
        model: Its parameters are trained, all of them.
        relative_lr: Peak rate of a matrix, times its root mean square at the start (0.01 at least).
        vector_lr: Peak rate of vectors and scalars.
        num_steps: Steps until the rates have decayed to 1 %.
        warmup_steps: Steps of linear warm-up.
    """
    groups = []
    for parameter in model.parameters():
        scale = max(parameter.detach().square().mean().sqrt().item(), _SMALLEST_SCALE)
        groups.append({"params": [parameter], "lr": relative_lr * scale if parameter.ndim > 1 else vector_lr})
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate_at(step, num_steps, warmup_steps))
    return optimizer, schedule


def take_step(
    model: nn.Module,
    loss: Tensor,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
) -> None:
    """Back-propagates, clips the gradient to norm 1 and moves the parameters and the rates one step."""
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    schedule.step()


def rate_at(step: int, num_steps: int, warmup_steps: int) -> float:
    """The share of the peak rate at `step`: linear warm-up, then cosine decay to 1 %."""
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, num_steps - warmup_steps)
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
