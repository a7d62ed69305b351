"""How long a run is in steps, whatever its settings give that in."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from dept_vl.runs.folder import check_same_length
from dept_vl.settings.schema import LoopConfig, TrainConfig
from dept_vl.system.processes import process_state

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunLength:
    """The length of a run.

    Attributes:
        loop: The run's settings of it, in steps.
        max_steps: Optimiser steps in all.
        eval_every_steps: Optimiser steps between evaluations.
        record: What ``run.json`` says of it; empty where the settings are in steps already.
    """

    loop: LoopConfig
    max_steps: int
    eval_every_steps: int
    record: dict[str, Any]

    @classmethod
    def of(cls, config: TrainConfig, steps_per_epoch: int, *, resume: bool) -> RunLength:
        """Returns the length of a run whose rows make so many steps a pass; says where the warm-up is as long.

        Raises:
            ConfigError: As `LoopConfig.in_steps`; or a run that goes on was of another length.
        """
        loop = config.loop.in_steps(steps_per_epoch)
        assert loop.max_steps is not None
        assert loop.eval_every_steps is not None
        steps = {"max_steps": loop.max_steps, "eval_every_steps": loop.eval_every_steps}
        record = {"length": {**steps, "steps_per_epoch": steps_per_epoch}} if loop != config.loop else {}
        if resume:
            check_same_length(config.run_dir, record)
        warmup = config.optim.warmup_steps or 0
        if warmup >= loop.max_steps and process_state().is_main_process:
            logger.warning(
                "optim.warmup_steps: %d of %d steps: the rates end before they reach their peak",
                warmup, loop.max_steps,
            )  # fmt: skip
        return cls(loop, loop.max_steps, loop.eval_every_steps, record)
