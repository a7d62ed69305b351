"""Scores of predicted labels: accuracy, F1, Matthews correlation, and those of MultiRC, CB and NLVR2.

The formulas and the scale (0 to 1; Matthews correlation -1 to 1) are scikit-learn's, which the tests compare with. A
prediction that is not a label is never right; what else it does to a score is said in each docstring.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from functools import partial

from dept_vl.errors import DataError
from dept_vl.evaluators.base import (
    LABELS,
    TIMES_100,
    Concern,
    EvaluationInput,
    Evaluator,
    Reference,
    add_up,
    by_type,
    mean,
)

_OTHER = {"0": "1", "1": "0"}
_CB_LABELS = ("0", "1", "2")


def gold_labels(references: Sequence[Reference]) -> list[str]:
    """Returns the one reference of every example.

    Raises:
        DataError: An example has several references.
    """
    for reference in references:
        if len(reference.references) > 1:
            raise DataError(
                f"example {reference.example_id} has {len(reference.references)} references; "
                "this score compares a label with one"
            )
    return [reference.references[0] for reference in references]


def constant_golds(score: str, references: Sequence[Reference]) -> list[Concern]:
    """Returns the concern that all references are equal, where a correlation is undefined and counts as 0."""
    golds = gold_labels(references)
    if len(set(golds)) > 1:
        return []
    return [Concern(f"every reference is {golds[0]!r}: {score} is 0 whatever is predicted", "accuracy")]


def _check_labels(references: Sequence[Reference]) -> list[Concern]:
    gold_labels(references)
    return []


def _is_right(inputs: EvaluationInput) -> dict[str, list[float]]:
    """Returns ``correct``, 1 for each prediction that equals its label, else 0."""
    golds = gold_labels(inputs.references)
    return {"correct": [float(p == gold) for p, gold in zip(inputs.predictions, golds, strict=True)]}


def accuracy(inputs: EvaluationInput) -> dict[str, float]:
    """Returns the share of predictions that equal their label, character by character, and by type.

    The official accuracies of GQA (``eval.py``) and ScienceQA (``tools/evaluate_acc.py``) are this.

    Raises:
        DataError: As `gold_labels`.
    """
    (right,) = _is_right(inputs).values()
    return {"accuracy": mean(right), **by_type("accuracy", right, inputs.references, mean)}


def f1(inputs: EvaluationInput) -> dict[str, float]:
    """Returns F1 of the label "1"; an invalid prediction counts as the wrong class (T5's rule, so the released code's).

    Raises:
        DataError: As `gold_labels`; or a reference is neither "0" nor "1".
    """
    return {"f1": _f1(inputs)}


def _f1(inputs: EvaluationInput) -> float:
    golds = _binary_golds(inputs.references)
    valid = [p if p in _OTHER else _OTHER[gold] for p, gold in zip(inputs.predictions, golds, strict=True)]
    return _f1_of("1", valid, golds)


def _f1_of(label: str, predictions: Sequence[str], golds: Sequence[str]) -> float:
    """Returns F1 of one label, 2 * hits / (predicted + there); 0 where it is neither predicted nor there."""
    hits = sum(prediction == gold == label for prediction, gold in zip(predictions, golds, strict=True))
    total = sum(one == label for one in (*predictions, *golds))
    return 2 * hits / total if total else 0.0


def _binary_golds(references: Sequence[Reference]) -> list[str]:
    golds = gold_labels(references)
    strange = set(golds) - _OTHER.keys()
    if strange:
        raise DataError(f'F1 is for the labels "0" and "1", found the reference {min(strange)!r}')
    return golds


def _check_binary(references: Sequence[Reference]) -> list[Concern]:
    """Returns the concern that nothing is there to be found: F1 is of the label "1"."""
    if "1" in _binary_golds(references):
        return []
    return [Concern("no reference is '1', the label that F1 is of: it is 0 whatever is predicted", "accuracy")]


def matthews_correlation(inputs: EvaluationInput) -> dict[str, float]:
    """Returns Matthews correlation of the raw strings: invalid predictions are classes of their own, as released.

    Of several classes as Gorodkin 2004 defines it (R_K); 0 where it is undefined: all predictions or all labels
    are equal.

    Raises:
        DataError: As `gold_labels`.
    """
    golds, predictions = gold_labels(inputs.references), list(inputs.predictions)
    count = len(golds)
    hits = sum(prediction == gold for prediction, gold in zip(predictions, golds, strict=True))
    there, predicted = Counter(golds), Counter(predictions)
    both = hits * count - sum(number * predicted[label] for label, number in there.items())
    of_there, of_predicted = (count**2 - sum(number**2 for number in side.values()) for side in (there, predicted))
    spread = float(of_predicted) * float(of_there)  # floats, as scikit-learn multiplies them
    return {"matthews_correlation": both / math.sqrt(spread) if spread else 0.0}


def cb(inputs: EvaluationInput) -> dict[str, float]:
    """Returns accuracy and the unweighted mean F1 of the labels "0", "1", "2" (SuperGLUE's two scores of CB).

    Raises:
        DataError: As `gold_labels`.
    """
    golds, predictions = gold_labels(inputs.references), list(inputs.predictions)
    each = [_f1_of(label, predictions, golds) for label in _CB_LABELS]
    return {**accuracy(inputs), "f1_macro": add_up(each) / len(each)}


def _check_cb(references: Sequence[Reference]) -> list[Concern]:
    """Returns the concern that a class is absent, whose F1 is 0."""
    absent = sorted(set(_CB_LABELS) - set(gold_labels(references)))
    if not absent:
        return []
    most = 100 * (1 - len(absent) / len(_CB_LABELS))
    return [Concern(f"no reference is {' or '.join(map(repr, absent))}: f1_macro is at most {most:.1f} of 100")]


def multirc(inputs: EvaluationInput) -> dict[str, float]:
    """Returns MultiRC's F1a, F1 over all answers as `f1`, and where whole questions are known ``em``.

    ``em`` is the share of questions whose every answer is labelled rightly (SuperGLUE). It is only given where every
    reference has its group; the released code's split tears questions apart, so there is none under ``paper``.

    Raises:
        DataError: As `f1`.
    """
    scores = {"f1a": _f1(inputs)}
    if any(reference.group is None for reference in inputs.references):
        return scores
    is_right: dict[str | None, bool] = defaultdict(lambda: True)
    for prediction, reference in zip(inputs.predictions, inputs.references, strict=True):
        is_right[reference.group] &= prediction == reference.references[0]
    return {**scores, "em": sum(is_right.values()) / len(is_right)}


def nlvr2(inputs: EvaluationInput) -> dict[str, float]:
    """Returns accuracy, and by type, and ``consistency``: the share of groups of which every prediction is right.

    A group is a sentence of NLVR2 with all its pairs of images. As in its ``nlvr2/eval/metrics.py``, upper and lower
    case are the same.

    Raises:
        DataError: As `gold_labels`; or a reference has no group.
    """
    _require_groups(inputs.references)
    (right,) = _is_right_in_any_case(inputs).values()
    is_right: dict[str | None, bool] = defaultdict(lambda: True)
    for value, reference in zip(right, inputs.references, strict=True):
        is_right[reference.group] &= value == 1
    consistency = sum(is_right.values()) / len(is_right)
    return {
        "accuracy": mean(right),
        **by_type("accuracy", right, inputs.references, mean),
        "consistency": consistency,
    }


def _is_right_in_any_case(inputs: EvaluationInput) -> dict[str, list[float]]:
    golds = gold_labels(inputs.references)
    return {"correct": [float(p.lower() == gold.lower()) for p, gold in zip(inputs.predictions, golds, strict=True)]}


def _require_groups(references: Sequence[Reference]) -> None:
    for reference in references:
        if reference.group is None:
            raise DataError(
                f"example {reference.example_id} has no group, and consistency is of groups: name their column in the "
                "task's file (details: {group: COLUMN}), or take accuracy"
            )


def _check_groups(references: Sequence[Reference]) -> list[Concern]:
    """Returns the concern that every group is one example, so that consistency is accuracy."""
    gold_labels(references)
    _require_groups(references)
    if len({reference.group for reference in references}) < len(references):
        return []
    return [Concern("every group has one example: consistency is accuracy")]


ACCURACY = Evaluator(accuracy, {"accuracy": TIMES_100}, check_references=_check_labels, each=_is_right)
F1 = Evaluator(f1, {"f1": TIMES_100}, check_references=_check_binary, kinds=LABELS, each=_is_right)
MATTHEWS_CORRELATION = Evaluator(
    matthews_correlation,
    {"matthews_correlation": TIMES_100},
    check_references=partial(constant_golds, "Matthews correlation"),
    kinds=LABELS,
    each=_is_right,
)
CB = Evaluator(
    cb, {"accuracy": TIMES_100, "f1_macro": TIMES_100}, check_references=_check_cb, kinds=LABELS, each=_is_right
)
MULTIRC = Evaluator(
    multirc, {"f1a": TIMES_100, "em": TIMES_100}, check_references=_check_binary, kinds=(), each=_is_right
)
NLVR2 = Evaluator(
    nlvr2,
    {"accuracy": TIMES_100, "consistency": TIMES_100},
    check_references=_check_groups,
    kinds=LABELS,
    each=_is_right_in_any_case,
)
