"""Our runs beside the paper's numbers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dept_vl.errors import CheckpointError, ConfigError
from dept_vl.experiments.scores import spread
from dept_vl.registry import lookup
from dept_vl.reports.paper_numbers import PAPER_TABLES, PaperRow, PaperTable
from dept_vl.reports.paper_settings import not_the_papers, short_name, what_it_is
from dept_vl.reports.scored_runs import ScoredRun, read_scored_runs
from dept_vl.reports.text import format_spread, format_table
from dept_vl.settings.schema import TrainConfig
from dept_vl.tasks import get_task

_MISSING = "-"
_OWN_METHOD = "dept"
_OWN_GROUP = "single-task"
_HEAD = ("task", "ours", "paper", "metric", "runs", "method", "protocol", "decode", "")
_TOGETHER = {"table4_5": ("table4", "table5")}
"""What earlier versions called one table -> the tables."""

_BESIDE = {"vqa": "vqa_accuracy_legacy_vlt5"}
"""Task -> a second score that stands beside its own; runs of earlier versions lack it."""


def compare(table: str, folders: Sequence[Path], *, mixed: bool = False) -> str:
    """Returns a table of the paper with ours beside it; what no run was given for is ``-``.

    Runs that agree in everything but the seed are averaged: mean and sample standard deviation (n - 1). Others get a
    line each, and every line says below the table in what it is not the paper's.

    Args:
        table: ``table1`` to ``table6``.
        folders: Run folders, folders of several seeds, or transfers.
        mixed: Print runs of two protocols, instead of refusing.

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
    for run in runs:
        config = run.config
        if not any(_has_place(content, config) for content in tables):
            shots = "" if config.data.few_shot is None else f" with {config.data.few_shot} examples"
            raise ConfigError(
                f"{run.path}: a run of {config.task!r}{shots} on {config.model.backbone} has no cell in {table}"
            )
    _check_protocols(runs, mixed=mixed)
    return "\n\n".join(_format(content, [run for run in runs if _has_place(content, run.config)]) for content in tables)


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


def _has_place(table: PaperTable, config: TrainConfig) -> bool:
    """Returns whether a table has numbers of a run's task, k and backbone, whatever the method."""
    return config.task in table.tasks and any(_fits(row, config) for row in table.rows)


def _fits(row: PaperRow, config: TrainConfig) -> bool:
    """Returns whether a row has the k of a run and, where it names one, the backbone."""
    name = short_name(config.model.backbone).lower()
    return row.few_shot == config.data.few_shot and (row.backbone is None or name.startswith(row.backbone))


def _format(table: PaperTable, runs: Sequence[ScoredRun]) -> str:
    lines: list[tuple[str, ...]] = [_HEAD]
    notes: dict[str, str] = {}
    places = {(row.few_shot, row.backbone): row for row in table.rows}
    for task in table.tasks:
        for (few_shot, backbone), any_row in places.items():
            label = f"{task}{f' k={few_shot}' if few_shot else ''}{f' {backbone}' if backbone else ''}"
            here = [run for run in runs if run.config.task == task and _fits(any_row, run.config)]
            rows = {
                row.method: row
                for row in table.rows
                if (row.few_shot, row.backbone) == (few_shot, backbone) and row.group in (None, _OWN_GROUP)
            }
            for method in dict.fromkeys([_OWN_METHOD, *(run.config.tuner.label for run in here)]):
                of_it = [run for run in here if run.config.tuner.label == method]
                lines += _cell_lines(label, task, method, rows.get(method), of_it, notes)
    own = "  (ours: mean +- sample standard deviation, n - 1)"
    return "\n".join(
        [table.title, format_table(lines), own, *(f"  {mark} {text}" for text, mark in notes.items())]
        + [f"  {note}" for note in table.notes]
    )


def _cell_lines(
    label: str, task: str, method: str, row: PaperRow | None, runs: Sequence[ScoredRun], notes: dict[str, str]
) -> list[tuple[str, ...]]:
    """Returns the lines of one number of the paper: of each score, one for every group of runs that agree.

    Args:
        label: What the lines begin with.
        task: Task name.
        method: The runs' method.
        row: The paper's row of it, or None.
        runs: Of that task and method.
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
    if not groups:
        return [(label, _MISSING, printed, name, _MISSING, method, _MISSING, _MISSING, "") for name in metrics]
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
