"""Watches every optimiser step for a loss or gradient that is not finite or has exploded.

On a CPU each step is checked before its update. On a GPU that would wait for the device at every step, so losses and
gradient norms stay there, and all steps since the last look are checked together whenever the loop logs, evaluates or
saves: nothing is evaluated or written before. To skip a step the answer is needed before the update, so
``loop.on_nan: skip`` checks each step on a GPU too.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from accelerate.utils import gather_object
from torch import Tensor, nn

from dept_vl.errors import DivergenceError
from dept_vl.settings.schema import LoopConfig
from dept_vl.training.checkpoints import Progress, list_states
from dept_vl.tuners.base import ParamGroup

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class BadStep:
    """A step that must not count.

    Attributes:
        step: From 1, as progress is counted.
        example_ids: Of this process's part of the batch; of several tasks with the task's name before each.
        loss: This process's share of the mean loss.
        norms: Gradient norm by parameter group.
        groups: The groups whose gradient is not finite or exploded.
    """

    step: int
    example_ids: tuple[int | str, ...]
    loss: float
    norms: dict[str, float]
    groups: tuple[str, ...]

    def __str__(self) -> str:
        norms = ", ".join(f"{name} {norm:.3g}" for name, norm in self.norms.items())
        bad = f"gradient not finite or exploded in {', '.join(self.groups)}" if self.groups else "gradients finite"
        return f"step {self.step}: loss {self.loss:.6g}; {bad} (norms: {norms}); examples {list(self.example_ids)}"


class StepGuard:
    """Remembers what the steps since the last look were like, and decides what becomes of a bad one."""

    def __init__(self, groups: Sequence[ParamGroup], loop: LoopConfig) -> None:
        """Takes the groups, and the settings that say which steps are bad and whether to skip them."""
        self._groups = {group.name: group.parameters for group in groups}
        self._loop = loop
        self._watched: list[tuple[int, tuple[int | str, ...], Tensor]] = []

    def watch(self, step: int, example_ids: Sequence[int | str], loss: Tensor) -> None:
        """Notes a step after its backward passes, on the device and without waiting for it.

        Args:
            step: From 1.
            example_ids: Of this process's part of the batch.
            loss: This process's share of the mean loss, a scalar.
        """
        norms = [_norm(parameters, loss.device) for parameters in self._groups.values()]
        self._watched.append((step, tuple(example_ids), torch.stack([loss.float(), *norms])))

    def find_bad(self) -> BadStep | None:
        """Returns the first bad step since the last call, or None; waits for the device once."""
        watched, self._watched = self._watched, []
        if not watched:
            return None
        values = torch.stack([numbers for _, _, numbers in watched]).cpu()
        is_bad = ~values.isfinite()
        is_bad[:, 1:] |= values[:, 1:] > self._loop.exploded_norm
        where = is_bad.any(1).nonzero()
        if not len(where):
            return None
        first = int(where[0])
        step, example_ids, _ = watched[first]
        loss, *norms = values[first].tolist()
        names = list(self._groups)
        bad = tuple(name for name, flag in zip(names, is_bad[first, 1:].tolist(), strict=True) if flag)
        return BadStep(step, example_ids, loss, dict(zip(names, norms, strict=True)), bad)

    def judge(self, bad: BadStep | None, progress: Progress, rates: Mapping[str, float], checkpoints: Path) -> Progress:
        """Counts a bad step as skipped. Every process of a launch must call this.

        Args:
            bad: What this process found; None if another one did.
            progress: Counters before the step.
            rates: Learning rates by group, for the message.
            checkpoints: The run's folder of them, for the message.

        Raises:
            DivergenceError: Such steps are not to be skipped, or there were too many in a row.
        """
        description, in_a_row = _describe(bad), progress.skipped_in_a_row + 1
        if self._loop.on_nan == "stop" or in_a_row > self._loop.max_skipped_steps:
            states = list_states(checkpoints)
            last = f"the last good checkpoint is {states[-1]}" if states else "there is no checkpoint yet"
            skipped = f" ({progress.skipped_in_a_row} steps before it were skipped)" if in_a_row > 1 else ""
            raise DivergenceError(
                f"{description}{skipped}; lower the learning rate of a group (now {dict(rates)}), or go on with "
                f"--resume --on-nan skip; {last}"
            )
        logger.warning("skipped %s", description)
        return replace(progress, skipped_steps=progress.skipped_steps + 1, skipped_in_a_row=in_a_row)

    def refuse_bad_weights(self, step: int) -> None:
        """Refuses to keep weights that are not finite.

        Raises:
            DivergenceError: Some are not; their groups are named.
        """
        bad = [name for name, tensors in self._groups.items() if not all(bool(t.isfinite().all()) for t in tensors)]
        if bad:
            raise DivergenceError(f"after step {step} the weights of {', '.join(bad)} are not finite; not saved")


def _norm(parameters: Sequence[nn.Parameter], device: torch.device) -> Tensor:
    """Returns the norm of the group's gradient, 0 without one."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if not gradients:
        return torch.zeros((), device=device)
    return torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(g.float()) for g in gradients]))


def _describe(bad: BadStep | None) -> str:
    """Returns a bad step in words, from all processes of a launch; each of them must call this.

    Args:
        bad: What this process found; None if another one did.
    """
    found = [] if bad is None else [(math.isfinite(bad.loss), str(bad))]
    everywhere: list[tuple[bool, str]] = sorted(gather_object(found))
    culprits = [text for is_finite, text in everywhere if not is_finite]
    return "; ".join(culprits or [everywhere[0][1]])
