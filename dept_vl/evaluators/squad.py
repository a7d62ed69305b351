"""Exact match and F1 of answers as the official SQuAD v1.1 script (``evaluate-v1.1.py``): 0 to 100, best gold."""

from __future__ import annotations

import re
import string
from collections import Counter

from dept_vl.evaluators.base import PERCENT, EvaluationInput, Evaluator

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


def squad(inputs: EvaluationInput) -> dict[str, float]:
    """Returns ``squad_em`` and ``squad_f1``, each the mean over questions of the best over its golds."""
    exact = 0
    overlap = 0.0
    for prediction, reference in zip(inputs.predictions, inputs.references, strict=True):
        answer, golds = normalise_answer(prediction), [normalise_answer(gold) for gold in reference.references]
        exact += answer in golds
        overlap += max(token_f1(answer, gold) for gold in golds)
    count = len(inputs.references)
    return {"squad_em": 100 * exact / count, "squad_f1": 100 * overlap / count}


SQUAD = Evaluator(squad, {"squad_em": PERCENT, "squad_f1": PERCENT})
