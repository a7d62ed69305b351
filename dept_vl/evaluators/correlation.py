"""Pearson and Spearman correlation of predicted numbers, from scipy, -1 to 1; scipy is imported on first use."""

from __future__ import annotations

import math
import warnings

from dept_vl.errors import DataError
from dept_vl.evaluators.base import TIMES_100, EvaluationInput, Evaluator
from dept_vl.evaluators.classification import gold_labels

UNREADABLE = -1.0
"""What a prediction that is not a finite number counts as; the released ``string_to_float`` (its "nan" stays nan)."""


def pearson(inputs: EvaluationInput) -> dict[str, float]:
    """Returns Pearson correlation; 0 where it is undefined, as where all predictions are equal (released code).

    Raises:
        DataError: As `gold_labels`; or a reference is not a number.
    """
    from scipy.stats import pearsonr

    return {"pearson": _correlate(pearsonr, inputs)}


def spearman(inputs: EvaluationInput) -> dict[str, float]:
    """Returns Spearman rank correlation; as `pearson`."""
    from scipy.stats import spearmanr

    return {"spearman": _correlate(spearmanr, inputs)}


def _correlate(statistic: object, inputs: EvaluationInput) -> float:
    golds = [_number(gold) for gold in gold_labels(inputs)]
    numbers = [_number(prediction) for prediction in inputs.predictions]
    for gold, reference in zip(golds, inputs.references, strict=True):
        if gold is None:
            raise DataError(f"example {reference.example_id}: reference {reference.references[0]!r} is not a number")
    if len(golds) < 2:
        return 0.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # constant input: its correlation is nan, and 0 here
        value = float(statistic(golds, [UNREADABLE if n is None else n for n in numbers])[0])  # type: ignore[operator]
    return 0.0 if math.isnan(value) else value


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


PEARSON = Evaluator(pearson, {"pearson": TIMES_100})
SPEARMAN = Evaluator(spearman, {"spearman": TIMES_100})
