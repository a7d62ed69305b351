"""Exact match, and the soft accuracy of answers that few people gave: VQA answers where ten people were not asked.

Both compare answers as the official VQA evaluation normalises them (`dept_vl.tasks.vqa_answers.normalise_answer`):
lower case, no punctuation, no articles, number words as digits, contractions repaired. Scale: percent, 0 to 100.
"""

from __future__ import annotations

from collections.abc import Sequence

from dept_vl.evaluators.base import PERCENT, EvaluationInput, Evaluator, by_type, mean
from dept_vl.tasks.vqa_answers import normalise_answer, relative_scores


def _exact(inputs: EvaluationInput) -> list[float]:
    """Returns 100 for each prediction that equals any of its references, else 0."""
    return [
        100.0 * (normalise_answer(prediction) in map(normalise_answer, reference.references))
        for prediction, reference in zip(inputs.predictions, inputs.references, strict=True)
    ]


def soft_accuracy(prediction: str, answers: Sequence[str]) -> float:
    """Returns ``min(1, matches / 3)`` over all answers, divided by what the most common answer gets; in [0, 1].

    ``min(1, matches / 3)`` is the accuracy of Antol et al. 2015 (VQA: Visual Question Answering, section 3). Unlike the
    official script's it leaves nobody out, and unlike it any number of answers can reach 1: of a single answer it is
    exact match, of two different ones either is right, of three where two agree the third gets a half.

    Args:
        prediction: The answer to score.
        answers: What people answered, at least one.
    """
    return relative_scores(answers).get(normalise_answer(prediction), 0.0)


def _soft(inputs: EvaluationInput) -> list[float]:
    """Returns each prediction's `soft_accuracy` in percent."""
    return [
        100.0 * soft_accuracy(prediction, reference.references)
        for prediction, reference in zip(inputs.predictions, inputs.references, strict=True)
    ]


def exact_match(inputs: EvaluationInput) -> dict[str, float]:
    """Returns the percentage of predictions that equal any reference once both are normalised, and by type."""
    values = inputs.shared(_exact)
    return {"exact_match": mean(values), **by_type("exact_match", values, inputs.references, mean)}


def vqa_soft_accuracy(inputs: EvaluationInput) -> dict[str, float]:
    """Returns the mean `soft_accuracy` in percent, and by type."""
    values = inputs.shared(_soft)
    return {"vqa_soft_accuracy": mean(values), **by_type("vqa_soft_accuracy", values, inputs.references, mean)}


EXACT_MATCH = Evaluator(
    exact_match, {"exact_match": PERCENT}, each=lambda inputs: {"exact_match": inputs.shared(_exact)}
)
VQA_SOFT_ACCURACY = Evaluator(
    vqa_soft_accuracy, {"vqa_soft_accuracy": PERCENT}, each=lambda inputs: {"vqa_soft_accuracy": inputs.shared(_soft)}
)
