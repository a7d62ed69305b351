"""Whether two sets of answers to the same rows differ by more than chance: McNemar's test, and the paired bootstrap.

Both ask about other rows of the same kind, with the trained runs as they are: how much a score varies with the seed is
what its standard deviation over seeds says.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from dept_vl.errors import DataError
from dept_vl.evaluators import EVALUATORS, evaluator_name
from dept_vl.evaluators.base import EvaluationInput

if TYPE_CHECKING:
    import numpy as np

CORRECT = "correct"
"""Name of the row scores that evaluators of labels give: 1 for right, 0 for wrong."""

RESAMPLES = 10_000
RECOMPUTED = 1_000
"""Draws where the score itself is computed for each, as of a correlation."""

_CONFIDENCE = 0.95
_BATCH = 64


@dataclass(frozen=True)
class Answered:
    """What one method made of some rows, one or more runs of it.

    Attributes:
        score: The metric over all rows, the mean of the runs', in the scorer's own scale.
        each: Every row's own score, the mean of the runs'; None for a metric of which a row has none.
        inputs: Predictions and references of each run, in one order of rows.
    """

    score: float
    each: Sequence[float] | None
    inputs: tuple[EvaluationInput, ...]


@dataclass(frozen=True)
class Comparison:
    """One method beside another, on the same rows.

    Attributes:
        difference: Its score less the other's, in the scorer's own scale.
        test: ``"mcnemar"``: of rows that one answers rightly and the other wrongly; ``"bootstrap"``: of the difference.
        p: How probable a difference as large is if there is none, 0 to 1, two-sided; not corrected for several tests.
        low: Lower end of the 95 % interval of the difference; None for McNemar's test.
        high: Its upper end.
        better: Rows on which it scores higher; None where rows have no score.
        worse: Rows on which it scores lower.
    """

    difference: float
    test: Literal["mcnemar", "bootstrap"]
    p: float
    low: float | None = None
    high: float | None = None
    better: int | None = None
    worse: int | None = None


def row_scores(metric: str, inputs: EvaluationInput) -> list[float] | None:
    """Returns what each row scores by a metric: its own score, else right or wrong, else None (a correlation).

    Raises:
        ConfigError: There is no such metric.
    """
    each = EVALUATORS[evaluator_name(metric)].each
    scores = each(inputs) if each else {}
    return scores.get(metric, scores.get(CORRECT))


def compare_answers(metric: str, ours: Answered, theirs: Answered, *, seed: int = 0) -> Comparison:
    """Tests the difference between two methods on the same rows.

    McNemar's exact test where every row is right or wrong; else a paired bootstrap over the rows, of the mean of their
    scores, or, where rows have none, of the metric itself computed for every draw.

    Args:
        metric: A score's name.
        ours: One method.
        theirs: The other, the rows in the same order.
        seed: Of the bootstrap.

    Raises:
        DataError: They have not equally many rows.
    """
    sizes = {len(inputs.predictions) for side in (ours, theirs) for inputs in side.inputs}
    sizes |= {len(side.each) for side in (ours, theirs) if side.each is not None}
    if len(sizes) > 1:
        raise DataError(f"answers to different numbers of rows cannot be compared: {sorted(sizes)}")
    difference = ours.score - theirs.score
    if ours.each is None or theirs.each is None:
        return _recomputed(metric, ours, theirs, difference, seed)
    better = sum(a > b for a, b in zip(ours.each, theirs.each, strict=True))
    worse = sum(a < b for a, b in zip(ours.each, theirs.each, strict=True))
    if is_right_or_wrong([*ours.each, *theirs.each]):
        return Comparison(difference, "mcnemar", mcnemar(better, worse), None, None, better, worse)
    p, low, high = bootstrap([a - b for a, b in zip(ours.each, theirs.each, strict=True)], seed)
    return Comparison(difference, "bootstrap", p, low, high, better, worse)


def is_right_or_wrong(values: Sequence[float]) -> bool:
    """Returns whether scores of rows are 0 or one other value alone."""
    return len({0.0, *values}) <= 2


def mcnemar(better: int, worse: int) -> float:
    """Returns the exact two-sided p of McNemar's test (McNemar 1947): binomial with 1/2 over the rows that differ.

    Args:
        better: Rows that the first answers rightly and the second wrongly.
        worse: The other way round.
    """
    from scipy.stats import binomtest

    return float(binomtest(better, better + worse, 0.5).pvalue) if better + worse else 1.0


def bootstrap(differences: Sequence[float], seed: int) -> tuple[float, float, float]:
    """Returns p, and the 95 % percentile interval, of the mean of paired differences (Efron & Tibshirani 1993).

    p is two-sided: the share of draws whose mean lies at least as far from the mean that was found as that lies from 0,
    the found one counted among them.
    """
    import numpy as np
    from scipy.stats import bootstrap as draw

    values = np.asarray(differences, dtype=np.float64)
    if len(values) < 2 or np.all(values == values[0]):
        mean = float(values.mean())
        return (1.0 if mean == 0 or len(values) < 2 else 1 / (RESAMPLES + 1)), mean, mean
    drawn = draw(
        (values,), np.mean, n_resamples=RESAMPLES, batch=_BATCH, vectorized=True, confidence_level=_CONFIDENCE,
        method="percentile", rng=np.random.default_rng(seed),
    )  # fmt: skip
    interval = drawn.confidence_interval
    return _share_as_far(drawn.bootstrap_distribution, float(values.mean())), float(interval.low), float(interval.high)


def interval(metric: str, answered: Answered, *, seed: int = 0) -> tuple[float, float] | None:
    """Returns the 95 % bootstrap interval of one method's score over the rows, in the scorer's own scale.

    Of the mean of the rows' scores where the score is that; else the score is computed anew for every draw.

    Args:
        metric: A score's name.
        answered: What the method made of the rows.
        seed: Of the bootstrap.

    Returns:
        Its ends; None where the score cannot be computed from predictions and references alone.
    """
    import numpy as np

    each = answered.each
    if each is not None and math.isclose(sum(each) / len(each), answered.score, rel_tol=1e-9, abs_tol=1e-9):
        return bootstrap(each, seed)[1:]
    compute, generator = EVALUATORS[evaluator_name(metric)].compute, np.random.default_rng(seed)
    rows = len(answered.inputs[0].predictions)
    if any(metric not in compute(inputs) for inputs in answered.inputs):
        return None
    drawn = []
    for _ in range(RECOMPUTED):
        chosen = generator.integers(0, rows, rows)
        drawn.append(np.mean([compute(_rows(inputs, chosen))[metric] for inputs in answered.inputs]))
    low, high = np.quantile(drawn, [(1 - _CONFIDENCE) / 2, (1 + _CONFIDENCE) / 2])
    return float(low), float(high)


def interval_of_mean(values: Sequence[float], most: float, *, seed: int = 0) -> tuple[float, float]:
    """Returns the 95 % interval of the mean of some rows' scores, few of them perhaps.

    Wilson's interval of a share (Wilson 1927) where every row scores nothing or all, as a bootstrap of few rows that
    are all right would have no width; else the percentile bootstrap.

    Args:
        values: At least one.
        most: What a row that is right scores.
        seed: Of the bootstrap.
    """
    from scipy.stats import binomtest

    if not {0.0, most}.issuperset(values):
        return bootstrap(values, seed)[1:]
    found = binomtest(sum(value != 0 for value in values), len(values)).proportion_ci(_CONFIDENCE, method="wilson")
    return float(found.low) * most, float(found.high) * most


def _share_as_far(drawn: np.ndarray, found: float) -> float:
    """Returns the two-sided p of a value, given draws around it."""
    import numpy as np

    as_far = int(np.count_nonzero(np.abs(drawn - found) >= abs(found) - 1e-12))
    return (1 + as_far) / (1 + len(drawn))


def _recomputed(metric: str, ours: Answered, theirs: Answered, difference: float, seed: int) -> Comparison:
    """Returns the bootstrap of a metric that is not a mean over rows."""
    import numpy as np

    compute, generator = EVALUATORS[evaluator_name(metric)].compute, np.random.default_rng(seed)
    rows = len(ours.inputs[0].predictions)

    def mean_score(side: Answered, chosen: np.ndarray) -> float:
        return float(np.mean([compute(_rows(inputs, chosen))[metric] for inputs in side.inputs]))

    found = []
    for _ in range(RECOMPUTED):
        chosen = generator.integers(0, rows, rows)
        found.append(mean_score(ours, chosen) - mean_score(theirs, chosen))
    drawn = np.array(found)
    low, high = np.quantile(drawn, [(1 - _CONFIDENCE) / 2, (1 + _CONFIDENCE) / 2])
    return Comparison(difference, "bootstrap", _share_as_far(drawn, difference), float(low), float(high))


def _rows(inputs: EvaluationInput, chosen: np.ndarray) -> EvaluationInput:
    """Returns some rows of an input, in the order chosen."""
    predictions, references = inputs.predictions, inputs.references
    return EvaluationInput([predictions[i] for i in chosen], [references[i] for i in chosen], inputs.tokenizer)
