"""Prodigy: step sizes that are found while training, one a group."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import prodigyopt
import torch
from torch.optim import Optimizer

from dept_vl.settings.schema import OptimConfig


class Prodigy(Optimizer):
    """One Prodigy (Mishchenko & Defazio 2024, arXiv 2306.06101; its authors' prodigyopt) a group.

    A prompt and a low-rank pair want step sizes far apart, and the library's finds one for all that it is given. The
    schedule multiplies it; bias correction and the guard of the warm-up are on, as its README advises.
    """

    kept_numbers: ClassVar[tuple[str, ...]] = ("d", "d_max", "d_numerator", "k")
    """What a group knows beside its tensors' moments: the step size found, its bound and estimate, and the steps."""

    def __init__(self, param_groups: list[dict[str, Any]], config: OptimConfig) -> None:
        """Takes groups with their weight decays; their rates become 1."""
        for group in param_groups:
            group["lr"] = group["peak_lr"] = 1.0
        super().__init__(param_groups, {})
        names = dict.fromkeys(group["name"] for group in self.param_groups)
        self._parts = [
            prodigyopt.Prodigy(
                [group for group in self.param_groups if group["name"] == name],
                betas=(config.beta1, config.beta2),
                eps=config.eps,
                use_bias_correction=True,
                safeguard_warmup=True,
            )
            for name in names
        ]
        for part in self._parts:
            part.state = self.state

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]  # no closures here
        """Updates every group."""
        for part in self._parts:
            part.step()
        for state in self.state.values():
            if state["p0"].dim() == 0:  # of a tensor that starts at zero; a checkpoint has one shape for all
                state["p0"] = torch.zeros_like(state["s"])

    @staticmethod
    def moment_shapes(shape: Sequence[int]) -> dict[str, tuple[int, ...]]:
        """Returns what is kept of a tensor of a shape; see `dept_vl.training.optim.moment_shapes`."""
        flat = (torch.Size(shape).numel(),)
        return {"step": (), "s": flat, "p0": flat, "exp_avg": tuple(shape), "exp_avg_sq": tuple(shape)}
