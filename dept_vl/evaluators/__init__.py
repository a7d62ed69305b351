"""Evaluators: predictions and references in, named scores out. No torch, no model.

To add one: write a function or a callable class with the signature `Evaluator` and give it a line in
`EVALUATORS`.
"""

from __future__ import annotations

from collections.abc import Sequence

from dept_vl.evaluators.base import Evaluator, Reference, align
from dept_vl.evaluators.captions import (
    CAPTION_METRICS,
    CaptionEvaluator,
    TokenizerName,
    check_captions_available,
    score_captions,
)
from dept_vl.evaluators.classification import accuracy, cb, f1, matthews_correlation, multirc
from dept_vl.evaluators.correlation import pearson, spearman
from dept_vl.evaluators.squad import squad
from dept_vl.evaluators.vqa_accuracy import VqaAccuracy
from dept_vl.registry import lookup

EVALUATORS: dict[str, Evaluator] = {
    "vqa-accuracy": VqaAccuracy("official", key="vqa_accuracy"),
    "vqa-accuracy-legacy-vlt5": VqaAccuracy("legacy-vlt5", key="vqa_accuracy_legacy_vlt5"),
    "cider": CaptionEvaluator("cider"),
    "bleu": CaptionEvaluator("bleu"),
    "rouge-l": CaptionEvaluator("rouge-l"),
    "meteor": CaptionEvaluator("meteor"),
    "spice": CaptionEvaluator("spice"),
    "accuracy": accuracy,
    "f1": f1,
    "matthews-correlation": matthews_correlation,
    "pearson": pearson,
    "spearman": spearman,
    "multirc": multirc,
    "cb": cb,
    "squad": squad,
}


def check_available(names: Sequence[str], tokenizer: TokenizerName = "ptb") -> None:
    """Checks that evaluators exist and can run on this machine, to fail before any work is done.

    Raises:
        ConfigError: A name is unknown, or Java is needed and there is none.
    """
    for name in names:
        lookup(EVALUATORS, name, "evaluator")
    check_captions_available([name for name in names if name in CAPTION_METRICS], tokenizer)


def evaluate(
    names: Sequence[str],
    predictions: Sequence[str],
    references: Sequence[Reference],
    *,
    tokenizer: TokenizerName = "ptb",
    label_set: Sequence[str] | None = None,
) -> dict[str, float]:
    """Runs several evaluators; captions are tokenised once for all of them.

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
    evaluators = {name: lookup(EVALUATORS, name, "evaluator") for name in names}
    scores: dict[str, float] = {}
    metrics = [name for name in evaluators if name in CAPTION_METRICS]
    if metrics:
        scores.update(score_captions(predictions, references, metrics, tokenizer))
    for name, evaluator in evaluators.items():
        if name not in metrics:
            scores.update(evaluator(predictions, references))
    if label_set is not None:
        scores["invalid"] = sum(prediction not in label_set for prediction in predictions) / len(predictions)
    return scores


__all__ = [
    "EVALUATORS",
    "CaptionEvaluator",
    "Evaluator",
    "Reference",
    "TokenizerName",
    "VqaAccuracy",
    "align",
    "check_available",
    "evaluate",
]
