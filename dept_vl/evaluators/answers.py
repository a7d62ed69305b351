"""Exact match, and the soft accuracy of answers that few people gave: VQA answers where ten people were not asked.

Both compare answers as the official VQA evaluation normalises them (`dept_vl.tasks.vqa_answers.normalise_answer`):
lower case, no punctuation, no articles, number words as digits, contractions repaired. Scale: percent, 0 to 100.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

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


def _evaluator(key: str, each: Callable[[EvaluationInput], list[float]]) -> Evaluator:
    """Returns the evaluator whose score is the mean of the examples' own, and by type."""

    def compute(inputs: EvaluationInput) -> dict[str, float]:
        values = inputs.shared(each)
        return {key: mean(values), **by_type(key, values, inputs.references, mean)}

    return Evaluator(compute, {key: PERCENT}, each=lambda inputs: {key: inputs.shared(each)})


EXACT_MATCH = _evaluator("exact_match", _exact)
VQA_SOFT_ACCURACY = _evaluator("vqa_soft_accuracy", _soft)
