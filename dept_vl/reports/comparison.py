"""Scored runs of several methods beside each other: means over seeds, sizes, speeds, and what is more than chance."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dept_vl.errors import CheckpointError, ConfigError
from dept_vl.evaluators import score_name
from dept_vl.evaluators.paired import Answered, Comparison, compare_answers
from dept_vl.experiments.scores import STD, Spread, spread
from dept_vl.registry import lookup
from dept_vl.reports.paper_settings import paper_row, what_it_is
from dept_vl.reports.scored_answers import answering_speed, count_trained, read_answers, training_speed
from dept_vl.reports.scored_runs import ScoredRun, read_scored_runs
from dept_vl.runs.folder import describe_run
from dept_vl.system.atomic import check_output_file, write_json


@dataclass(frozen=True)
class Cell:
    """What one method reached on one task.

    Attributes:
        runs: Those that are averaged, one a seed.
        scores: Mean and deviation of the metric.
        beside: It beside the method that others are tested against; None for that one, and where answers are gone.
    """

    runs: tuple[ScoredRun, ...]
    scores: Spread
    beside: Comparison | None = None


@dataclass(frozen=True)
class MethodRow:
    """One method.

    Attributes:
        label: Its name, with the settings in which it differs from others of that name.
        cells: By task.
        parameters: Trained, the projection's too, the mean over its runs; None where no adapter is left.
        trained_per_s: Examples a second in training, the mean over its runs; None where none says so.
        answered_per_s: Answers a second, the mean over its runs; None where none says so.
    """

    label: str
    cells: Mapping[str, Cell]
    parameters: float | None
    trained_per_s: float | None
    answered_per_s: float | None


@dataclass(frozen=True)
class MethodComparison:
    """Methods x tasks.

    Attributes:
        metrics: Task -> the score that is compared.
        rows: Test rows of each task; None where no file says.
        methods: In the order given.
        against: Label of the method that the others are tested against.
    """

    metrics: Mapping[str, str]
    rows: Mapping[str, int | None]
    methods: tuple[MethodRow, ...]
    against: str


def compare_runs(
    folders: Sequence[Path], *, metric: str | None = None, against: str | None = None, output: Path | None = None
) -> MethodComparison:
    """Puts scored runs side by side.

    Runs that agree in everything but the seed are averaged. Methods are tested on the rows that both answered, several
    seeds by the mean of each row's scores.

    Args:
        folders: Run folders, folders of several seeds, or transfers.
        metric: A score that all runs have; None for each task's own.
        against: The method that the others are tested against; None for the first.
        output: Where the outcome will be written.

    Raises:
        ConfigError: Runs of one task have answered other rows or under other protocols, there is no such method or
            metric, or no folder for the output.
        CheckpointError: A folder holds no test scores, or its answers are not those of its scores.
    """
    if output is not None:
        check_output_file("--output", output)
    asked = None if metric is None else score_name(metric)
    runs = _distinct([run for folder in folders for run in read_scored_runs(folder)])
    by_task: dict[str, list[ScoredRun]] = {}
    for run in runs:
        by_task.setdefault(run.task, []).append(run)
    metrics = {task: asked or of_it[0].config.resolve_task().primary_metric for task, of_it in by_task.items()}
    for task, of_it in by_task.items():
        _check_comparable(task, of_it, metrics[task])
    labelled = _label(by_task)
    first = next(iter(labelled))
    chosen = first if against is None else against
    lookup(labelled, chosen, "method")
    reference = labelled[chosen]
    answered: dict[str, Answered | None] = {task: _answered(of_it, metrics[task]) for task, of_it in reference.items()}
    rows = []
    for label, cells in labelled.items():
        beside = {task: answered.get(task) for task in cells} if label != chosen else {}
        rows.append(_row(label, cells, metrics, beside))
    numbers = {task: of_it[0].rows for task, of_it in by_task.items()}
    return MethodComparison(metrics, numbers, tuple(rows), chosen)


def _distinct(runs: Iterable[ScoredRun]) -> list[ScoredRun]:
    """Returns runs, each once.

    Raises:
        ConfigError: One is given twice.
    """
    seen: dict[Any, ScoredRun] = {}
    for run in runs:
        key = (run.path.resolve(), run.task, run.config.seed, tuple(run.scores.values()))
        if key in seen:
            raise ConfigError(f"{run.path.parent}: given twice; a run counts once")
        seen[key] = run
    return list(seen.values())


def _check_comparable(task: str, runs: Sequence[ScoredRun], metric: str) -> None:
    """Refuses runs of one task that were scored on other rows, under other protocols, or lack the metric."""
    for run in runs:
        if metric not in run.scores:
            raise CheckpointError(
                f"{run.path}: has no {metric!r} (it has: {', '.join(name for name in run.scores if '/' not in name)}); "
                "choose a score that all runs have with --metric, or score the run again with it"
            )
    first = runs[0]
    for run in runs[1:]:
        pairs = {
            "protocol": (first.config.data.protocol, run.config.data.protocol),
            "number of test rows": (first.rows, run.rows),
            "sha256 of the test rows": (first.rows_sha256, run.rows_sha256),
        }
        for what, (ours, theirs) in pairs.items():
            if ours != theirs and None not in (ours, theirs):
                raise ConfigError(
                    f"runs of {task!r} cannot be compared: {first.path.parent} and {run.path.parent} have another "
                    f"{what} ({ours}, {theirs}); score both on the same data"
                )


def _label(by_task: Mapping[str, Sequence[ScoredRun]]) -> dict[str, dict[str, list[ScoredRun]]]:
    """Returns the runs of each method and task, methods of one name told apart by the settings that differ."""
    labelled: dict[str, dict[str, list[ScoredRun]]] = {}
    for task, runs in by_task.items():
        methods: dict[str, dict[str, list[ScoredRun]]] = {}
        for run in runs:
            key = json.dumps(what_it_is(run), sort_keys=True)
            methods.setdefault(paper_row(run).method, {}).setdefault(key, []).append(run)
        for name, groups in methods.items():
            described = [json.loads(key) for key in groups]
            differing = [key for key in described[0] if len({json.dumps(one.get(key)) for one in described}) > 1]
            for one, agreeing in zip(described, groups.values(), strict=True):
                settings = ", ".join(f"{key}={one.get(key)}" for key in differing)
                label = f"{name} ({settings})" if settings else name
                labelled.setdefault(label, {})[task] = agreeing
    return labelled


def _row(
    label: str,
    cells: Mapping[str, Sequence[ScoredRun]],
    metrics: Mapping[str, str],
    beside: Mapping[str, Answered | None],
) -> MethodRow:
    made = {}
    for task, runs in cells.items():
        scores, theirs, found = spread([run.scores[metrics[task]] for run in runs]), beside.get(task), None
        if theirs is not None and (ours := _answered(runs, metrics[task])) is not None:
            found = compare_answers(metrics[task], ours, theirs)
        made[task] = Cell(tuple(runs), scores, found)
    folders = [run.path.parent for runs in cells.values() for run in runs]
    files = [run.path for runs in cells.values() for run in runs if run.path.name.startswith("results-")]
    return MethodRow(
        label,
        made,
        _mean(count_trained(folder) for folder in folders),
        _mean(training_speed(folder) for folder in folders),
        _mean(answering_speed(path) for path in files),
    )


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


def _answered(runs: Sequence[ScoredRun], metric: str) -> Answered | None:
    """Returns what runs of one method answered, row by row; None where the answers of one are gone.

    Raises:
        CheckpointError: Answers are not those of the scores, or of other rows than another run's.
    """
    found = []
    for run in runs:
        if not run.path.name.startswith("results-"):
            return None
        found.append(read_answers(run.path))
    for run, answers in zip(runs, found, strict=True):
        if answers.ids != found[0].ids:
            raise CheckpointError(f"{run.path}: answers other rows than {runs[0].path}; score both on the same data")
    each = [answers.each(metric) for answers in found]
    known = [one for one in each if one is not None]
    means = [statistics.fmean(values) for values in zip(*known, strict=True)] if len(known) == len(each) else None
    score = statistics.fmean(run.scores[metric] for run in runs)
    return Answered(score, means, tuple(answers.inputs() for answers in found))


def write_comparison(path: Path, result: MethodComparison) -> None:
    """Writes a comparison as JSON."""
    methods = {}
    for row in result.methods:
        cells = {
            task: {
                **asdict(cell.scores),
                "runs": [str(run.path.parent) for run in cell.runs],
                "beside": None if cell.beside is None else asdict(cell.beside),
            }
            for task, cell in row.cells.items()
        }
        sizes = {name: getattr(row, name) for name in ("parameters", "trained_per_s", "answered_per_s")}
        methods[row.label] = {**sizes, "tasks": cells}
    content = {
        "metrics": dict(result.metrics),
        "rows": dict(result.rows),
        "against": result.against,
        "methods": methods,
        "std": STD,
        "made_by": describe_run(),
    }
    write_json(path, content)
