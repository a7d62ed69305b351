"""What a caller may do while a run trains."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from dept_vl.settings.schema import TrainConfig


class Callback:
    """Called by every run that it is given to; every method does nothing here, so that one writes those one needs.

    What a method raises ends the run and is passed on. The folder then stays that of a run stopped at its last
    checkpoint, which ``resume`` goes on with. A run that was started is always told that it ends (`on_end`).

    In a launch of several processes every process calls its own callbacks, at the same points: what one raises should
    be raised by all of them, and what writes or prints should ask ``accelerate.PartialState().is_main_process``.
    """

    def on_start(self, config: TrainConfig, run_dir: Path) -> None:
        """When models and data are open and nothing is written: raise here to refuse a run and leave no folder.

        Args:
            config: The run's settings.
            run_dir: The run's folder; that of a new run is made after this.
        """

    def on_step(self, config: TrainConfig, step: int) -> None:
        """Before an optimiser step.

        Args:
            config: The run's settings.
            step: From 0.
        """

    def on_log(self, config: TrainConfig, step: int, values: Mapping[str, float]) -> None:
        """After the main process wrote a line of ``metrics.jsonl``, which others do not wait for.

        Args:
            config: The run's settings.
            step: Optimiser steps done.
            values: The line's, of steps or of an evaluation (docs/files.md lists them); speeds are this process's own.
        """

    def on_evaluation(self, config: TrainConfig, step: int, metrics: Mapping[str, float]) -> None:
        """After an evaluation on ``val``, its scores and the best adapter written.

        Args:
            config: The run's settings.
            step: Optimiser steps done.
            metrics: Scores in the scorers' own scale, and ``loss``, the validation loss
                (`dept_vl.inference.answer.SplitAnswers`), where a row of ``val`` has a target.
        """

    def on_checkpoint(self, config: TrainConfig, step: int, folder: Path) -> None:
        """After a checkpoint was written.

        Args:
            config: The run's settings.
            step: Optimiser steps done.
            folder: The checkpoint's; later ones remove it (``loop.keep_checkpoints``).
        """

    def on_end(self, config: TrainConfig, run_dir: Path) -> None:
        """At the end of every run that `on_start` let begin, whether it ended by itself, was stopped or failed.

        Args:
            config: The run's settings.
            run_dir: The run's folder; ``training.json`` is there once a run has ended by itself.
        """
