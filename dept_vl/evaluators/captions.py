"""COCO caption scores with pycocoevalcap's own scorers: CIDEr, BLEU, ROUGE-L, METEOR, SPICE.

All scorers of one input share its tokenised captions. Scales are those of pycocoevalcap, unrounded: papers print
100 times these values (CIDEr 1.137 is printed as 113.7). Its ``Cider`` is CIDEr-D (clipped counts,
Gaussian length penalty with sigma 6, times 10), which is what the literature reports on COCO.
"""

from __future__ import annotations

import logging
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from dept_vl.errors import ConfigError
from dept_vl.evaluators.base import TIMES_100, EvaluationInput, Evaluator, TokenizerName
from dept_vl.evaluators.java import require_java
from dept_vl.evaluators.ptb_tokenizer import tokenize_ptb
from dept_vl.evaluators.stanford_tokenizer import tokenize_stanford
from dept_vl.registry import lookup

logger = logging.getLogger(__name__)

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


def tokenize_captions(inputs: EvaluationInput) -> TokenizedCaptions:
    """Tokenises predictions and references, each in one call as pycocoevalcap does.

    Raises:
        ConfigError: The tokenizer is unknown, or needs Java and there is none.
    """
    tokenize = lookup(TOKENIZERS, inputs.tokenizer, "tokenizer")
    flat = [text for reference in inputs.references for text in reference.references]
    tokenized = iter(tokenize(flat))
    return TokenizedCaptions(
        predictions={i: [text] for i, text in enumerate(tokenize(inputs.predictions))},
        references={i: [next(tokenized) for _ in ref.references] for i, ref in enumerate(inputs.references)},
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
    from pycocoevalcap.meteor.meteor import Meteor

    score = _run_java_scorer("METEOR", Meteor, captions)
    return {"METEOR": score}


def _spice(captions: TokenizedCaptions) -> dict[str, float]:
    """Returns SPICE 1.0, computed by its Java program, which downloads CoreNLP models on first use."""
    from pycocoevalcap.spice.spice import Spice

    score = _run_java_scorer("SPICE", Spice, captions)
    return {"SPICE": score}


def _run_java_scorer(name: str, scorer: Callable[[], Any], captions: TokenizedCaptions) -> float:
    """Returns the corpus score of a scorer that talks to a Java program.

    Raises:
        ConfigError: The program did not start, broke off, or answered something that is not a number.
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


def _evaluator(
    scorer: Callable[[TokenizedCaptions], dict[str, float]], *scores: str, java_program: str | None = None
) -> Evaluator:
    """Returns a scorer of tokenised captions as an evaluator.

    Args:
        scorer: Scores tokenised captions.
        scores: The keys it returns.
        java_program: What it runs in Java, for the message where there is none.
    """

    def compute(inputs: EvaluationInput) -> dict[str, float]:
        return scorer(inputs.shared(tokenize_captions))

    def check_available(tokenizer: TokenizerName) -> None:
        if java_program is not None:
            require_java(java_program, f"leave {java_program} out")
        if lookup(TOKENIZERS, tokenizer, "tokenizer") is tokenize_stanford:
            require_java("the Stanford tokenizer", 'use tokenizer "ptb", which gives the same tokens')

    return Evaluator(compute, dict.fromkeys(scores, TIMES_100), check_available)


CIDER = _evaluator(_cider, "CIDEr")
BLEU = _evaluator(_bleu, *(f"BLEU-{n}" for n in range(1, 5)))
ROUGE_L = _evaluator(_rouge_l, "ROUGE-L")
METEOR = _evaluator(_meteor, "METEOR", java_program="METEOR")
SPICE = _evaluator(_spice, "SPICE", java_program="SPICE")
