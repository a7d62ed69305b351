"""Evaluators: predictions and references in, named scores out. No torch, no model.

To add one: a file with an `Evaluator`, and its line in `EVALUATORS` (docs/extending.md has an example).
"""

from __future__ import annotations

from collections.abc import Sequence

from dept_vl.evaluators.base import EvaluationInput, Evaluator, Reference, Scale, TokenizerName, align
from dept_vl.evaluators.captions import BLEU, CIDER, METEOR, ROUGE_L, SPICE
from dept_vl.evaluators.classification import ACCURACY, CB, F1, MATTHEWS_CORRELATION, MULTIRC
from dept_vl.evaluators.correlation import PEARSON, SPEARMAN
from dept_vl.evaluators.squad import SQUAD
from dept_vl.evaluators.vqa_accuracy import VQA_ACCURACY, VQA_ACCURACY_LEGACY_VLT5
from dept_vl.registry import lookup

EVALUATORS: dict[str, Evaluator] = {
    "vqa-accuracy": VQA_ACCURACY,
    "vqa-accuracy-legacy-vlt5": VQA_ACCURACY_LEGACY_VLT5,
    "cider": CIDER,
    "bleu": BLEU,
    "rouge-l": ROUGE_L,
    "meteor": METEOR,
    "spice": SPICE,
    "accuracy": ACCURACY,
    "f1": F1,
    "matthews-correlation": MATTHEWS_CORRELATION,
    "pearson": PEARSON,
    "spearman": SPEARMAN,
    "multirc": MULTIRC,
    "cb": CB,
    "squad": SQUAD,
}

_INVALID = "invalid"
_INVALID_SCALE = Scale(100.0, "% of the predictions are not labels")


def display_scale(name: str) -> Scale:
    """Returns how a score is printed: as its evaluator declares it.

    Args:
        name: A score's key; what follows a slash is a detail. One that no evaluator declares, as a results file of
            another version may hold, is printed as it is.
    """
    key = name.split("/", 1)[0]
    if key == _INVALID:
        return _INVALID_SCALE
    declared = (evaluator.scores[key] for evaluator in EVALUATORS.values() if key in evaluator.scores)
    return next(declared, Scale(1.0, ""))


def check_available(names: Sequence[str], tokenizer: TokenizerName = "ptb") -> None:
    """Checks that evaluators exist and can run on this machine, to fail before any work is done.

    Raises:
        ConfigError: A name is unknown, or Java is needed and there is none.
    """
    for evaluator in [lookup(EVALUATORS, name, "evaluator") for name in names]:
        evaluator.check_available(tokenizer)


def evaluate(
    names: Sequence[str],
    predictions: Sequence[str],
    references: Sequence[Reference],
    *,
    tokenizer: TokenizerName = "ptb",
    label_set: Sequence[str] | None = None,
) -> dict[str, float]:
    """Runs several evaluators on one `EvaluationInput`, so that what they share is made once.

    Args:
        names: Names of `EVALUATORS`.
        predictions: One text for each example.
        references: What people wrote, in the same order (see `align`).
        tokenizer: How captions are tokenised; other evaluators ignore it.
        label_set: Every valid prediction, where the task has such a set.

    Returns:
        Score by name, in each reference implementation's scale, unrounded; with a label set also ``invalid``, the share
        of predictions outside it.

    Raises:
        ConfigError: A name is unknown, or Java is needed and there is none.
        DataError: The lengths differ, there is nothing to score, or an example has no reference.
    """
    check_available(names, tokenizer)
    inputs = EvaluationInput(predictions, references, tokenizer)
    scores: dict[str, float] = {}
    for name in names:
        scores.update(EVALUATORS[name].compute(inputs))
    if label_set is not None:
        scores[_INVALID] = sum(prediction not in label_set for prediction in predictions) / len(predictions)
    return scores


__all__ = [
    "EVALUATORS",
    "EvaluationInput",
    "Evaluator",
    "Reference",
    "Scale",
    "TokenizerName",
    "align",
    "check_available",
    "display_scale",
    "evaluate",
]
