"""Dropout that keeps one byte an element for its backward; on a processor torch's keeps four, and draws slowly.

On a processor 16 random bits an element decide, which takes a fifth of the time of torch's draw; a rate is rounded to a
65,536th, and what is kept is scaled by the rounded one. Elsewhere torch's own kernel draws. ``python -m benchmarks
means`` measures a training step with either.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

_STEPS = 2**16


def dropout(inputs: Tensor, rate: float, is_training: bool) -> Tensor:
    """Returns the inputs; while training, each is zero with probability `rate`, and the others are divided by 1 - rate.

    Args:
        inputs: Of any shape.
        rate: 0 to 1, 1 left out.
        is_training: Whether anything is dropped.
    """
    if not (is_training and rate):
        return inputs
    output: Tensor = _Dropout.apply(inputs, rate, False)
    return output


def dropped_linear(inputs: Tensor, weight: Tensor, rate: float, is_training: bool) -> Tensor:
    """Returns ``linear(dropout(inputs), weight)``, and keeps the inputs themselves, which several maps may share.

    Args:
        inputs: (..., inputs), in any precision.
        weight: (outputs, inputs), whose precision the result has.
        rate: 0 to 1, 1 left out.
        is_training: Whether anything is dropped.
    """
    if not (is_training and rate):
        return nn.functional.linear(inputs.to(weight.dtype), weight)
    output: Tensor = _DroppedLinear.apply(inputs, weight, rate)
    return output


class Dropout(nn.Dropout):
    """torch's module, computed by `dropout`."""

    def forward(self, inputs: Tensor) -> Tensor:
        """Returns as many."""
        return dropout(inputs, self.p, self.training)


class RectifiedDropout(Dropout):
    """``dropout(relu(inputs))``, for which one byte an element is kept: whether it came through both."""

    def forward(self, inputs: Tensor) -> Tensor:
        """Returns as many."""
        if not torch.is_grad_enabled():
            return dropout(nn.functional.relu(inputs), self.p, self.training)
        output: Tensor = _Dropout.apply(inputs, self.p if self.training else 0.0, True)
        return output


def replace_dropout(model: nn.Module) -> None:
    """Puts `Dropout` in the place of every ``torch.nn.Dropout`` in a model, but of one that drops everything."""
    for module in model.modules():
        for name, child in module.named_children():
            if type(child) is nn.Dropout and child.p < 1:
                setattr(module, name, Dropout(child.p).train(child.training))


class _Dropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor, rate: float, is_rectified: bool) -> Tensor:
        kept, ctx.scale = _draw(inputs, rate) if rate else (inputs > 0, 1.0)
        if is_rectified and rate:
            kept &= inputs > 0
        ctx.save_for_backward(kept)
        return _masked(inputs, kept, ctx.scale)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (kept,) = ctx.saved_tensors
        return _masked(gradient, kept, ctx.scale), None, None


class _DroppedLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, rate: float) -> Tensor:
        kept, ctx.scale = _draw(inputs, rate)
        ctx.save_for_backward(inputs, weight, kept)
        return nn.functional.linear(_masked(inputs.to(weight.dtype), kept, ctx.scale), weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        inputs, weight, kept = ctx.saved_tensors
        of_inputs = of_weight = None
        if ctx.needs_input_grad[0]:
            of_inputs = _masked(gradient @ weight.to(gradient.dtype), kept, ctx.scale).to(inputs.dtype)
        if ctx.needs_input_grad[1]:
            dropped = _masked(inputs.to(gradient.dtype), kept, ctx.scale)
            of_weight = (gradient.flatten(0, -2).T @ dropped.flatten(0, -2)).to(weight.dtype)
        return of_inputs, of_weight, None


def _masked(values: Tensor, kept: Tensor, scale: float) -> Tensor:
    masked = values * kept.view(torch.int8)  # torch multiplies by bytes faster than by truth values
    return masked if scale == 1.0 else masked.mul_(scale)


def _draw(like: Tensor, rate: float) -> tuple[Tensor, float]:
    """Returns which elements are kept, one byte each, and by what they are then multiplied."""
    if like.device.type != "cpu":
        return draw_as_torch(like, rate)
    number = like.numel()
    words = torch.empty(-(-number // 4), dtype=torch.int64).random_(-(2**63), None)
    dropped = min(round(rate * _STEPS), _STEPS - 1)
    kept = words.view(torch.int16)[:number] >= dropped - _STEPS // 2
    return kept.view(like.shape), _STEPS / (_STEPS - dropped)


def draw_as_torch(like: Tensor, rate: float) -> tuple[Tensor, float]:
    """Returns the same by torch's own draw, which runs of earlier versions had on a processor too."""
    kept = torch.empty(like.shape, dtype=torch.bool, device=like.device).bernoulli_(1.0 - rate)
    return kept, 1.0 / (1.0 - rate)
