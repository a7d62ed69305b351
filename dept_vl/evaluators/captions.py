"""COCO caption scores with pycocoevalcap's own scorers: CIDEr, BLEU, ROUGE-L, METEOR, SPICE.

All scorers read one tokenised input. Scales are those of pycocoevalcap, unrounded: papers print
100 times these values (CIDEr 1.137 is printed as 113.7). Its ``Cider`` is CIDEr-D (clipped counts,
Gaussian length penalty with sigma 6, times 10), which is what the literature reports on COCO.
"""

from __future__ import annotations

import logging
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from dept_vl.errors import ConfigError
from dept_vl.evaluators.base import Reference, check_aligned
from dept_vl.evaluators.java import require_java
from dept_vl.evaluators.ptb_tokenizer import tokenize_ptb
from dept_vl.evaluators.stanford_tokenizer import tokenize_stanford
from dept_vl.registry import lookup

logger = logging.getLogger(__name__)

TokenizerName = Literal["ptb", "stanford"]
CaptionMetric = Literal["cider", "bleu", "rouge-l", "meteor", "spice"]

TOKENIZERS: dict[str, Callable[[Sequence[str]], list[str]]] = {
    "ptb": tokenize_ptb,
    "stanford": tokenize_stanford,
}

MIN_IMAGES_FOR_CIDER = 100
"""Below this many images CIDEr's document frequencies say little, and a warning is logged."""


@dataclass(frozen=True)
class TokenizedCaptions:
    """Captions as the scorers take them.

    Attributes:
        predictions: Position to a list with the one tokenised prediction.
        references: Position to the list of tokenised references.
    """

    predictions: dict[int, list[str]]
    references: dict[int, list[str]]


def tokenize_captions(
    predictions: Sequence[str], references: Sequence[Reference], tokenizer: TokenizerName = "ptb"
) -> TokenizedCaptions:
    """Tokenises predictions and references, each in one call as pycocoevalcap does.

    Args:
        predictions: One caption for each image.
        references: The people's captions, in the same order.
        tokenizer: "ptb" (Python) or "stanford" (the original, needs Java).

    Raises:
        ConfigError: The tokenizer is unknown, or needs Java and there is none.
        DataError: The lengths differ, there is nothing to score, or an image has no caption.
    """
    tokenize = lookup(TOKENIZERS, tokenizer, "tokenizer")
    check_aligned(predictions, references)
    flat = [text for reference in references for text in reference.references]
    tokenized = iter(tokenize(flat))
    return TokenizedCaptions(
        predictions={i: [text] for i, text in enumerate(tokenize(predictions))},
        references={i: [next(tokenized) for _ in ref.references] for i, ref in enumerate(references)},
    )


def _cider(captions: TokenizedCaptions) -> dict[str, float]:
    """Returns CIDEr-D, the document frequencies counted on the references of these images."""
    from pycocoevalcap.cider.cider import Cider

    count = len(captions.references)
    if count < MIN_IMAGES_FOR_CIDER:
        logger.warning(
            "CIDEr of %d image%s: its document frequencies come from the references of the images scored, and "
            "%d are too few (at least %d; with 1 image CIDEr is 0). Don't compare it with a published score",
            count,
            "s" if count > 1 else "",
            count,
            MIN_IMAGES_FOR_CIDER,
        )
    score, _ = Cider().compute_score(captions.references, captions.predictions)
    return {"CIDEr": float(score)}


def _bleu(captions: TokenizedCaptions) -> dict[str, float]:
    """Returns BLEU-1 to BLEU-4 of the corpus, with the closest reference length."""
    from pycocoevalcap.bleu.bleu import Bleu

    scores, _ = Bleu(4).compute_score(captions.references, captions.predictions, verbose=0)
    return {f"BLEU-{n}": float(score) for n, score in enumerate(scores, start=1)}


def _rouge_l(captions: TokenizedCaptions) -> dict[str, float]:
    """Returns ROUGE-L (beta 1.2, best precision and best recall over the references)."""
    from pycocoevalcap.rouge.rouge import Rouge

    score, _ = Rouge().compute_score(captions.references, captions.predictions)
    return {"ROUGE-L": float(score)}


def _meteor(captions: TokenizedCaptions) -> dict[str, float]:
    """Returns METEOR 1.5, computed by its Java program."""
    check_captions_available(["meteor"])
    from pycocoevalcap.meteor.meteor import Meteor

    score = _run_java_scorer("METEOR", Meteor, captions)
    return {"METEOR": score}


def _spice(captions: TokenizedCaptions) -> dict[str, float]:
    """Returns SPICE 1.0, computed by its Java program, which downloads CoreNLP models on first use."""
    check_captions_available(["spice"])
    from pycocoevalcap.spice.spice import Spice

    score = _run_java_scorer("SPICE", Spice, captions)
    return {"SPICE": score}


def _run_java_scorer(name: str, scorer: Callable[[], Any], captions: TokenizedCaptions) -> float:
    """Returns the corpus score of a scorer that talks to a Java program.

    Raises:
        ConfigError: The program did not start, broke off, or answered something that is no number.
    """
    running: Any = None
    try:
        running = scorer()
        score, _ = running.compute_score(captions.references, captions.predictions)
    except (OSError, ValueError, subprocess.CalledProcessError) as error:
        # pycocoevalcap's METEOR leaves its lock taken when it breaks off, and waits for it for ever when it is deleted.
        lock = getattr(running, "lock", None)
        if lock is not None and lock.locked():
            lock.release()
        raise ConfigError(
            f"{name}'s Java program failed ({error}). It needs a working Java (SPICE: version 8 to 15, and the "
            f"network once for its models); check `java -version`, or leave {name} out"
        ) from error
    return float(score)


_SCORERS: dict[str, Callable[[TokenizedCaptions], dict[str, float]]] = {
    "cider": _cider,
    "bleu": _bleu,
    "rouge-l": _rouge_l,
    "meteor": _meteor,
    "spice": _spice,
}
CAPTION_METRICS: tuple[str, ...] = get_args(CaptionMetric)


_JAVA_METRICS = {"meteor": "METEOR", "spice": "SPICE"}


def check_captions_available(metrics: Sequence[str], tokenizer: TokenizerName = "ptb") -> None:
    """Checks that metrics and tokenizer can run on this machine.

    Args:
        metrics: Names of `CAPTION_METRICS`, possibly none: then the tokenizer does not matter.
        tokenizer: A name of `TOKENIZERS`.

    Raises:
        ConfigError: The tokenizer is unknown, or Java is needed and there is none.
    """
    for metric in metrics:
        if metric in _JAVA_METRICS:
            require_java(_JAVA_METRICS[metric], f"leave {_JAVA_METRICS[metric]} out")
    if metrics and lookup(TOKENIZERS, tokenizer, "tokenizer") is tokenize_stanford:
        require_java("the Stanford tokenizer", 'use tokenizer "ptb", which gives the same tokens')


def score_captions(
    predictions: Sequence[str],
    references: Sequence[Reference],
    metrics: Sequence[str] = ("cider", "bleu", "rouge-l"),
    tokenizer: TokenizerName = "ptb",
) -> dict[str, float]:
    """Scores captions: tokenises once, then runs each scorer.

    Args:
        predictions: One caption for each image; an empty one scores 0.
        references: The people's captions, in the same order.
        metrics: Names of `CAPTION_METRICS`.
        tokenizer: "ptb" (Python) or "stanford" (the original, needs Java).

    Returns:
        Score by name (CIDEr, BLEU-1 to BLEU-4, ROUGE-L, METEOR, SPICE) in pycocoevalcap's scale.

    Raises:
        ConfigError: A metric or the tokenizer is unknown, or Java is needed and there is none.
        DataError: The lengths differ, there is nothing to score, or an image has no caption.
    """
    scorers = [lookup(_SCORERS, metric, "caption metric") for metric in metrics]
    captions = tokenize_captions(predictions, references, tokenizer)
    scores: dict[str, float] = {}
    for scorer in scorers:
        scores.update(scorer(captions))
    return scores


@dataclass(frozen=True)
class CaptionEvaluator:
    """One caption metric as an evaluator.

    Attributes:
        metric: Name of `CAPTION_METRICS`.
        tokenizer: "ptb" (Python) or "stanford" (the original, needs Java).
    """

    metric: CaptionMetric
    tokenizer: TokenizerName = "ptb"

    def __call__(self, predictions: Sequence[str], references: Sequence[Reference]) -> dict[str, float]:
        """Returns what `score_captions` returns for this metric alone."""
        return score_captions(predictions, references, (self.metric,), self.tokenizer)
