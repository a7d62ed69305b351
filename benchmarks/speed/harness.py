"""Contestants in turns, ratios within each round, floors: what every benchmark shares. No torch."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

Values = Mapping[str, float]
"""What one measurement gives, by name; ``rate`` is work a second."""

Round = dict[str, Values]
"""Contestant to what it measured in one round."""


@dataclass(frozen=True)
class Contestant:
    """One way to do the work.

    Attributes:
        name: As the table prints it.
        measure: Does the work of one round and returns its values.
    """

    name: str
    measure: Callable[[], Values]


@dataclass(frozen=True)
class Floor:
    """What the ratio of two contestants must reach.

    Attributes:
        what: As the table prints it.
        ours: Contestant above the line of the ratio.
        peer: Contestant below it; None where the value itself is bounded.
        bound: The floor, or the ceiling.
        key: Which of the values.
        kind: Whether the ratio must be at least or at most the bound.
    """

    what: str
    ours: str
    peer: str | None
    bound: float
    key: str = "rate"
    kind: Literal["at least", "at most"] = "at least"


@dataclass(frozen=True)
class Spread:
    """A value over the rounds: median, least and most."""

    median: float
    least: float
    most: float


@dataclass(frozen=True)
class FloorResult:
    """A floor beside what was measured.

    Attributes:
        floor: The floor.
        ratio: Ours over the peer's, taken within each round.
        is_met: Whether the median meets it.
    """

    floor: Floor
    ratio: Spread
    is_met: bool


@dataclass(frozen=True)
class Result:
    """A finished benchmark.

    Attributes:
        name: Its name.
        unit: What ``rate`` counts, a second.
        rounds: Everything measured.
        floors: The floors it is held to.
        notes: What a reader must know: workload, settings, what was left out.
    """

    name: str
    unit: str
    rounds: Sequence[Round]
    floors: Sequence[Floor] = ()
    notes: Sequence[str] = field(default=())

    def contestants(self) -> list[str]:
        """Returns the names in order of the first round's measurements."""
        return list(dict.fromkeys(name for one in self.rounds for name in one))

    def spread(self, name: str, key: str = "rate") -> Spread | None:
        """Returns a contestant's value over the rounds; None if it has no such value."""
        return _spread([one[name][key] for one in self.rounds if name in one and key in one[name]])

    def ratio(self, ours: str, peer: str, key: str = "rate") -> Spread | None:
        """Returns ours over the peer's, taken within each round, so that a machine's drift cancels out."""
        both = [one for one in self.rounds if key in one.get(ours, {}) and key in one.get(peer, {})]
        return _spread([one[ours][key] / one[peer][key] for one in both])

    def floor_results(self) -> list[FloorResult]:
        """Returns every floor whose contestants took part."""
        results = []
        for floor in self.floors:
            if floor.peer is None:
                ratio = self.spread(floor.ours, floor.key)
            else:
                ratio = self.ratio(floor.ours, floor.peer, floor.key)
            if ratio is not None:
                is_met = ratio.median >= floor.bound if floor.kind == "at least" else ratio.median <= floor.bound
                results.append(FloorResult(floor, ratio, is_met))
        return results


def run_rounds(
    contestants: Sequence[Contestant], rounds: int, on_round: Callable[[int, Round], None] | None = None
) -> list[Round]:
    """Lets the contestants take turns; who starts moves on by one every round.

    Args:
        contestants: At least one.
        rounds: How often each of them measures.
        on_round: Called with the round's number and values.
    """
    results: list[Round] = []
    for number in range(rounds):
        shift = number % len(contestants)
        order = [*contestants[shift:], *contestants[:shift]]
        measured = {one.name: one.measure() for one in order}
        results.append({one.name: measured[one.name] for one in contestants})
        if on_round:
            on_round(number, results[-1])
    return results


def _spread(values: Sequence[float]) -> Spread | None:
    return Spread(statistics.median(values), min(values), max(values)) if values else None
