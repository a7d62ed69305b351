"""The runs an experiment is made of: trained once, scored once, and found again after a kill."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from dept_vl.errors import CheckpointError, ConfigError
from dept_vl.inference.evaluate import evaluate_run
from dept_vl.runs.callbacks import Callback
from dept_vl.runs.folder import SUMMARY_FILE, check_same_settings, describe_differences
from dept_vl.runs.session import Session
from dept_vl.settings.load import read_yaml
from dept_vl.settings.renamed import with_new_names
from dept_vl.settings.schema import TrainConfig
from dept_vl.system.atomic import atomic_folder, remove_folder, write_text
from dept_vl.system.bounded_reading import parse_json, read_file
from dept_vl.system.locks import refuse_if_used_inside
from dept_vl.system.processes import process_state
from dept_vl.system.signals import mark_resumable
from dept_vl.tasks import get_task
from dept_vl.training.trainer import train

RESULTS_FILE = "results-test.json"
GENERATE = "generate"
"""How answers are made where a file of scores does not say."""
STD = "sample standard deviation (n - 1); null for a single run"


@dataclass(frozen=True)
class FinishedRun:
    """A run that ended by itself.

    Attributes:
        config: Its settings.
        val: Best value of `metric` on ``val``, in the scorer's own scale.
        test: Scores on ``test``, once `score` has made them.
    """

    config: TrainConfig
    val: float
    test: dict[str, float] | None = None

    @property
    def run_dir(self) -> Path:
        """Its folder."""
        return self.config.run_dir

    @property
    def metric(self) -> str:
        """The metric that picks the best checkpoint."""
        return get_task(self.config.task).under(self.config.data.protocol).selection_metric


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation (n - 1; None for one value) of a metric over runs."""

    mean: float
    std: float | None
    values: tuple[float, ...]


def spread(values: Sequence[float]) -> Spread:
    """Returns mean and sample standard deviation of at least one value."""
    return Spread(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None, tuple(values))


def spreads(scores: Sequence[Mapping[str, float]]) -> dict[str, Spread]:
    """Returns the spread of every metric that all runs have."""
    return {name: spread([score[name] for score in scores]) for name in scores[0] if all(name in s for s in scores)}


def finish(config: TrainConfig, data_dir: Path, session: Session, *, callbacks: Sequence[Callback] = ()) -> FinishedRun:
    """Trains a run to its end: from the start, from its last checkpoint, or not at all when it has ended before.

    Raises:
        ConfigError, DataError, CheckpointError: As `train`; the folder holds a run of other settings.
    """
    summary = config.run_dir / SUMMARY_FILE
    if summary.is_file():
        check_same_settings(config.run_dir, config)
        try:
            return FinishedRun(config, float(parse_json(read_file(summary))["best_metric"]))
        except (OSError, ValueError, KeyError, TypeError, OverflowError) as error:
            raise CheckpointError(f"{summary}: not what a finished run writes ({error}); remove it to resume") from None
    result = train(config, data_dir, resume=True, session=session, callbacks=callbacks)
    assert result.progress.best_metric is not None  # the last step evaluates
    return FinishedRun(config, result.progress.best_metric)


def score(run: FinishedRun, data_dir: Path, session: Session) -> FinishedRun:
    """Returns the run with its scores on ``test``, read where they were written before.

    Raises:
        ConfigError, DataError, CheckpointError: As `evaluate_run`.
    """
    path = run.run_dir / RESULTS_FILE
    if path.is_file():
        return replace(run, test=read_results(path)["metrics"])
    return replace(run, test=evaluate_run(run.config, data_dir, run.run_dir, session=session).metrics)


def read_results(path: Path) -> dict[str, Any]:
    """Reads a file of scores.

    Raises:
        CheckpointError: It cannot be read, or holds no scores.
    """
    try:
        content = parse_json(read_file(path))
        if isinstance(content["metrics"], dict):
            return dict(content)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: cannot read scores: {error}; run `dept-vl eval` again") from None
    raise CheckpointError(f"{path}: holds no scores; run `dept-vl eval` again")


def open_experiment(folder: Path, name: str, settings: Mapping[str, Any], *, resume: bool, overwrite: bool) -> None:
    """Makes the folder of an experiment, stamped with its settings, or goes on in the one that is there.

    Args:
        folder: The experiment's folder; its runs lie in it.
        name: The settings go to ``<name>.yaml``.
        settings: What the experiment is; a resumed one must be the same.
        resume: Go on in the folder.
        overwrite: Remove an earlier experiment of that kind first.

    Raises:
        ConfigError: The folder is taken and neither was asked for, is no such experiment's, or has other settings.
    """
    if not process_state().is_main_process:
        return
    mark_resumable()
    marker = folder / f"{name}.yaml"
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"output_dir: {folder} is a file; choose a folder")
    if folder.is_dir() and any(folder.iterdir()):
        if not marker.is_file() and (resume or overwrite):
            raise ConfigError(f"output_dir: {folder} holds no {marker.name}, so no {name} was started there")
        if resume:
            differences = describe_differences(_with_new_names(read_yaml(marker)), dict(settings))
            if differences:
                raise ConfigError(
                    f"cannot resume {folder} with other settings than it was started with:\n  "
                    + "\n  ".join(differences)
                )
            return
        if not overwrite:
            raise ConfigError(
                f"output_dir: {folder} is not empty; add --resume to go on with the {name} in it, --overwrite to "
                "replace it, or choose another --output-dir"
            )
        refuse_if_used_inside(folder)
        remove_folder(folder)
    with atomic_folder(folder) as building:
        write_text(building / marker.name, yaml.safe_dump(dict(settings), sort_keys=False, allow_unicode=True))


def _with_new_names(record: dict[str, Any]) -> dict[str, Any]:
    """Returns what an experiment is, recorded by this version or an earlier one, a transfer's sources too."""
    sources = record.get("sources")
    if isinstance(sources, dict):
        named = {name: with_new_names(given) if isinstance(given, dict) else given for name, given in sources.items()}
        record = {**record, "sources": named}
    return with_new_names(record)


def settings_tree(config: TrainConfig) -> dict[str, Any]:
    """Returns settings as an experiment records them: without where they go, which a moved folder changes."""
    from dept_vl.settings.load import dump_config

    tree: dict[str, Any] = yaml.safe_load(dump_config(config))
    del tree["output_dir"]
    return tree


def run_record(run: FinishedRun) -> dict[str, Any]:
    """Returns what an experiment's JSON says of a run; for main processes, after `score` if that was called."""
    record = {"run": str(run.run_dir), "seed": run.config.seed, f"val {run.metric}": run.val, "test": run.test}
    if run.test is None:
        return record
    return {**record, "decode": read_results(run.run_dir / RESULTS_FILE).get("decode", GENERATE)}


def spread_records(values: Mapping[str, Spread]) -> dict[str, Any]:
    """Returns spreads as JSON."""
    return {name: asdict(value) for name, value in values.items()}
