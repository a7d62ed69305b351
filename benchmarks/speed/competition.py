"""Contestants in processes of their own, over one or several workloads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

from benchmarks.speed.harness import Contestant, Round, Values, run_rounds
from benchmarks.speed.settings import BenchSettings
from benchmarks.speed.worker import Worker
from benchmarks.speed.workload import glue_lengths


@dataclass(frozen=True)
class Entry:
    """One contestant.

    Attributes:
        name: As the table prints it.
        job: ``package.module:Class`` of its `benchmarks.speed.worker.Job`.
        arguments: Of the class, JSON values.
        is_constant: Whether all workloads take it the same time; it then does the first one only.
    """

    name: str
    job: str
    arguments: dict[str, Any]
    is_constant: bool = False


def compete(entries: Sequence[Entry], workloads: Sequence[str], settings: BenchSettings) -> dict[str, list[Round]]:
    """Lets the wanted entries take turns.

    A round in which everything is loaded and warmed up comes first and is not counted; a constant entry, whose rounds
    are long, is not warmed up.

    Returns:
        Workload to its rounds.
    """
    wanted = [entry for entry in entries if settings.wants(entry.name)]
    with ExitStack() as stack:
        workers = []
        for number, entry in enumerate(wanted):
            workers.append(Worker(entry.job, entry.arguments, settings.work_dir / f"contestant-{number}.log"))
            stack.callback(workers[-1].close)
        contestants = []
        for worker, entry in zip(workers, wanted, strict=True):
            worker.wait()
            own = workloads[:1] if entry.is_constant else workloads
            if not entry.is_constant:
                worker.measure(own[0])
            contestants.append(Contestant(entry.name, partial(_measure, worker, own)))
        rounds = run_rounds(contestants, settings.rounds, settings.report_round)
    return {
        name: [{one: _of(values, name, workloads) for one, values in each.items()} for each in rounds]
        for name in workloads
    }


def mix(rounds: Mapping[str, Sequence[Round]], rows: Mapping[str, int]) -> list[Round]:
    """Returns what the rounds come to over all rows of all workloads: times add up, and memory is the largest.

    Args:
        rounds: Workload to its rounds, the same contestants in each.
        rows: Workload to its number of rows.
    """
    mixed: list[Round] = []
    for together in zip(*rounds.values(), strict=True):
        by_workload = dict(zip(rounds, together, strict=True))
        mixed.append(
            {name: _mix_values({w: one[name] for w, one in by_workload.items()}, rows) for name in together[0]}
        )
    return mixed


def mix_all(rounds: Mapping[str, Sequence[Round]]) -> tuple[str, list[Round], str]:
    """Mixes data sets by their train rows (`glue_lengths`); returns a name for it, the rounds, and a note."""
    rows = {name: len(glue_lengths(name)) for name in rounds}
    counts = ", ".join(f"{count:,} {name}" for name, count in rows.items())
    return "all rows together", mix(rounds, rows), f"the figures above over {counts} rows: times added up"


def _mix_values(values: Mapping[str, Values], rows: Mapping[str, int]) -> dict[str, float]:
    seconds = sum(rows[workload] / one["rate"] for workload, one in values.items())
    memory = [key for key in ("peak_gib", "over_loaded_gib") if all(key in one for one in values.values())]
    largest = {key: max(one[key] for one in values.values()) for key in memory}
    return {"rate": sum(rows[workload] for workload in values) / seconds, **largest}


def _measure(worker: Worker, workloads: Sequence[str]) -> dict[str, float]:
    """Returns the values of some workloads, ``key:workload``."""
    return {f"{key}:{name}": value for name in workloads for key, value in worker.measure(name).items()}


def _of(values: Values, name: str, workloads: Sequence[str]) -> dict[str, float]:
    """Returns the values of one workload; of a constant entry, those of the one it did."""
    parts = {tuple(key.split(":", 1)): value for key, value in values.items()}
    done = {part[1] for part in parts}
    chosen = name if name in done else workloads[0]
    return {part[0]: value for part, value in parts.items() if part[1] == chosen}
