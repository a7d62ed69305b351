"""Scores of runs as files hold them, and their mean and deviation over runs. No torch."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dept_vl.errors import CheckpointError
from dept_vl.system.bounded_reading import parse_json, read_file

RESULTS_FILE = "results-test.json"
GENERATE = "generate"
"""How answers are made where a file of scores does not say."""
STD = "sample standard deviation (n - 1); null for a single run"


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


def spread_records(values: Mapping[str, Spread]) -> dict[str, Any]:
    """Returns spreads as JSON."""
    return {name: asdict(value) for name, value in values.items()}


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
