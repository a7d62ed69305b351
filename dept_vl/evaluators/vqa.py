"""VQA accuracy, in the three variants that published figures come from.

All average, over the ten people, the agreement of the prediction with the other nine:
``min(1, matches / 3)``. They differ in which strings are compared:

- `official`: GT-Vision-Lab/VQA at a013f00 (2021-03-11), the current official script. Prediction and
  answers are fully normalised where the ten answers differ, and compared as they are (apart from white
  space at the ends) where all ten are the same string.
- `legacy-vlt5`: the script before that commit, which VL-T5 (``src/vqa_data.py evaluate_raw``), VL-adapter,
  LST and LAVIS (``common/vqa_tools/vqa_eval.py``) carry. The prediction is always fully normalised, the
  answers only lose punctuation, and only where they differ: an answer "two" or "the cat" is never matched.
- `vizwiz`: the script of the VizWiz challenge (Gurari et al. 2018), ``VQAEval`` by Qing Li. The prediction is always
  fully normalised, contractions with a typographic apostrophe; the answers are taken as they are, which in its files
  are in lower case. OK-VQA has no script of its own: it is scored by `official`.

Scale: percent, 0 to 100, unrounded (the script prints it with two decimals).
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from functools import partial
from typing import Literal, get_args

from dept_vl.evaluators.base import (
    PERCENT,
    Concern,
    EvaluationInput,
    Evaluator,
    Reference,
    add_up,
    by_type,
    how_many_have,
)
from dept_vl.tasks.vqa_answers import clean_whitespace, normalise_answer, normalise_vizwiz_answer, process_punctuation

VqaVariant = Literal["official", "legacy-vlt5", "vizwiz"]

_MIN_ANSWERS = 4
"""With fewer, nobody's answer can meet three equal ones of others."""


def _comparable(prediction: str, answers: Sequence[str], variant: VqaVariant) -> tuple[str, Sequence[str]]:
    """Returns the prediction and the answers as `variant` compares them."""
    if variant == "legacy-vlt5":
        differ = len(set(answers)) > 1
        processed = [process_punctuation(answer) for answer in answers] if differ else answers
        return normalise_answer(prediction), processed
    if variant == "vizwiz":
        return normalise_vizwiz_answer(prediction), answers
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
        named = None if variant == "vizwiz" else reference.annotators  # its script tells people by their position
        annotators = range(len(answers)) if named is None else named
        accuracies.append(_agreement(compared, answers, annotators))
    return accuracies


def check_number(references: Sequence[Reference]) -> list[Concern]:
    """Returns what becomes of the score where few people answered."""
    numbers = [len(reference.references) for reference in references]
    few = [number for number in numbers if number < _MIN_ANSWERS]
    if not few:
        return []
    has_one = few.count(1) == len(numbers)
    what = "1 answer" if has_one else f"fewer than {_MIN_ANSWERS} answers"
    return [
        Concern(
            f"{how_many_have(len(few), len(numbers), 'question')} {what}, and VQA accuracy leaves each person out "
            "in turn and asks for three others who agree: of 100, a question with one answer scores 0 whatever is "
            "predicted, with two at most 33.3, with three at most 66.7",
            ("exact-match" if has_one else "vqa-soft-accuracy") if 2 * len(few) > len(numbers) else None,
        )
    ]


def check_answers(references: Sequence[Reference]) -> list[Concern]:
    """Returns what becomes of the score where few people answered, or equal records are left out together."""
    concerns = check_number(references)
    together = sum(
        reference.annotators is not None
        and len(set(zip(reference.references, reference.annotators, strict=True))) < len(reference.references)
        for reference in references
    )
    if together:
        concerns.append(
            Concern(
                f"{how_many_have(together, len(references), 'question')} answers that are equal in every field, and "
                "the official script leaves those out together: ten equal answers score 0. Give the answers of a "
                'question an "answer_id" each, from 1 on',
                "vqa-soft-accuracy" if 2 * together > len(references) else None,
            )
        )
    return concerns


def _percent(accuracies: Sequence[float]) -> float:
    """Returns 100 * mean."""
    return 100 * add_up(accuracies) / len(accuracies)


def vqa_accuracy(inputs: EvaluationInput, variant: VqaVariant, key: str) -> dict[str, float]:
    """Returns percentages by score name: overall, by answer type and by question type.

    Args:
        inputs: One answer for each question, and the people's answers with their types.
        variant: Which script to follow.
        key: Name of the overall score; the others as `by_type` names them.
    """
    accuracies = inputs.shared(_ACCURACIES[variant])
    return {key: _percent(accuracies), **by_type(key, accuracies, inputs.references, _percent)}


_ACCURACIES = {variant: partial(question_accuracies, variant=variant) for variant in get_args(VqaVariant)}
"""One function a variant, so that an input keeps its accuracies."""


def _evaluator(variant: VqaVariant, key: str) -> Evaluator:
    return Evaluator(
        partial(vqa_accuracy, variant=variant, key=key),
        {key: PERCENT},
        check_references=check_number if variant == "vizwiz" else check_answers,
        kinds=("question", "text"),
        each=lambda inputs: {key: [100 * accuracy for accuracy in inputs.shared(_ACCURACIES[variant])]},
    )


VQA_ACCURACY = _evaluator("official", "vqa_accuracy")
VQA_ACCURACY_LEGACY_VLT5 = _evaluator("legacy-vlt5", "vqa_accuracy_legacy_vlt5")
VIZWIZ_ACCURACY = _evaluator("vizwiz", "vizwiz_accuracy")
