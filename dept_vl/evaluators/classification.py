"""Scores of predicted labels: accuracy, F1, Matthews correlation, and those of MultiRC and CB.

All come from scikit-learn, on its scale (0 to 1; Matthews correlation -1 to 1). A prediction that is not a label is
never right; what else it does to a score is said in each docstring. scikit-learn is imported on first use.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from dept_vl.errors import DataError
from dept_vl.evaluators.base import TIMES_100, EvaluationInput, Evaluator

_OTHER = {"0": "1", "1": "0"}
_CB_LABELS = ("0", "1", "2")


def gold_labels(inputs: EvaluationInput) -> list[str]:
    """Returns the one reference of every example.

    Raises:
        DataError: An example has several references.
    """
    for reference in inputs.references:
        if len(reference.references) > 1:
            raise DataError(
                f"example {reference.example_id} has {len(reference.references)} references; "
                "this score compares a label with one"
            )
    return [reference.references[0] for reference in inputs.references]


def accuracy(inputs: EvaluationInput) -> dict[str, float]:
    """Returns the share of predictions that equal their label, character by character.

    Raises:
        DataError: As `gold_labels`.
    """
    from sklearn.metrics import accuracy_score

    return {"accuracy": float(accuracy_score(gold_labels(inputs), list(inputs.predictions)))}


def f1(inputs: EvaluationInput) -> dict[str, float]:
    """Returns F1 of the label "1"; an invalid prediction counts as the wrong class (T5's rule, so the released code's).

    Raises:
        DataError: As `gold_labels`; or a reference is neither "0" nor "1".
    """
    return {"f1": _f1(inputs.predictions, gold_labels(inputs))}


def _f1(predictions: Sequence[str], golds: Sequence[str]) -> float:
    from sklearn.metrics import f1_score

    strange = set(golds) - _OTHER.keys()
    if strange:
        raise DataError(f'F1 is for the labels "0" and "1", found the reference {min(strange)!r}')
    valid = [p if p in _OTHER else _OTHER[gold] for p, gold in zip(predictions, golds, strict=True)]
    return float(f1_score(list(golds), valid, pos_label="1", zero_division=0.0))


def matthews_correlation(inputs: EvaluationInput) -> dict[str, float]:
    """Returns Matthews correlation of the raw strings: invalid predictions are classes of their own, as released.

    Raises:
        DataError: As `gold_labels`.
    """
    from sklearn.metrics import matthews_corrcoef

    golds = gold_labels(inputs)
    return {"matthews_correlation": float(matthews_corrcoef(golds, list(inputs.predictions)))}


def cb(inputs: EvaluationInput) -> dict[str, float]:
    """Returns accuracy and the unweighted mean F1 of the labels "0", "1", "2" (SuperGLUE's two scores of CB).

    Raises:
        DataError: As `gold_labels`.
    """
    from sklearn.metrics import f1_score

    golds = gold_labels(inputs)
    macro = f1_score(golds, list(inputs.predictions), labels=list(_CB_LABELS), average="macro", zero_division=0.0)
    return {**accuracy(inputs), "f1_macro": float(macro)}


def multirc(inputs: EvaluationInput) -> dict[str, float]:
    """Returns MultiRC's F1a, F1 over all answers as `f1`, and where whole questions are known ``em``.

    ``em`` is the share of questions whose every answer is labelled rightly (SuperGLUE). It is only given where every
    reference has its group; the released code's split tears questions apart, so there is none under ``paper``.

    Raises:
        DataError: As `f1`.
    """
    golds = gold_labels(inputs)
    scores = {"f1a": _f1(inputs.predictions, golds)}
    if any(reference.group is None for reference in inputs.references):
        return scores
    is_right: dict[str | None, bool] = defaultdict(lambda: True)
    for prediction, gold, reference in zip(inputs.predictions, golds, inputs.references, strict=True):
        is_right[reference.group] &= prediction == gold
    return {**scores, "em": sum(is_right.values()) / len(is_right)}


ACCURACY = Evaluator(accuracy, {"accuracy": TIMES_100})
F1 = Evaluator(f1, {"f1": TIMES_100})
MATTHEWS_CORRELATION = Evaluator(matthews_correlation, {"matthews_correlation": TIMES_100})
CB = Evaluator(cb, {"accuracy": TIMES_100, "f1_macro": TIMES_100})
MULTIRC = Evaluator(multirc, {"f1a": TIMES_100, "em": TIMES_100})
