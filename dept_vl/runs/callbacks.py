"""What a caller may do while a run trains."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from dept_vl.settings.schema import TrainConfig


class Callback:
    """Called by every run that it is given to; every method does nothing here, so that one writes those one needs.

    What a method raises ends the run and is passed on. The folder then stays that of a run stopped at its last
    checkpoint, which ``resume`` goes on with. A run that was started is always told that it ends (`on_end`).

    `config` are the run's settings, `run_dir` is its folder, and `step` counts the optimiser steps done.

    In a launch of several processes every process calls its own callbacks, at the same points: what one raises should
    be raised by all of them, and what writes or prints should ask ``accelerate.PartialState().is_main_process``.
    """

    def on_start(self, config: TrainConfig, run_dir: Path) -> None:
        """When models and data are open and nothing is written, a new run's folder neither.

        Raise here to refuse a run and leave no folder.
        """

    def on_step(self, config: TrainConfig, step: int) -> None:
        """Before an optimiser step, `step` being 0 before the first."""

    def on_log(self, config: TrainConfig, step: int, values: Mapping[str, float]) -> None:
        """After the main process wrote a line of ``metrics.jsonl``, which others do not wait for.

        `values` are the line's, of steps or of an evaluation (docs/files.md lists them); speeds are this process's own.
        """

    def on_evaluation(self, config: TrainConfig, step: int, metrics: Mapping[str, float]) -> None:
        """After an evaluation on ``val``, its scores and the best adapter written.

        `metrics` are scores in the scorers' own scale, and ``loss``, the validation loss
        (`dept_vl.inference.answer.SplitAnswers`), where a row of ``val`` has a target.
        """

    def on_checkpoint(self, config: TrainConfig, step: int, folder: Path) -> None:
        """After a checkpoint was written to `folder`; later ones remove it (``loop.keep_checkpoints``)."""

    def on_end(self, config: TrainConfig, run_dir: Path) -> None:
        """At the end of every run that `on_start` let begin, whether it ended by itself, was stopped or failed.

        ``training.json`` is there once a run has ended by itself.
        """
