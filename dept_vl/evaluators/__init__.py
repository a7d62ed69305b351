"""Evaluators: predictions and references in, named scores out. No torch, no model.

Each is a plain function too, by its name with ``_`` for ``-``:

    from dept_vl.evaluators import cider, exact_match

    cider(["a cat", "two dogs"], [["a cat sits", "one cat"], ["dogs", "two dogs run"]])  # {"CIDEr": ...}

To add one: a file with an `Evaluator`, and its line in `EVALUATORS` (docs/extending.md has an example).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Protocol

from dept_vl.errors import ConfigError
from dept_vl.evaluators.answers import EXACT_MATCH, VQA_SOFT_ACCURACY
from dept_vl.evaluators.base import (
    Concern,
    EvaluationInput,
    Evaluator,
    Reference,
    Scale,
    TokenizerName,
    align,
    require_texts,
)
from dept_vl.evaluators.captions import BLEU, CIDER, METEOR, ROUGE_L, SPICE
from dept_vl.evaluators.classification import ACCURACY, CB, F1, MATTHEWS_CORRELATION, MULTIRC
from dept_vl.evaluators.correlation import PEARSON, SPEARMAN
from dept_vl.evaluators.inputs import Predictions, References, read_texts
from dept_vl.evaluators.spans import SQUAD
from dept_vl.evaluators.vqa import VIZWIZ_ACCURACY, VQA_ACCURACY, VQA_ACCURACY_LEGACY_VLT5
from dept_vl.registry import suggest
from dept_vl.tasks.mixture import MEAN

logger = logging.getLogger(__name__)

EVALUATORS: dict[str, Evaluator] = {
    "vqa-accuracy": VQA_ACCURACY,
    "vqa-accuracy-legacy-vlt5": VQA_ACCURACY_LEGACY_VLT5,
    "vizwiz-accuracy": VIZWIZ_ACCURACY,
    "vqa-soft-accuracy": VQA_SOFT_ACCURACY,
    "exact-match": EXACT_MATCH,
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
"""Name -> evaluator."""

LOSS = "loss"
"""The validation loss, which training computes beside the scores: of targets, so no evaluator of predictions has it."""

_INVALID = "invalid"
_NO_SCORES = {
    _INVALID: Scale(100.0, "% of the predictions are not labels"),
    LOSS: Scale(1.0, "nats a token", digits=3),
    MEAN: Scale(1.0, "mean of the tasks' scores as they are printed"),
}
"""What stands beside scores and is none, so that no evaluator declares it -> how it is printed."""


def display_scale(name: str) -> Scale:
    """Returns how a score is printed: as its evaluator declares it.

    Args:
        name: A score's key, of several tasks with the task's name and a slash before it; what follows it after a slash
            is a detail. One that no evaluator declares, as a results file of another version may hold, is printed as
            it is.
    """
    for key in name.split("/")[:2]:
        if key in _NO_SCORES:
            return _NO_SCORES[key]
        declared = (evaluator.scores[key] for evaluator in EVALUATORS.values() if key in evaluator.scores)
        if (scale := next(declared, None)) is not None:
            return scale
    return Scale(1.0, "")


def evaluator_name(name: str) -> str:
    """Returns the name in `EVALUATORS` of an evaluator or of a score that one prints, in any case.

    Args:
        name: Such as ``cider``, ``CIDEr``, ``BLEU-4`` or ``vqa_accuracy``. An evaluator's own name comes first.

    Raises:
        ConfigError: There is none; the message names near ones.
    """
    names = _names()
    if is_loss(name):
        raise ConfigError(
            f"{name!r} is no score of predictions: training computes it at every evaluation on val (val/loss in "
            f"metrics.jsonl); name an evaluator ({', '.join(sorted(EVALUATORS))})"
        )
    if name.strip().casefold() not in names:
        scores = (score for evaluator in EVALUATORS.values() for score in evaluator.scores)
        near = suggest(name.strip(), [*EVALUATORS, *scores])
        raise ConfigError(f"unknown evaluator {name!r}{near} (known: {', '.join(sorted(EVALUATORS))})")
    return names[name.strip().casefold()][0]


def is_loss(name: str) -> bool:
    """Returns whether a name, in any case, stands for the validation loss."""
    return name.strip().casefold() == LOSS


def score_name(name: str) -> str:
    """Returns the score that a name stands for, in any case: a score itself, or an evaluator's first.

    Raises:
        ConfigError: As `evaluator_name`.
    """
    evaluator = evaluator_name(name)
    return _names()[name.strip().casefold()][1] or next(iter(EVALUATORS[evaluator].scores))


def _names() -> dict[str, tuple[str, str | None]]:
    """Returns every name, without case -> its evaluator, and the score that it is the name of, if it is one's."""
    found: dict[str, tuple[str, str | None]] = {}
    for name, evaluator in EVALUATORS.items():
        for score in evaluator.scores:
            found.setdefault(score.casefold(), (name, score))
    own: dict[str, tuple[str, str | None]] = {}
    for name, evaluator in EVALUATORS.items():
        same = [score for score in evaluator.scores if score.casefold() == name.casefold()]
        own[name.casefold()] = (name, same[0] if same else None)
    return {**found, **own}


def evaluator_names(names: Sequence[str]) -> list[str]:
    """Returns the evaluators of some names, each once.

    Raises:
        ConfigError: As `evaluator_name`.
    """
    return list(dict.fromkeys(map(evaluator_name, names)))


def check_available(names: Sequence[str], tokenizer: TokenizerName = "ptb") -> None:
    """Checks that evaluators exist and can run on this machine, to fail before any work is done.

    Raises:
        ConfigError: A name is unknown, or Java is needed and there is none.
    """
    for name in evaluator_names(names):
        EVALUATORS[name].check_available(tokenizer)


def concerns(names: Sequence[str], references: Sequence[Reference]) -> dict[str, list[Concern]]:
    """Returns what each evaluator assumes and these references do not keep, before there is any prediction.

    Raises:
        ConfigError: A name is unknown.
        DataError: An evaluator cannot score against these references.
    """
    require_texts(references)
    return {
        name: EVALUATORS[name].check_references(references) if references else [] for name in evaluator_names(names)
    }


def fitting(found: Mapping[str, Sequence[Concern]]) -> list[str]:
    """Returns the evaluators that fit where some of those in `found` do not, each once."""
    named = (concern.instead for several in found.values() for concern in several)
    return [name for name in dict.fromkeys(named) if name is not None and name not in found]


def warn_of(found: Mapping[str, Sequence[Concern]], where: str = "") -> None:
    """Logs concerns, a warning each, with the evaluator that fits.

    Args:
        found: From `concerns`.
        where: What was looked at, for the beginning of each line.
    """
    by_text: dict[str, tuple[list[str], str | None]] = {}
    for name, several in found.items():
        for concern in several:
            by_text.setdefault(concern.text, ([], concern.instead))[0].append(name)
    for text, (names, instead) in by_text.items():
        fits = f"; {instead} fits" if instead else ""
        logger.warning("%s%s: %s%s", where and f"{where}: ", ", ".join(names), text, fits)


def evaluate(
    names: Sequence[str],
    predictions: Sequence[str],
    references: Sequence[Reference],
    *,
    tokenizer: TokenizerName = "ptb",
    label_set: Sequence[str] | None = None,
) -> dict[str, float]:
    """Runs several evaluators on predictions, and warns where the references do not keep what a score assumes.

    Args:
        names: Names of `EVALUATORS`, or of the scores they print.
        predictions: One text for each example.
        references: What people wrote, in the same order (see `align`).
        tokenizer: How captions are tokenised; other evaluators ignore it.
        label_set: Every valid prediction, where the task has such a set.

    Returns:
        Score by name, in each reference implementation's scale, unrounded; with a label set also ``invalid``, the share
        of predictions outside it.

    Raises:
        ConfigError: A name is unknown, or Java is needed and there is none.
        DataError: The lengths differ, there is nothing to score, or an example has no reference that can be scored
            against.
    """
    check_available(names, tokenizer)
    inputs = EvaluationInput(predictions, references, tokenizer)
    warn_of(concerns(names, references))
    return score(names, inputs, label_set=label_set)


def evaluate_texts(
    predictions: Predictions,
    references: References,
    metric: str | Sequence[str],
    *,
    labels: Sequence[str] | None = None,
    tokenizer: TokenizerName = "ptb",
) -> dict[str, float]:
    """Scores texts against what people wrote: ``dept_vl.evaluate``.

    Args:
        predictions: One text for each example, or texts by id.
        references: For each example a text, several texts, or a `Reference`; in the same order, or by the same ids.
        metric: Evaluators or scores as ``dept-vl eval --metric`` takes them, ``"CIDEr,BLEU-4"``, or a list.
        labels: Every valid prediction, where there is such a set; the scores then have ``invalid``, the share outside.
        tokenizer: How captions are tokenised; ``"stanford"`` needs Java.

    Returns:
        Every score of the evaluators named, by name; in each reference implementation's scale, unrounded.

    Raises:
        ConfigError: A metric is unknown, none is named, or Java is needed and there is none.
        DataError: Predictions and references are no texts or do not belong together, or cannot be scored.
    """
    named = metric.split(",") if isinstance(metric, str) else metric or ()
    names = [name for name in named if name.strip()]
    if not names:
        raise ConfigError(f"metric: names no evaluator (known: {', '.join(sorted(EVALUATORS))})")
    if isinstance(labels, str):
        raise ConfigError(f"labels: expected a list of texts, got the text {labels!r}")
    inputs = read_texts(predictions, references, tokenizer)
    return evaluate(names, inputs.predictions, inputs.references, tokenizer=tokenizer, label_set=labels)


class ScoreFunction(Protocol):
    """An evaluator as a plain function, such as ``dept_vl.evaluators.cider``."""

    def __call__(self, predictions: Predictions, references: References) -> dict[str, float]:
        """Returns every score of the evaluator, as `evaluate_texts` does."""


@cache
def _function(name: str) -> ScoreFunction:
    """Returns an evaluator of `EVALUATORS` as a plain function, with a docstring of its own."""

    def compute(predictions: Predictions, references: References) -> dict[str, float]:
        return evaluate_texts(predictions, references, [name])

    scores = "\n".join(
        f"        ``{key}``, {scale.text if scale.factor == 1 else f'printed times {scale.factor:g}'}."
        for key, scale in EVALUATORS[name].scores.items()
    )
    compute.__name__ = compute.__qualname__ = name.replace("-", "_")
    compute.__doc__ = f"""Scores texts with the evaluator ``{name}``.

    Args:
        predictions: One text for each example, or texts by id.
        references: For each example a text, several texts, or a `Reference`; in the same order, or by the same ids.

    Returns:
        Scores by name, unrounded, in the scale of the reference implementation:
{scores}

    Raises:
        ConfigError: Java is needed, and there is none.
        DataError: Predictions and references are no texts or do not belong together, or cannot be scored.
    """
    return compute


def __getattr__(name: str) -> ScoreFunction:
    """Returns the evaluator of that name, with ``_`` for ``-``, as a plain function."""
    evaluator = name.replace("_", "-")
    if evaluator not in EVALUATORS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}{suggest(evaluator, EVALUATORS)}")
    return _function(evaluator)


def __dir__() -> list[str]:
    return sorted({*globals(), *(name.replace("-", "_") for name in EVALUATORS)})


def score(names: Sequence[str], inputs: EvaluationInput, *, label_set: Sequence[str] | None = None) -> dict[str, float]:
    """Runs evaluators on one input, so that what they share is made once; for who has checked the references.

    Raises:
        ConfigError: A name is unknown.
    """
    scores: dict[str, float] = {}
    for name in evaluator_names(names):
        scores.update(EVALUATORS[name].compute(inputs))
    if label_set is not None:
        outside = sum(prediction not in label_set for prediction in inputs.predictions)
        scores[_INVALID] = outside / len(inputs.predictions)
    return scores


def score_each(names: Sequence[str], inputs: EvaluationInput) -> dict[str, list[float]]:
    """Returns the scores of each example, name -> a value an example, of the evaluators that have such.

    Raises:
        ConfigError: A name is unknown.
    """
    scores: dict[str, list[float]] = {}
    for name in evaluator_names(names):
        each = EVALUATORS[name].each
        scores.update(each(inputs) if each else {})
    return scores


__all__ = [
    "EVALUATORS",
    "LOSS",
    "Concern",
    "EvaluationInput",
    "Evaluator",
    "Reference",
    "Scale",
    "ScoreFunction",
    "TokenizerName",
    "align",
    "check_available",
    "concerns",
    "display_scale",
    "evaluate",
    "evaluate_texts",
    "evaluator_name",
    "evaluator_names",
    "fitting",
    "is_loss",
    "score",
    "score_each",
    "score_name",
    "warn_of",
]
