"""VQA accuracy, in the two variants that published figures come from.

Both average, over the ten people, the agreement of the prediction with the other nine:
``min(1, matches / 3)``. They differ in which strings are compared:

- `official`: GT-Vision-Lab/VQA at a013f00 (2021-03-11), the current official script. Prediction and
  answers are fully normalised where the ten answers differ, and compared as they are (apart from white
  space at the ends) where all ten are the same string.
- `legacy-vlt5`: the script before that commit, which VL-T5 (``src/vqa_data.py evaluate_raw``), VL-adapter,
  LST and LAVIS (``common/vqa_tools/vqa_eval.py``) carry. The prediction is always fully normalised, the
  answers only lose punctuation, and only where they differ: an answer "two" or "the cat" is never matched.

Scale: percent, 0 to 100, unrounded (the script prints it with two decimals).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence
from functools import partial
from typing import Literal

from dept_vl.evaluators.base import PERCENT, EvaluationInput, Evaluator
from dept_vl.tasks.vqa_answers import clean_whitespace, normalise_answer, process_punctuation

VqaVariant = Literal["official", "legacy-vlt5"]


def _comparable(prediction: str, answers: Sequence[str], variant: VqaVariant) -> tuple[str, Sequence[str]]:
    """Returns the prediction and the answers as `variant` compares them."""
    if variant == "legacy-vlt5":
        differ = len(set(answers)) > 1
        processed = [process_punctuation(answer) for answer in answers] if differ else answers
        return normalise_answer(prediction), processed
    cleaned = [clean_whitespace(answer) for answer in answers]
    if len(set(cleaned)) > 1:
        return normalise_answer(prediction), [normalise_answer(answer) for answer in cleaned]
    return clean_whitespace(prediction), cleaned


def _agreement(prediction: str, answers: Sequence[str], annotators: Sequence[Hashable]) -> float:
    """Returns the mean over people of min(1, matches among the others / 3), in [0, 1].

    The official script leaves a person out by comparing records, so that every record equal to the
    person's own goes with it: records need distinct annotators to count one by one.
    """
    records = list(zip(answers, annotators, strict=True))
    all_distinct = len(set(annotators)) == len(annotators)
    matches = sum(answer == prediction for answer in answers)
    total = 0.0
    for record in records:
        own = 1 if all_distinct else records.count(record)
        others = matches - own if record[0] == prediction else matches
        total += min(1.0, others / 3)
    return total / len(records)


def question_accuracies(inputs: EvaluationInput, variant: VqaVariant = "official") -> list[float]:
    """Returns the accuracy of each question, in [0, 1], in the order given.

    Args:
        inputs: One answer for each question, and the people's answers.
        variant: Which script to follow; see the module's docstring.
    """
    accuracies = []
    for prediction, reference in zip(inputs.predictions, inputs.references, strict=True):
        compared, answers = _comparable(prediction, reference.references, variant)
        annotators = range(len(answers)) if reference.annotators is None else reference.annotators
        accuracies.append(_agreement(compared, answers, annotators))
    return accuracies


def _percent(accuracies: Sequence[float]) -> float:
    """Returns 100 * mean, added up from left to right in the order given.

    The built-in ``sum`` compensates rounding from Python 3.12 on; the official script does not, and
    the result is meant to equal it to the last digit.
    """
    total = 0.0
    for accuracy in accuracies:
        total += accuracy
    return 100 * total / len(accuracies)


def vqa_accuracy(inputs: EvaluationInput, variant: VqaVariant, key: str) -> dict[str, float]:
    """Returns percentages by score name: overall, by answer type and by question type.

    Args:
        inputs: One answer for each question, and the people's answers with their types.
        variant: Which script to follow.
        key: Name of the overall score; the others are ``key/<answer type>`` and ``key/question_type/<question type>``,
            each kind in alphabetical order.
    """
    accuracies = question_accuracies(inputs, variant)
    by_answer_type: dict[str, list[float]] = defaultdict(list)
    by_question_type: dict[str, list[float]] = defaultdict(list)
    for accuracy, reference in zip(accuracies, inputs.references, strict=True):
        if reference.answer_type is not None:
            by_answer_type[reference.answer_type].append(accuracy)
        if reference.question_type is not None:
            by_question_type[reference.question_type].append(accuracy)
    scores = {key: _percent(accuracies)}
    for name, values in sorted(by_answer_type.items()):
        scores[f"{key}/{name}"] = _percent(values)
    for name, values in sorted(by_question_type.items()):
        scores[f"{key}/question_type/{name}"] = _percent(values)
    return scores


def _evaluator(variant: VqaVariant, key: str) -> Evaluator:
    return Evaluator(partial(vqa_accuracy, variant=variant, key=key), {key: PERCENT})


VQA_ACCURACY = _evaluator("official", "vqa_accuracy")
VQA_ACCURACY_LEGACY_VLT5 = _evaluator("legacy-vlt5", "vqa_accuracy_legacy_vlt5")
