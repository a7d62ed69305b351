"""What rows of one's own are trained on and scored against."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

from dept_vl.tasks.base import TaskKind
from dept_vl.tasks.vqa_answers import normalise_answer, relative_scores


def weighted_targets(kind: TaskKind, answers: Sequence[str]) -> dict[str, float]:
    """Returns the texts that training draws from, and the weight in (0, 1] of each.

    Answers to a question that are the same once normalised are one target, spelled as most people did (the first of
    equals), with its soft score relative to the most frequent answer (`relative_scores`). Of other kinds every distinct
    text counts alike.
    """
    if kind != "question" or len(answers) == 1:
        return dict.fromkeys(answers, 1.0)
    spellings: dict[str, Counter[str]] = defaultdict(Counter)
    for answer in answers:
        spellings[normalise_answer(answer)][answer] += 1
    return {spellings[form].most_common(1)[0][0]: score for form, score in relative_scores(answers).items()}
