"""What the paper and its released runs say, from the package's data (Shi & Lipani 2024, arXiv 2309.05173v5).

Numbers are as printed (of 100; CIDEr x 100).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_FOLDER = Path(__file__).resolve().parent.parent / "assets" / "paper"


@dataclass(frozen=True)
class PaperRow:
    """One row of a table: what a method reached.

    Attributes:
        method: As ``--tuner`` names it, where we have it.
        values: Task name here -> number.
        std: Standard deviations over seeds, of the tasks that have one.
        few_shot: k of a few-shot row.
        group: Of Table 1: how it was trained, ``single-task``, ``multi-task``, ``transfer``, ``multi-task-transfer``.
        trained_with: The tasks that were trained together for it, where the table does not say so itself.
        backbone: Where it is not the table's T5-base.
        params: Trained parameters, as printed.
        updated_params_percent: Of Table 3.
        num_virtual_tokens: m, or l of prompt tuning, where the row has one.
        rank: r, where the row has one.
        means: Printed means of groups of tasks (`PaperTable.means`).
        samples_per_s: Inference speed.
        sst2_samples_per_s: The same on SST-2 (Table 8).
    """

    method: str
    values: Mapping[str, float]
    std: Mapping[str, float] = field(default_factory=dict)
    few_shot: int | None = None
    group: str | None = None
    trained_with: str | None = None
    backbone: str | None = None
    params: str | None = None
    updated_params_percent: float | None = None
    num_virtual_tokens: int | None = None
    rank: int | None = None
    means: Mapping[str, float] = field(default_factory=dict)
    samples_per_s: float | None = None
    sst2_samples_per_s: float | None = None


@dataclass(frozen=True)
class PaperTable:
    """A table of the paper.

    Attributes:
        title: What it is.
        tasks: Its columns of scores; empty for a table of means and speeds alone.
        rows: In the table's order.
        notes: What to know of its numbers.
        means: Name of a printed mean -> the tasks it is over.
    """

    title: str
    tasks: tuple[str, ...]
    rows: tuple[PaperRow, ...]
    notes: tuple[str, ...] = ()
    means: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class ReleasedRun:
    """A run that the authors released: settings from its log and its adapter, and its score.

    Attributes:
        test: Its score on the test split; rounded, the paper's cell.
        prompt_lr: Peak rate of the soft prompt.
        lowrank_lr: Peak rate of the pair.
        steps: Optimiser steps.
        rows_a_step: Over all accumulated passes.
        gradient_accumulation: Passes a step.
        warmup_steps: Of its schedule.
        max_grad_norm: Gradients are clipped at it.
        seed: Of the run.
        num_virtual_tokens: m.
        rank: r.
        max_source_length: s, in tokens.
    """

    test: float
    prompt_lr: float
    lowrank_lr: float
    steps: int
    rows_a_step: int
    gradient_accumulation: int
    warmup_steps: int
    max_grad_norm: float
    seed: int
    num_virtual_tokens: int
    rank: int
    max_source_length: int


@dataclass(frozen=True)
class PaperFigure:
    """The numbers of a figure of the paper, where it prints or tells them.

    Attributes:
        title: What it shows.
        num_virtual_tokens: m, along the first axis of curves.
        curves: Name -> a value an m.
        bars: Name -> its value.
    """

    title: str
    num_virtual_tokens: tuple[int, ...] = ()
    curves: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    bars: Mapping[str, float] = field(default_factory=dict)


def _read(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((_FOLDER / name).read_text(encoding="utf-8"))
    return content


def _table(content: dict[str, Any]) -> PaperTable:
    return PaperTable(
        content["title"],
        tuple(content["tasks"]),
        tuple(PaperRow(**row) for row in content["rows"]),
        tuple(content.get("notes", ())),
        {name: tuple(tasks) for name, tasks in content.get("means", {}).items()},
    )


def _figure(content: dict[str, Any]) -> PaperFigure:
    curves = {name: tuple(values) for name, values in content.get("curves", {}).items()}
    return PaperFigure(content["title"], tuple(content.get("num_virtual_tokens", ())), curves, content.get("bars", {}))


_CONTENT = _read("tables.json")

PAPER_TABLES: dict[str, PaperTable] = {name: _table(content) for name, content in _CONTENT["tables"].items()}
"""``table1`` to ``table8`` -> the table, the baselines' rows too."""

PAPER_FIGURES: dict[str, PaperFigure] = {name: _figure(content) for name, content in _CONTENT["figures"].items()}
"""``figure4`` and ``figure5``; Figure 6 is Table 1, and Figure 3 has curves without printed numbers."""

RELEASED_RUNS: dict[str, ReleasedRun] = {
    task: ReleasedRun(**run) for task, run in _read("released_runs.json")["runs"].items()
}
"""Task -> its released run: 17 of the 21 tasks of Tables 1 and 2."""
