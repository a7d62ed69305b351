"""Numbers of a page about rows: scores of groups, calibration, confusions, lengths. Nothing here rounds or draws."""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from dept_vl.evaluators.paired import interval_of_mean

BINS = 10
"""Of a reliability diagram, equally wide."""

OTHER = "(no label)"
"""Where a confusion matrix counts predictions outside the label set."""


@dataclass(frozen=True)
class Group:
    """What some rows score.

    Attributes:
        name: What they have in common.
        count: How many they are.
        mean: Of their scores.
        low: Lower end of its 95 % interval (`interval_of_mean`).
        high: Its upper end.
    """

    name: str
    count: int
    mean: float
    low: float
    high: float


def score_groups(names: Iterable[str | None], values: Sequence[float]) -> list[Group]:
    """Returns the score of each group of rows, in alphabetical order; rows without a name are in none."""
    grouped: dict[str, list[float]] = defaultdict(list)
    for name, value in zip(names, values, strict=True):
        if name is not None:
            grouped[name].append(value)
    most = max(values)
    return [
        Group(name, len(group), statistics.fmean(group), *interval_of_mean(group, most))
        for name, group in sorted(grouped.items())
    ]


@dataclass(frozen=True)
class Calibration:
    """How often answers of a confidence are right (Guo et al. 2017).

    Attributes:
        bins: Of each bin that has rows: how many, their mean confidence, the share that is right; both 0 to 1.
        error: Expected calibration error, 0 to 1: the mean distance of the two, weighted by the rows.
    """

    bins: tuple[tuple[int, float, float], ...]
    error: float


def calibrate(confidences: Sequence[float], is_right: Sequence[bool]) -> Calibration:
    """Returns confidences beside what came true, in `BINS` bins."""
    binned: dict[int, list[tuple[float, bool]]] = defaultdict(list)
    for confidence, right in zip(confidences, is_right, strict=True):
        binned[min(BINS - 1, max(0, int(confidence * BINS)))].append((confidence, right))
    bins = tuple(
        (len(rows), statistics.fmean(sure for sure, _ in rows), statistics.fmean(right for _, right in rows))
        for _, rows in sorted(binned.items())
    )
    total = sum(count for count, _, _ in bins)
    return Calibration(bins, sum(count * abs(sure - right) for count, sure, right in bins) / total)


def confusions(golds: Sequence[str], predictions: Sequence[str], labels: Sequence[str]) -> dict[str, Counter[str]]:
    """Returns of each label how often each label, or `OTHER`, was predicted in its place."""
    found: dict[str, Counter[str]] = {label: Counter() for label in labels}
    for gold, prediction in zip(golds, predictions, strict=True):
        if gold in found:
            found[gold][prediction if prediction in found else OTHER] += 1
    return found


@dataclass(frozen=True)
class Summary:
    """Of some numbers how many, the least, the median, the mean, and the most."""

    count: int
    least: float
    median: float
    mean: float
    most: float


def summarise(values: Sequence[float]) -> Summary:
    """Returns how numbers, at least one, are spread."""
    return Summary(len(values), min(values), statistics.median(values), statistics.fmean(values), max(values))


def words_of(texts: Iterable[str]) -> Summary | None:
    """Returns how long texts are, in words between blanks; None of no texts."""
    lengths = [len(text.split()) for text in texts]
    return summarise(lengths) if lengths else None


def differing_rows(answers: Mapping[Hashable, Sequence[str]]) -> list[int]:
    """Returns the rows to which not everyone gave the same answer, by their numbers."""
    return [row for row, texts in enumerate(zip(*answers.values(), strict=True)) if len(set(texts)) > 1]
