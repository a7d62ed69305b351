"""Our runs beside the paper's numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dept_vl.errors import CheckpointError, ConfigError
from dept_vl.experiments.scores import GENERATE, spread
from dept_vl.registry import lookup
from dept_vl.reports.paper_numbers import PAPER_TABLES, PaperCell
from dept_vl.reports.text import format_spread, format_table
from dept_vl.system.bounded_reading import parse_json, read_file

_MISSING = "-"


@dataclass(frozen=True)
class Outcome:
    """Test scores of a run, of several seeds, or of the chosen source of a transfer.

    Attributes:
        path: The file they were read from.
        task: Task name.
        few_shot: k, None for the whole training split.
        protocol: Of a text task.
        decode: How answers were made.
        scores: Metric -> one value a run.
    """

    path: Path
    task: str
    few_shot: int | None
    protocol: str | None
    decode: str
    scores: dict[str, tuple[float, ...]]

    @property
    def kind(self) -> tuple[str, int | None, str | None, str]:
        """What runs must agree in to be averaged."""
        return self.task, self.few_shot, self.protocol, self.decode


def compare(table: str, folders: Sequence[Path], *, mixed: bool = False) -> str:
    """Returns a table of the paper with ours beside it; what no run was given for is ``-``.

    Runs of one cell, protocol and way to decode are averaged: mean and sample standard deviation (n - 1).

    Args:
        table: A name in `PAPER_TABLES`.
        folders: Run folders, folders of several seeds, or transfers.
        mixed: Print runs of two protocols, one line each, instead of refusing.

    Raises:
        ConfigError: No such table, a run of a task that is not in it, or two protocols without `mixed`.
        CheckpointError: A folder holds no test scores.
    """
    paper = lookup(PAPER_TABLES, table, "table")
    outcomes = [read_outcome(folder) for folder in folders]
    known = {cell.key for cell in paper.cells}
    for outcome in outcomes:
        if (outcome.task, outcome.few_shot) not in known:
            shots = "" if outcome.few_shot is None else f" with {outcome.few_shot} examples"
            raise ConfigError(f"{outcome.path}: a run of {outcome.task!r}{shots} has no cell in {table}")
    _check_protocols(outcomes, mixed=mixed)
    rows: list[tuple[str, ...]] = [("task", "ours", "paper", "metric", "runs", "protocol", "decode")]
    for cell in paper.cells:
        rows += _rows(cell, [one for one in outcomes if (one.task, one.few_shot) == cell.key])
    note = "  (ours: mean +- sample standard deviation, n - 1; the paper's protocol is 'paper', decoded by generation)"
    return "\n".join([paper.title, format_table(rows), note])


def _check_protocols(outcomes: Sequence[Outcome], *, mixed: bool) -> None:
    by_protocol: dict[str, Path] = {}
    for outcome in outcomes:
        if outcome.protocol is not None:
            by_protocol.setdefault(outcome.protocol, outcome.path)
    if len(by_protocol) > 1 and not mixed:
        given = ", ".join(f"{protocol!r} ({path})" for protocol, path in sorted(by_protocol.items()))
        raise ConfigError(
            f"runs of different protocols are not comparable: {given}; give runs of one, or --mixed for a line each"
        )


def _rows(cell: PaperCell, outcomes: Sequence[Outcome]) -> list[tuple[str, ...]]:
    task = cell.task if cell.few_shot is None else f"{cell.task} k={cell.few_shot}"
    number = _MISSING if cell.value is None else f"{cell.value:.1f}"
    printed = number if cell.std is None else f"{number} +- {cell.std:.1f}"
    groups: dict[tuple[Any, ...], list[float]] = {}
    for outcome in outcomes:
        if cell.metric not in outcome.scores:
            raise CheckpointError(f"{outcome.path}: has no {cell.metric!r}; score the run with the task's own metrics")
        groups.setdefault(outcome.kind, []).extend(outcome.scores[cell.metric])
    if not groups:
        return [(task, _MISSING, printed, cell.metric, _MISSING, _MISSING, _MISSING)]
    return [
        (
            task,
            format_spread(cell.metric, spread(values)),
            printed,
            cell.metric,
            str(len(values)),
            protocol or _MISSING,
            decode,
        )
        for (_, _, protocol, decode), values in groups.items()
    ]


def read_outcome(folder: Path) -> Outcome:
    """Reads the test scores of a folder.

    Raises:
        CheckpointError: There are none, or they cannot be read.
    """
    for name, read in (("seeds.json", _of_seeds), ("transfer.json", _of_transfer), ("results-test.json", _of_run)):
        path = folder / name
        if not path.is_file():
            continue
        try:
            content = parse_json(read_file(path))
            config = content["config"]
            scores, decode = read(content)
            return Outcome(
                path, config["task"], config["data"].get("few_shot"), config["data"].get("protocol"), decode, scores
            )
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise CheckpointError(f"{path}: cannot read scores: {error!r}; score the run again") from None
    raise CheckpointError(f"{folder}: holds no test scores; make them with `dept-vl eval --checkpoint {folder}`")


_Scores = tuple[dict[str, tuple[float, ...]], str]
"""Values by metric, and how answers were made."""


def _of_seeds(content: dict[str, Any]) -> _Scores:
    return _values(content["metrics"]), content["runs"][0]["decode"]


def _of_transfer(content: dict[str, Any]) -> _Scores:
    chosen = content["starts"][content["best_source"]]
    return _values(chosen["test"]), chosen["runs"][0]["decode"]


def _of_run(content: dict[str, Any]) -> _Scores:
    return {name: (float(value),) for name, value in content["metrics"].items()}, content.get("decode", GENERATE)


def _values(spreads: dict[str, Any]) -> dict[str, tuple[float, ...]]:
    return {name: tuple(value["values"]) for name, value in spreads.items()}
