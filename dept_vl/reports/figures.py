"""The paper's Figures 3 to 6 with ours in them: what is drawn, as numbers, and as a table; `drawing` makes pictures."""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from dept_vl.errors import ConfigError, DataError
from dept_vl.evaluators import display_scale
from dept_vl.reports.paper_numbers import PAPER_FIGURES, PAPER_TABLES
from dept_vl.reports.paper_settings import paper_row
from dept_vl.reports.scored_answers import count_trained
from dept_vl.reports.scored_runs import ScoredRun, read_scored_runs
from dept_vl.reports.text import format_table
from dept_vl.system.bounded_reading import parse_json, read_file
from dept_vl.tuners import DeptConfig
from dept_vl.tuners.rates import rate_number, shown_rate

_UNITS = {"k": 1e3, "m": 1e6, "b": 1e9}


@dataclass(frozen=True)
class Point:
    """One number: of bars `x` is where it stands from the left, and `name` what it is of."""

    x: float
    y: float
    name: str = ""


@dataclass(frozen=True)
class Series:
    """Points that belong together, whose they are, and how they are drawn."""

    name: str
    points: tuple[Point, ...]
    is_ours: bool


@dataclass(frozen=True)
class Panel:
    """One pair of axes. Of `curves` x falls from left to right, as m in the paper's figures; of `lines` it rises."""

    title: str
    x_label: str
    y_label: str
    series: tuple[Series, ...]
    kind: Literal["points", "curves", "bars", "lines"] = "points"
    is_log: bool = False
    is_log_y: bool = False


@dataclass(frozen=True)
class FigureData:
    """What a figure shows."""

    title: str
    panels: tuple[Panel, ...]


def figure_data(number: int, paths: Sequence[Path]) -> FigureData:
    """Returns what a figure of the paper shows, with ours.

    Args:
        number: 3 to 6.
        paths: For 5 and 6 folders of scored runs, of seeds or of transfers; for 3 and 4 files, or folders of them, that
            ``python -m benchmarks paper-efficiency --output DIR`` wrote.

    Raises:
        ConfigError: There is no such figure, or a run has no place in it.
        CheckpointError: A folder holds no test scores.
        DataError: A file is not one of that benchmark.
    """
    if number not in _FIGURES:
        raise ConfigError(f"--figure {number}: expected {', '.join(map(str, _FIGURES))}")
    return _FIGURES[number](paths)


def format_figure(data: FigureData) -> str:
    """Returns a figure's numbers as a table for each pair of axes."""
    parts = [data.title]
    for panel in data.panels:
        x_label = "" if panel.kind == "bars" else panel.x_label
        rows = [("", x_label, panel.y_label)]
        for series in panel.series:
            for point in series.points:
                name = f"{series.name}: {point.name}" if point.name else series.name
                x = "" if panel.kind == "bars" else f"{point.x:,.0f}"
                rows.append((name, x, f"{point.y:.2f}" if panel.kind == "curves" else f"{point.y:.1f}"))
        shown = [row[:1] + row[2:] for row in rows] if panel.kind == "bars" else rows
        parts.append(f"{panel.title}\n{format_table(shown)}")
    return "\n\n".join(parts)


def read_count(text: str) -> float:
    """Returns a number of parameters as tables print it: ``76.8k``, ``1.9M``, ``96k (amortised over 8 tasks)``."""
    found = re.match(r"([\d.]+)\s*([kKmMbB])?", text)
    if found is None:
        raise ValueError(f"not a number of parameters: {text!r}")
    return float(found[1]) * _UNITS.get((found[2] or "").lower(), 1)


def _runs(paths: Sequence[Path]) -> list[ScoredRun]:
    return [run for path in paths for run in read_scored_runs(path)]


def _printed_score(run: ScoredRun) -> float:
    """Returns a run's score of its task's own metric, in the printed scale."""
    metric = run.config.resolve_task().primary_metric
    if metric not in run.scores:
        raise ConfigError(f"{run.path}: has no {metric!r}; score the run with the task's own metrics")
    return run.scores[metric] * display_scale(metric).factor


def _by_task(runs: Sequence[ScoredRun]) -> dict[str, float]:
    """Returns the mean score on each task."""
    by_task: dict[str, list[float]] = {}
    for run in runs:
        by_task.setdefault(run.task, []).append(_printed_score(run))
    return {task: statistics.fmean(values) for task, values in by_task.items()}


def _scores_against_parameters(paths: Sequence[Path]) -> FigureData:
    """Returns Figure 6: the means of Table 1 against trained parameters."""
    table, runs = PAPER_TABLES["table1"], _runs(paths)
    by_method: dict[tuple[str, str], list[ScoredRun]] = {}
    for run in runs:
        place = paper_row(run)
        by_method.setdefault((place.method, place.group), []).append(run)
    scores = {key: _by_task(of_it) for key, of_it in by_method.items()}
    sizes = {key: _parameters(of_it) for key, of_it in by_method.items()}
    panels, is_shown = [], set()
    for mean, tasks in table.means.items():
        printed: dict[str, list[Point]] = {}
        for row in table.rows:
            if mean in row.means and row.params is not None:
                point = Point(read_count(row.params), row.means[mean], row.method)
                printed.setdefault(row.group or "", []).append(point)
        series = [Series(f"paper, {group}", tuple(points), False) for group, points in printed.items()]
        whole = {key for key, found in scores.items() if set(tasks) <= set(found)}
        is_shown |= {run.path for key in whole for run in by_method[key] if run.task in tasks}
        ours = [Point(sizes[key], statistics.fmean(scores[key][t] for t in tasks), key[0]) for key in sorted(whole)]
        series += [Series("ours", tuple(ours), True)] if ours else []
        names = {"glue": "GLUE", "superglue": "SuperGLUE"}
        panels.append(
            Panel(f"mean over {names.get(mean, mean)}", "trained parameters", "score", tuple(series), is_log=True)
        )
    left = [run for run in runs if run.path not in is_shown]
    if left:
        panels.append(_own_panel(left))
    return FigureData("Figure 6: score against trained parameters", tuple(panels))


def _own_panel(runs: Sequence[ScoredRun]) -> Panel:
    """Returns our methods on the tasks that all of them have.

    Raises:
        ConfigError: They have none in common.
    """
    by_method: dict[str, list[ScoredRun]] = {}
    for run in runs:
        by_method.setdefault(paper_row(run).method, []).append(run)
    tasks = _common({method: _by_task(of_it) for method, of_it in by_method.items()})
    points = []
    for method, of_it in by_method.items():
        found = _by_task(of_it)
        size = _parameters([run for run in of_it if run.task in tasks])
        points.append(Point(size, statistics.fmean(found[task] for task in tasks), method))
    title = f"ours, mean over {', '.join(tasks)}" if len(tasks) > 1 else f"ours, {tasks[0]}"
    return Panel(title, "trained parameters", "score", (Series("ours", tuple(points), True),), is_log=True)


def _common(scores: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Returns the tasks that all have.

    Raises:
        ConfigError: There is none.
    """
    first, *others = scores.values()
    tasks = [task for task in first if all(task in other for other in others)]
    if not tasks:
        what = "; ".join(f"{name}: {', '.join(found)}" for name, found in scores.items())
        raise ConfigError(f"the runs have no task in common that they could be drawn by ({what})")
    return tasks


def _parameters(runs: Sequence[ScoredRun]) -> float:
    """Returns how many parameters runs train, the visual projection's too, over the tasks that share them.

    Raises:
        ConfigError: No adapter is left that says so.
    """
    counts = [(count_trained(run.path.parent), len(run.together) or 1) for run in runs]
    known = [count / tasks for count, tasks in counts if count is not None]
    if not known:
        raise ConfigError(f"{runs[0].path.parent}: no adapter there, so its trained parameters are not known")
    return statistics.fmean(known)


def _rates(paths: Sequence[Path]) -> FigureData:
    """Returns Figure 5: DePT with one rate for prompt and pair, and with two."""
    figure, runs = PAPER_FIGURES["figure5"], _runs(paths)
    bars = [Point(i, value, name) for i, (name, value) in enumerate(figure.bars.items())]
    panels = [Panel("mean over GLUE", "", "score", (Series("paper", tuple(bars), False),), "bars")]
    by_rates: dict[tuple[float | str, float | str], list[ScoredRun]] = {}
    for run in runs:
        tuner = run.config.tuner
        if not isinstance(tuner, DeptConfig):
            raise ConfigError(f"{run.path}: Figure 5 is of DePT's two rates, and the run is of {tuner.label!r}")
        by_rates.setdefault((tuner.lr, tuner.lowrank_lr), []).append(run)
    if by_rates:
        ordered = sorted(by_rates.items(), key=lambda one: tuple(map(rate_number, one[0])))
        named = {_name_of_rates(*rates): _by_task(of_it) for rates, of_it in ordered}
        tasks = _common(named)
        ours = [
            Point(i, statistics.fmean(found[task] for task in tasks), name)
            for i, (name, found) in enumerate(named.items())
        ]
        title = f"ours, {tasks[0]}" if len(tasks) == 1 else f"ours, mean over {', '.join(tasks)}"
        panels.append(Panel(title, "", "score", (Series("ours", tuple(ours), True),), "bars"))
    return FigureData(figure.title, tuple(panels))


def _name_of_rates(prompt: float | str, pair: float | str) -> str:
    one, other = shown_rate(prompt), shown_rate(pair)
    return f"one rate {one}" if one == other else f"two rates {one}, {other}"


def _speed(paths: Sequence[Path]) -> FigureData:
    """Returns Figure 4: inference speed by m, times prompt tuning's."""
    figure = PAPER_FIGURES["figure4"]
    series = [
        Series(f"paper, {name}", tuple(map(Point, figure.num_virtual_tokens, values)), False)
        for name, values in figure.curves.items()
    ]
    series += [_relative(measured, "answers_per_s") for measured in _measured(paths)]
    panel = Panel("answers/s, times prompt tuning's", "m", "times", tuple(series), "curves")
    return FigureData(figure.title, (panel,))


def _time_and_memory(paths: Sequence[Path]) -> FigureData:
    """Returns Figure 3's training time and memory by m, times prompt tuning's; its curves have no printed numbers."""
    found = _measured(paths)
    if not found:
        raise ConfigError(
            "--figure 3: the paper prints no numbers of it; give what `python -m benchmarks paper-efficiency --output "
            "DIR` wrote"
        )
    panels = (
        Panel("time of a training step", "m", "times", tuple(_relative(m, "step_s") for m in found), "curves"),
        Panel(
            "memory over the loaded model",
            "m",
            "times",
            tuple(_relative(m, "over_loaded_gib") for m in found),
            "curves",
        ),
    )
    return FigureData("Figure 3: training time and memory by m, times those of prompt tuning with 100 tokens", panels)


@dataclass(frozen=True)
class _Measured:
    path: Path
    name: str
    medians: Mapping[str, Mapping[str, float]]


def _measured(paths: Sequence[Path]) -> list[_Measured]:
    """Returns what benchmarks have measured.

    Raises:
        DataError: A file is not one of the benchmark ``paper-efficiency``, or a folder has none.
    """
    files: list[Path] = []
    for path in paths:
        inside = sorted(path.glob("bench-paper-efficiency-*.json")) if path.is_dir() else [path]
        if not inside:
            raise DataError(f"{path}: holds no bench-paper-efficiency-*.json; {_HOW}")
        files += inside
    return [_read(path) for path in files]


_HOW = "such files are written by `python -m benchmarks paper-efficiency --output DIR`"


def _read(path: Path) -> _Measured:
    try:
        content: dict[str, Any] = parse_json(read_file(path))
        medians = {
            str(name): {str(key): float(value) for key, value in values.items()}
            for name, values in content["medians"].items()
        }
        name = str(content["name"])
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        reason = getattr(error, "strerror", None) or repr(error)
        raise DataError(f"{path}: not what a benchmark writes ({reason}); {_HOW}") from None
    if not any(_size(contestant) == 100 for contestant in medians):
        raise DataError(f"{path}: has no prompt tuning with 100 tokens to compare with; {_HOW}")
    return _Measured(path, name.removeprefix("paper efficiency, "), medians)


def _size(contestant: str) -> int | None:
    """Returns m of a contestant: that of DePT, or the length of prompt tuning."""
    found = re.search(r"\b[ml] = (\d+)$", contestant)
    return int(found[1]) if found else None


def _relative(measured: _Measured, key: str) -> Series:
    """Returns a measured value by m, times that of prompt tuning.

    Raises:
        DataError: It was not measured.
    """
    lacking = [name for name, values in measured.medians.items() if _size(name) is not None and not values.get(key)]
    if lacking:
        raise DataError(f"{measured.path}: has no {key} of {lacking[0]!r}; measure it again with this version ({_HOW})")
    sizes = {_size(name): values[key] for name, values in measured.medians.items()}
    points = [Point(m, value / sizes[100]) for m, value in sizes.items() if m is not None]
    ordered = sorted(points, key=lambda point: -point.x)
    return Series(f"ours, {measured.name}", tuple(ordered), True)


_FIGURES: Mapping[int, Callable[[Sequence[Path]], FigureData]] = {
    3: _time_and_memory,
    4: _speed,
    5: _rates,
    6: _scores_against_parameters,
}
