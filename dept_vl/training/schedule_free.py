"""Schedule-free AdamW: averages of the weights in place of a decaying rate."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import schedulefree
import torch

from dept_vl.settings.schema import OptimConfig


class ScheduleFree(schedulefree.AdamWScheduleFree):
    """AdamWScheduleFree (Defazio et al. 2024, arXiv 2405.15682; its authors' schedulefree).

    The tensors train at one point and are evaluated and saved at another, the running average (`averaged`).
    """

    kept_numbers: ClassVar[tuple[str, ...]] = ("k", "weight_sum", "lr_max")
    """What a group knows beside its tensors' moments: the steps, the sum of their weights, the largest rate."""

    def __init__(self, param_groups: list[dict[str, Any]], config: OptimConfig) -> None:
        """Takes groups with their rates and weight decays."""
        super().__init__(param_groups, betas=(config.beta1, config.beta2), eps=config.eps)
        self.train()

    def step(self, closure: Callable[[], float] | None = None) -> None:
        """Updates every tensor, and leaves its gradient as it was, which the library overwrites."""
        gradients = {p: p.grad for group in self.param_groups for p in group["params"] if p.grad is not None}
        for parameter, gradient in gradients.items():
            parameter.grad = gradient.clone()
        super().step()
        for parameter, gradient in gradients.items():
            parameter.grad = gradient

    @contextmanager
    @torch.no_grad()
    def averaged(self) -> Iterator[None]:
        """Has the averages in the tensors' place, and puts back the very values after."""
        tensors = [parameter for group in self.param_groups for parameter in group["params"]]
        before = [parameter.detach().clone() for parameter in tensors]
        self.eval()
        try:
            yield
        finally:
            for group in self.param_groups:
                group["train_mode"] = True
            for parameter, value in zip(tensors, before, strict=True):
                parameter.copy_(value)

    @staticmethod
    def moment_shapes(shape: Sequence[int]) -> dict[str, tuple[int, ...]]:
        """Returns what is kept of a tensor of a shape; see `dept_vl.training.optim.moment_shapes`."""
        return {"z": tuple(shape), "exp_avg_sq": tuple(shape)}
