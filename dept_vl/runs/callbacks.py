"""What a caller may do while a run trains."""

from __future__ import annotations

from collections.abc import Mapping

from dept_vl.settings.schema import TrainConfig


class Callback:
    """Called by every run that it is given to; does nothing here. What a method raises ends the run and is passed on.

    The folder then stays that of a run stopped at its last checkpoint, which ``resume`` goes on with.
    """

    def on_step(self, config: TrainConfig, step: int) -> None:
        """Before an optimiser step.

        Args:
            config: The run's settings.
            step: From 0.
        """

    def on_evaluation(self, config: TrainConfig, step: int, metrics: Mapping[str, float]) -> None:
        """After an evaluation on ``val``, its scores and the best adapter written.

        Args:
            config: The run's settings.
            step: Optimiser steps done.
            metrics: Scores in the scorers' own scale.
        """
