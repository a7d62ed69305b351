"""Exact match and F1 of answers as the official SQuAD v1.1 script (``evaluate-v1.1.py``): 0 to 100, best gold."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence

from dept_vl.evaluators.base import PERCENT, Concern, EvaluationInput, Evaluator, Reference, add_up, how_many_have

_WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")


def normalise_answer(text: str) -> str:
    """Returns `text` lower-cased, without ASCII punctuation and articles, white space as single blanks."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_WITHOUT_PUNCTUATION)).split())


def token_f1(prediction: str, gold: str) -> float:
    """Returns F1 of two normalised answers' words, in [0, 1]; 0 where they share none, even if both are empty."""
    predicted, expected = prediction.split(), gold.split()
    same = (Counter(predicted) & Counter(expected)).total()
    return 2 * same / (len(predicted) + len(expected)) if same else 0.0


def _each(inputs: EvaluationInput) -> tuple[list[bool], list[float]]:
    """Returns exact match and F1, in [0, 1], of each question, the best over its golds."""
    exact, overlap = [], []
    for prediction, reference in zip(inputs.predictions, inputs.references, strict=True):
        answer, golds = normalise_answer(prediction), [normalise_answer(gold) for gold in reference.references]
        exact.append(answer in golds)
        overlap.append(max(token_f1(answer, gold) for gold in golds))
    return exact, overlap


def squad(inputs: EvaluationInput) -> dict[str, float]:
    """Returns ``squad_em`` and ``squad_f1``, each the mean over questions of the best over its golds."""
    exact, overlap = inputs.shared(_each)
    count = len(inputs.references)
    return {"squad_em": 100 * sum(exact) / count, "squad_f1": 100 * add_up(overlap) / count}


def _percents(inputs: EvaluationInput) -> dict[str, list[float]]:
    exact, overlap = inputs.shared(_each)
    return {"squad_em": [100.0 * value for value in exact], "squad_f1": [100 * value for value in overlap]}


def check_golds(references: Sequence[Reference]) -> list[Concern]:
    """Returns how many questions have only golds of which normalising leaves nothing."""
    bare = sum(not any(map(normalise_answer, reference.references)) for reference in references)
    if not bare:
        return []
    return [
        Concern(
            f"{how_many_have(bare, len(references), 'question')} only golds of articles and punctuation, of which the "
            "script leaves nothing: its F1 of them is 0 whatever is predicted",
            "exact-match" if bare == len(references) else None,
        )
    ]


SQUAD = Evaluator(
    squad,
    {"squad_em": PERCENT, "squad_f1": PERCENT},
    check_references=check_golds,
    kinds=("question", "text"),
    each=_percents,
)
