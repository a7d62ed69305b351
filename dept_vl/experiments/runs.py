"""The runs an experiment is made of: trained once, scored once, and found again after a kill."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dept_vl.errors import CheckpointError
from dept_vl.experiments.scores import GENERATE, RESULTS_FILE, read_results
from dept_vl.inference.evaluate import evaluate_run
from dept_vl.inference.result_files import settings_sha256
from dept_vl.runs.callbacks import Callback
from dept_vl.runs.folder import SUMMARY_FILE, check_resumable
from dept_vl.runs.session import Session
from dept_vl.runs.sources import check_same_sources, sources_record
from dept_vl.settings.schema import TrainConfig
from dept_vl.system.bounded_reading import parse_json, read_file
from dept_vl.training.trainer import train

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FinishedRun:
    """A run that ended by itself.

    Attributes:
        config: Its settings.
        val: Best value of `metric` on ``val``, in the scorer's own scale.
        metric: The score that picked the best checkpoint.
        test: Scores on ``test``, once `score` has made them.
    """

    config: TrainConfig
    val: float
    metric: str
    test: dict[str, float] | None = None

    @property
    def run_dir(self) -> Path:
        """Its folder."""
        return self.config.run_dir


def finish(config: TrainConfig, data_dir: Path, session: Session, *, callbacks: Sequence[Callback] = ()) -> FinishedRun:
    """Trains a run to its end: from the start, from its last checkpoint, or not at all when it has ended before.

    Raises:
        ConfigError, DataError, CheckpointError: As `train`; the folder holds a run of other settings or rows.
    """
    summary = config.run_dir / SUMMARY_FILE
    if summary.is_file():
        check_resumable(config.run_dir, config)
        check_same_sources(config.run_dir, sources_record(config, data_dir))
        try:
            ended = parse_json(read_file(summary))
            return FinishedRun(config, float(ended["best_metric"]), str(ended["metric"]))
        except (OSError, ValueError, KeyError, TypeError, OverflowError) as error:
            raise CheckpointError(f"{summary}: not what a finished run writes ({error}); remove it to resume") from None
    logger.info("training %s", config.run_dir)
    result = train(config, data_dir, resume=True, session=session, callbacks=callbacks)
    assert result.progress.best_metric is not None  # the last step evaluates
    return FinishedRun(config, result.progress.best_metric, result.metric_name)


def score(run: FinishedRun, data_dir: Path, session: Session) -> FinishedRun:
    """Returns the run with its scores on ``test``, read where they were written before.

    Raises:
        ConfigError, DataError, CheckpointError: As `evaluate_run`.
    """
    path = run.run_dir / RESULTS_FILE
    if path.is_file():
        content = read_results(path)
        if content.get("settings_sha256") in (None, settings_sha256(run.config)):  # None: of an earlier version
            return replace(run, test=content["metrics"])
    return replace(run, test=evaluate_run(run.config, data_dir, run.run_dir, session=session).metrics)


def run_record(run: FinishedRun) -> dict[str, Any]:
    """Returns what an experiment's JSON says of a run; for main processes, after `score` if that was called."""
    record = {"run": str(run.run_dir), "seed": run.config.seed, f"val {run.metric}": run.val, "test": run.test}
    if run.test is None:
        return record
    return {**record, "decode": read_results(run.run_dir / RESULTS_FILE).get("decode", GENERATE)}
