"""One evaluation on ``val``: its scores, and the validation loss; of several tasks, theirs and their means."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping

from dept_vl.errors import DivergenceError
from dept_vl.evaluators import LOSS, EvaluationInput, score
from dept_vl.inference.answer import Answerer, answer_split
from dept_vl.runs.open import RunParts
from dept_vl.runs.selection import choose_selection, join_scores, join_selections
from dept_vl.settings.schema import TrainConfig
from dept_vl.system.processes import process_state


class Validation:
    """Measures a run on ``val``.

    Attributes:
        selection: How its checkpoints are compared.
    """

    def __init__(self, config: TrainConfig, parts: RunParts) -> None:
        """Chooses what is measured.

        Raises:
            ConfigError: As `choose_selection`.
            DataError: As `choose_selection` and `Selection.check_targets`.
        """
        self._config, self._parts = config, parts
        self._dataset = parts.datasets["val"]
        self._references = parts.references("val", config.loop.eval_rows)
        self.selection = choose_selection(config, parts.task, self._references)
        self.selection.check_targets(lambda: self._dataset.has_targets(config.loop.eval_rows))
        self._answerer = Answerer(parts.model, parts.codec, parts.visual.get("val"), parts.decoding, parts.task_id)

    def measure(self, step: int) -> dict[str, float]:
        """Returns the scores of the model as it is, and its loss where a row has a target (`SplitAnswers`).

        Args:
            step: Optimiser steps done, for the message.

        Raises:
            StoppedError: As `answer_split`.
            DivergenceError: The loss is not finite.
        """
        data = self._config.data
        answers = answer_split(
            self._answerer,
            self._dataset,
            batch_size=data.eval_batch_size,
            num_workers=data.num_workers,
            limit=self._config.loop.eval_rows,
        )
        inputs = EvaluationInput(answers.predictions, self._references)
        metrics = score(self.selection.evaluators, inputs, label_set=self._parts.task.labels)
        if answers.loss is None:
            return metrics
        if not math.isfinite(answers.loss):
            raise DivergenceError(
                f"after step {step} the loss on val is {answers.loss}: the model's output is not finite for some rows; "
                "lower the learning rate of a group"
            )
        return {**metrics, LOSS: answers.loss}

    def time_rows(self) -> tuple[float, int]:
        """Returns how long the answers of one `measure` will take, s, and of how many rows.

        Measured on the first batch, after the same batch once to warm up; the scores themselves are not counted.
        """
        data, dataset = self._config.data, self._dataset
        num_rows = min(self._config.loop.eval_rows or len(dataset), len(dataset))
        few = min(data.eval_batch_size * process_state().num_processes, num_rows)
        for _ in range(2):
            started = time.perf_counter()
            answer_split(self._answerer, dataset, batch_size=data.eval_batch_size, limit=few)
            seconds = time.perf_counter() - started
        return seconds * num_rows / few, num_rows


class MixValidation:
    """Measures a run of several tasks on each task's ``val``; used as `Validation`.

    Attributes:
        selection: How its checkpoints are compared.
    """

    def __init__(self, config: TrainConfig, tasks: Mapping[str, RunParts]) -> None:
        """Chooses what is measured of each task.

        Raises:
            ConfigError: As `Validation`.
            DataError: As `Validation`.
        """
        self._each = {name: Validation(config.for_task(name), parts) for name, parts in tasks.items()}
        self._primary = {name: one.selection.primary for name, one in self._each.items()}
        self.selection = join_selections(config, {name: one.selection for name, one in self._each.items()})

    def measure(self, step: int) -> dict[str, float]:
        """Returns the scores of every task under its name, their mean and that of the losses; see `join_scores`.

        Raises:
            StoppedError, DivergenceError: As `Validation.measure`.
        """
        return join_scores({name: one.measure(step) for name, one in self._each.items()}, self._primary)

    def time_rows(self) -> tuple[float, int]:
        """Returns the sums of every task's `Validation.time_rows`."""
        seconds, rows = zip(*(one.time_rows() for one in self._each.values()), strict=True)
        return sum(seconds), sum(rows)
