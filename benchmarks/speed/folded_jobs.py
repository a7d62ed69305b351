"""A run that answers, in a `benchmarks.speed.worker` process."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Literal

from benchmarks.speed.workload import TextWork, shape, train_config
from dept_vl.inference.answer import Answerer, answer_split
from dept_vl.runs.decoding import choose_decoding
from dept_vl.runs.folder import read_run_config
from dept_vl.runs.open import open_run

_METHODS: dict[str, Literal["score", "generate"]] = {"scored": "score", "generated": "generate"}


class Answers:
    """Answers a test split, its labels scored or generated."""

    def __init__(self, run: str | None, work: dict[str, Any], backbone: str, shape_name: str) -> None:
        """Opens a run, or the frozen model without a method.

        Args:
            run: Its folder; None for no method.
            work: A `TextWork` as a dictionary.
            backbone: T5 folder, for no method.
            shape_name: Shape of it.
        """
        loaded = TextWork.load(work)
        nothing = {"name": "dept", "num_virtual_tokens": 0, "rank": 0, "budget_tokens": 1, "allow_nearest": True}
        if run is None:
            config = train_config(backbone, loaded, shape(shape_name), "unused", 1, tuner=nothing)
        else:
            config = read_run_config(Path(run))
        parts = open_run(config, loaded.data_dir, ("test",), adapter=None if run is None else Path(run))
        self._batch_size = config.data.eval_batch_size
        self._set = parts.datasets["test"]
        self._answerers = {
            kind: Answerer(parts.model, parts.codec, None, choose_decoding(config, parts.task, method))
            for kind, method in _METHODS.items()
        }

    def run(self, workload: str) -> dict[str, float]:
        """Answers the split."""
        started = time.perf_counter()
        answered = answer_split(self._answerers[workload], self._set, batch_size=self._batch_size).predictions
        return {"rate": len(answered) / (time.perf_counter() - started)}
