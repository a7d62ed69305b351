"""Our runs beside the paper's numbers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dept_vl.errors import CheckpointError, ConfigError
from dept_vl.experiments.scores import spread
from dept_vl.registry import lookup
from dept_vl.reports.paper_grid import TableFormat, format_grid, grid_lines, row_of
from dept_vl.reports.paper_numbers import PAPER_TABLES, PaperRow, PaperTable
from dept_vl.reports.paper_settings import fits_place, not_the_papers, paper_row, what_it_is
from dept_vl.reports.scored_runs import ScoredRun, read_scored_runs
from dept_vl.reports.text import format_spread, format_table
from dept_vl.tasks import get_task

_MISSING = "-"
_OWN_METHOD = "dept"
_OWN = "  (ours: mean +- sample standard deviation, n - 1)"
_HEAD = ("task", "ours", "paper", "metric", "runs", "method", "protocol", "decode", "")
_TOGETHER = {"table4_5": ("table4", "table5")}
"""What earlier versions called one table -> the tables."""

_BESIDE = {"vqa": "vqa_accuracy_legacy_vlt5"}
"""Task -> a second score that stands beside its own; runs of earlier versions lack it."""


def compare(table: str, folders: Sequence[Path], *, mixed: bool = False, form: TableFormat = "text") -> str:
    """Returns a table of the paper, every row of it, with ours below each; what nobody measured is empty.

    Runs that agree in everything but the seed are averaged: mean and sample standard deviation (n - 1). Others get a
    line each. As text, the runs are listed below the table, and every one says in what it is not the paper's.

    Args:
        table: ``table1`` to ``table6``.
        folders: Run folders, folders of several seeds, or transfers; none for the paper's numbers alone.
        mixed: Print runs of two protocols, instead of refusing.
        form: Text for a terminal, Markdown, or CSV with a number a line.

    Raises:
        ConfigError: No such table, a run that has no place in it, or two protocols without `mixed`.
        CheckpointError: A folder holds no test scores.
    """
    names = _TOGETHER.get(table, (table,))
    tables = [lookup(PAPER_TABLES, name, "table") for name in names]
    if not all(content.tasks for content in tables):
        known = ", ".join(name for name, content in PAPER_TABLES.items() if content.tasks)
        raise ConfigError(f"{table}: has means over tasks and speeds, which no run stands beside (others: {known})")
    runs = [run for folder in folders for run in read_scored_runs(folder)]
    placed = [run for run in runs if any(_has_place(content, run) for content in tables)]
    for run in runs:
        config = run.config
        others = [one for one in placed if run.together and one.path.parent == run.path.parent]  # its other tasks
        if run not in placed and not others:
            shots = "" if config.data.few_shot is None else f" with {config.data.few_shot} examples"
            raise ConfigError(
                f"{run.path}: a run of {run.task!r}{shots} on {config.model.backbone} has no cell in {table}"
            )
    _check_protocols(placed, mixed=mixed)
    return "\n\n".join(_format(content, [run for run in runs if _has_place(content, run)], form) for content in tables)


def _check_protocols(runs: Sequence[ScoredRun], *, mixed: bool) -> None:
    by_protocol: dict[str, Path] = {}
    for run in runs:
        if run.config.data.protocol is not None:
            by_protocol.setdefault(run.config.data.protocol, run.path)
    if len(by_protocol) > 1 and not mixed:
        given = ", ".join(f"{protocol!r} ({path})" for protocol, path in sorted(by_protocol.items()))
        raise ConfigError(
            f"runs of different protocols are not comparable: {given}; give runs of one, or --mixed for a line each"
        )


def _has_place(table: PaperTable, run: ScoredRun) -> bool:
    """Returns whether a table has numbers of a run's task, k and backbone, whatever the method."""
    return run.task in table.tasks and any(fits_place(row, run.config) for row in table.rows)


def _format(table: PaperTable, runs: Sequence[ScoredRun], form: TableFormat) -> str:
    grid = format_grid(table, grid_lines(table, runs), form)
    if form == "csv":
        return grid
    if form == "markdown":
        return f"### {table.title}\n\n{grid}"
    lines, notes = _run_lines(table, runs)
    parts = [f"{table.title}\n{grid}"]
    if runs:
        parts.append(
            "\n".join(["ours, each cell:", format_table(lines), _OWN, *(f"  {m} {t}" for t, m in notes.items())])
        )
    parts += ["\n".join(f"  {note}" for note in table.notes)] if table.notes else []
    return "\n\n".join(parts)


def _run_lines(table: PaperTable, runs: Sequence[ScoredRun]) -> tuple[list[tuple[str, ...]], dict[str, str]]:
    """Returns a line for every cell that has runs, and the notes below the lines with their marks."""
    lines: list[tuple[str, ...]] = [_HEAD]
    notes: dict[str, str] = {}
    for task in table.tasks:
        for few_shot, backbone in dict.fromkeys((row.few_shot, row.backbone) for row in table.rows):
            label = f"{task}{f' k={few_shot}' if few_shot else ''}{f' {backbone}' if backbone else ''}"
            rows = [row for row in table.rows if (row.few_shot, row.backbone) == (few_shot, backbone)]
            here = [run for run in runs if run.task == task and fits_place(rows[0], run.config)]
            places = dict.fromkeys(paper_row(run) for run in here)
            for place in sorted(places, key=lambda place: place.method != _OWN_METHOD):
                of_it = [run for run in here if paper_row(run) == place]
                lines += _cell_lines(label, task, place.method, row_of(rows, of_it[0]), of_it, notes)
    return lines, notes


def _cell_lines(
    label: str, task: str, method: str, row: PaperRow | None, runs: Sequence[ScoredRun], notes: dict[str, str]
) -> list[tuple[str, ...]]:
    """Returns the lines of one number of the paper: of each score, one for every group of runs that agree.

    Args:
        label: What the lines begin with.
        task: Task name.
        method: The runs' method, as the paper's row is called.
        row: The paper's row of it, or None.
        runs: Of that task and method; at least one.
        notes: Texts below the table by what they say -> their marks; new ones are added.
    """
    printed = _MISSING
    if row is not None and task in row.values:
        printed = f"{row.values[task]} +- {row.std[task]}" if task in row.std else f"{row.values[task]}"
    groups: dict[str, list[ScoredRun]] = {}
    for run in runs:
        groups.setdefault(json.dumps(what_it_is(run), sort_keys=True), []).append(run)
    differing = _differing([json.loads(key) for key in groups])
    metrics = [get_task(task).primary_metric, *([_BESIDE[task]] if task in _BESIDE else [])]
    lines: list[tuple[str, ...]] = []
    for key, agreeing in groups.items():
        first = agreeing[0]
        phrases = not_the_papers(first, row)
        own = [f"{name} {value}" for name, value in json.loads(key).items() if name in differing]
        texts = [f"not the paper's: {'; '.join(phrases)}"] if phrases else []
        texts += [f"apart from the other runs of this cell: {', '.join(own)}"] if own else []
        marks = " ".join(notes.setdefault(text, f"[{len(notes) + 1}]") for text in texts)
        for name in metrics:
            mean, note = _mean(agreeing, name, task)
            if note:
                marks = f"{marks} {notes.setdefault(note, f'[{len(notes) + 1}]')}".strip()
            protocol = first.config.data.protocol or _MISSING
            lines.append((label, mean, printed, name, str(len(agreeing)), method, protocol, first.decode, marks))
    return lines


def _mean(runs: Sequence[ScoredRun], metric: str, task: str) -> tuple[str, str]:
    """Returns the mean of a score as printed, and a note where runs lack the one that stands beside the task's own.

    Raises:
        CheckpointError: A run lacks the task's own.
    """
    lacking = [run.path for run in runs if metric not in run.scores]
    if not lacking:
        return format_spread(metric, spread([run.scores[metric] for run in runs])), ""
    if metric != _BESIDE.get(task):
        raise CheckpointError(f"{lacking[0]}: has no {metric!r}; score the run with the task's own metrics")
    return _MISSING, f"{metric} is made by: dept-vl eval --checkpoint {lacking[0].parent}"


def _differing(groups: Sequence[Mapping[str, Any]]) -> set[str]:
    """Returns the keys that groups of runs have different values of."""
    keys = {key for group in groups for key in group}
    return {key for key in keys if len({json.dumps(group.get(key)) for group in groups}) > 1}
