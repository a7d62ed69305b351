"""Pearson and Spearman correlation of predicted numbers, -1 to 1, with scipy's formulas; the tests compare with it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from dept_vl.errors import DataError
from dept_vl.evaluators.base import LABELS, TIMES_100, Concern, EvaluationInput, Evaluator, Reference
from dept_vl.evaluators.classification import constant_golds, gold_labels

if TYPE_CHECKING:
    import numpy as np

UNREADABLE = -1.0
"""What a prediction that is not a finite number counts as; the released ``string_to_float`` (its "nan" stays nan)."""


def pearson(inputs: EvaluationInput) -> dict[str, float]:
    """Returns Pearson correlation; 0 where it is undefined, as where all predictions are equal (released code).

    Raises:
        DataError: As `gold_labels`; or a reference is not a number.
    """
    return {"pearson": _correlate(*_numbers(inputs))}


def spearman(inputs: EvaluationInput) -> dict[str, float]:
    """Returns Spearman correlation: Pearson's of the ranks, equal numbers having their mean rank; as `pearson`."""
    return {"spearman": _correlate(*map(_ranks, _numbers(inputs)))}


def _correlate(golds: np.ndarray, predictions: np.ndarray) -> float:
    """Returns Pearson correlation of two (rows,) arrays; 0 where one of them is constant, or too large to tell."""
    import numpy as np

    if any(np.all(side == side[0]) for side in (golds, predictions)):
        return 0.0
    with np.errstate(all="ignore"):
        value = float(np.dot(_direction(golds), _direction(predictions)))
    return 0.0 if math.isnan(value) else max(-1.0, min(1.0, value))


def _direction(values: np.ndarray) -> np.ndarray:
    """Returns what is above the mean, as a vector of length 1; scaled first, so that squares stay finite."""
    import numpy as np

    above = values - values.mean()
    largest = np.abs(above).max()
    return np.asarray(above / (largest * np.linalg.norm(above / largest)))


def _ranks(values: np.ndarray) -> np.ndarray:
    """Returns the rank of each number from 1 on, equal ones their mean, (rows,)."""
    import numpy as np

    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[places])


def _numbers(inputs: EvaluationInput) -> tuple[np.ndarray, np.ndarray]:
    """Returns references and predictions as numbers, both (rows,) float64."""
    import numpy as np

    numbers = [_number(prediction) for prediction in inputs.predictions]
    predictions = np.array([UNREADABLE if number is None else number for number in numbers], dtype=np.float64)
    return np.array(_gold_numbers(inputs.references), dtype=np.float64), predictions


def _gold_numbers(references: Sequence[Reference]) -> list[float]:
    golds = []
    for gold, reference in zip(gold_labels(references), references, strict=True):
        number = _number(gold)
        if number is None:
            raise DataError(f"example {reference.example_id}: reference {gold!r} is not a number")
        golds.append(number)
    return golds


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def check_numbers(references: Sequence[Reference]) -> list[Concern]:
    """Returns the concern that all references are equal, as the one of a single row is.

    Raises:
        DataError: As `pearson`.
    """
    _gold_numbers(references)
    return constant_golds("a correlation", references)


PEARSON = Evaluator(pearson, {"pearson": TIMES_100}, check_references=check_numbers, kinds=LABELS)
SPEARMAN = Evaluator(spearman, {"spearman": TIMES_100}, check_references=check_numbers, kinds=LABELS)
