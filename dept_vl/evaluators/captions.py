"""COCO caption scores with pycocoevalcap's own scorers: CIDEr, BLEU, ROUGE-L, METEOR, SPICE.

All scorers of one input share its tokenised captions. Scales are those of pycocoevalcap, unrounded: papers print
100 times these values (CIDEr 1.137 is printed as 113.7). Its ``Cider`` is CIDEr-D (clipped counts,
Gaussian length penalty with sigma 6, times 10), which is what the literature reports on COCO.
"""

from __future__ import annotations

import math
import re
import subprocess
import zipfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from dept_vl.errors import ConfigError, DataError
from dept_vl.evaluators.base import (
    TIMES_100,
    Concern,
    EvaluationInput,
    Evaluator,
    Reference,
    TokenizerName,
    by_type,
    how_many_have,
    mean,
)
from dept_vl.evaluators.java import require_java
from dept_vl.evaluators.ptb_tokenizer import tokenize_ptb
from dept_vl.evaluators.stanford_tokenizer import tokenize_stanford
from dept_vl.registry import lookup

TOKENIZERS: dict[str, Callable[[Sequence[str]], list[str]]] = {
    "ptb": tokenize_ptb,
    "stanford": tokenize_stanford,
}

MIN_IMAGES_FOR_CIDER = 100
"""Below this many images CIDEr's document frequencies say little, which is a concern."""

_LONGEST = 4
"""Words of the longest n-grams that CIDEr and BLEU count."""

_WORD = re.compile("[A-Za-z0-9]")  # what has one of these has a token that stays


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


@dataclass(frozen=True)
class CaptionScores:
    """What a scorer returns.

    Attributes:
        corpus: Score key -> value of all captions.
        each: Score key -> one value a caption.
    """

    corpus: dict[str, float]
    each: dict[str, list[float]]


def _scores(key: str, result: tuple[Any, Any]) -> CaptionScores:
    """Returns the pair that pycocoevalcap's scorers return, corpus and captions, under a key."""
    corpus, each = result
    return CaptionScores({key: float(corpus)}, {key: [float(value) for value in each]})


def _cider(captions: TokenizedCaptions) -> CaptionScores:
    """Returns CIDEr-D, the document frequencies counted on the references of these images."""
    from pycocoevalcap.cider.cider import Cider

    return _scores("CIDEr", Cider().compute_score(captions.references, captions.predictions))


def _bleu(captions: TokenizedCaptions) -> CaptionScores:
    """Returns BLEU-1 to BLEU-4 of the corpus, with the closest reference length."""
    from pycocoevalcap.bleu.bleu import Bleu

    corpus, each = Bleu(_LONGEST).compute_score(captions.references, captions.predictions, verbose=0)
    parts = [_scores(f"BLEU-{n}", pair) for n, pair in enumerate(zip(corpus, each, strict=True), start=1)]
    return CaptionScores(
        {key: value for part in parts for key, value in part.corpus.items()},
        {key: values for part in parts for key, values in part.each.items()},
    )


def _rouge_l(captions: TokenizedCaptions) -> CaptionScores:
    """Returns ROUGE-L (beta 1.2, best precision and best recall over the references)."""
    from pycocoevalcap.rouge.rouge import Rouge

    return _scores("ROUGE-L", Rouge().compute_score(captions.references, captions.predictions))


def _meteor(captions: TokenizedCaptions) -> CaptionScores:
    """Returns METEOR 1.5, computed by its Java program."""
    from pycocoevalcap.meteor.meteor import Meteor

    return _scores("METEOR", _run_java_scorer("METEOR", Meteor, captions))


def _spice(captions: TokenizedCaptions) -> CaptionScores:
    """Returns SPICE 1.0, computed by its Java program, which downloads CoreNLP models on first use."""
    from pycocoevalcap.spice.spice import Spice

    corpus, each = _run_java_scorer("SPICE", Spice, captions)
    return _scores("SPICE", (corpus, [parts["All"]["f"] for parts in each]))


def _run_java_scorer(name: str, scorer: Callable[[], Any], captions: TokenizedCaptions) -> tuple[Any, Any]:
    """Returns what a scorer that talks to a Java program returns, its corpus score being a number."""
    running: Any = None
    try:
        running = scorer()
        corpus, each = running.compute_score(captions.references, captions.predictions)
        if not math.isfinite(corpus):
            raise ValueError(f"it answered {corpus}")
    except (OSError, ValueError, LookupError, TypeError, subprocess.SubprocessError, zipfile.BadZipFile) as error:
        said = _last_words(running)
        raise ConfigError(
            f"{name}'s Java program failed ({error}{said}). It needs a working Java (SPICE: version 8 to 15, and the "
            f"network once for its models); check `java -version`, or leave {name} out"
        ) from error
    return corpus, each


def _last_words(running: Any) -> str:
    """Ends a scorer that broke off, and returns what its program printed as an error, if it did.

    pycocoevalcap's METEOR leaves its lock taken when it breaks off, and waits for it for ever when it is deleted.
    """
    lock = getattr(running, "lock", None)
    if lock is not None and lock.locked():
        lock.release()
    process = getattr(running, "meteor_p", None)
    if process is None:
        return ""
    with suppress(OSError):  # what it was still to read; METEOR would trip over it when it is deleted
        process.stdin.close()
    process.kill()
    printed = process.stderr.read().decode(errors="replace").strip().splitlines()
    return f": {printed[-1][-300:]}" if printed else ""


def check_captions(references: Sequence[Reference]) -> list[Concern]:
    """Returns how many images have no reference with a word.

    Raises:
        DataError: None has: there is nothing to count.
    """
    bare = sum(not _has_word(reference) for reference in references)
    if bare == len(references):
        first = references[0]
        where = "" if first.example_id is None else f", as those of image {first.example_id}"
        raise DataError(
            f"no reference caption has a word{where}: {first.references[0]!r}; captions "
            "of punctuation alone cannot be scored against"
        )
    if not bare:
        return []
    return [
        Concern(f"{how_many_have(bare, len(references), 'image')} no reference with a word, so nothing scores there")
    ]


def _has_word(reference: Reference) -> bool:
    texts = reference.references
    return any(map(_WORD.search, texts)) or any(tokenize_ptb(texts))


def check_document_frequencies(references: Sequence[Reference]) -> list[Concern]:
    """Returns what becomes of CIDEr where n-grams do not tell the images apart; beside `check_captions`."""
    concerns, count = check_captions(references), len(references)
    if _are_alike(references):
        concerns.append(
            Concern(
                f"CIDEr of {count} image{'s' * (count > 1)}: its document frequencies come from the references of the "
                "images scored. No n-gram of theirs tells one image from another, so it is 0 whatever is predicted",
                "rouge-l",
            )
        )
    elif count < MIN_IMAGES_FOR_CIDER:
        concerns.append(
            Concern(
                f"CIDEr of {count} images: its document frequencies come from the references of the images scored, and "
                f"{count} are too few (at least {MIN_IMAGES_FOR_CIDER}). Don't compare it with a published score"
            )
        )
    return concerns


def _are_alike(references: Sequence[Reference]) -> bool:
    """Returns whether every n-gram of the references is in the references of every image."""
    first: set[tuple[str, ...]] | None = None
    for reference in references:
        found = set()
        for text in tokenize_ptb(reference.references):
            words = text.split(" ")
            found |= {tuple(words[i : i + n]) for n in range(1, _LONGEST + 1) for i in range(len(words) - n + 1)}
        if first is not None and found != first:
            return False
        first = found
    return True


def _evaluator(
    scorer: Callable[[TokenizedCaptions], CaptionScores],
    *scores: str,
    check_references: Callable[[Sequence[Reference]], list[Concern]] = check_captions,
    java_program: str | None = None,
    is_mean: bool = True,
) -> Evaluator:
    """Returns a scorer of tokenised captions as an evaluator.

    Args:
        scorer: Scores tokenised captions.
        scores: The keys it returns.
        check_references: What it assumes of references.
        java_program: What it runs in Java, for the message where there is none.
        is_mean: Whether its score is the mean of the captions', so that there is one of each type; document frequencies
            are those of all images all the same.
    """

    def run(inputs: EvaluationInput) -> CaptionScores:
        return scorer(inputs.shared(tokenize_captions))

    def compute(inputs: EvaluationInput) -> dict[str, float]:
        found = inputs.shared(run)
        typed = found.each.items() if is_mean else ()
        return {
            **found.corpus,
            **{k: v for key, each in typed for k, v in by_type(key, each, inputs.references, mean).items()},
        }

    def check_available(tokenizer: TokenizerName) -> None:
        if java_program is not None:
            require_java(java_program, f"leave {java_program} out")
        if lookup(TOKENIZERS, tokenizer, "tokenizer") is tokenize_stanford:
            require_java("the Stanford tokenizer", 'use tokenizer "ptb", which gives the same tokens')

    return Evaluator(
        compute,
        dict.fromkeys(scores, TIMES_100),
        check_available,
        check_references,
        lambda inputs: inputs.shared(run).each,
        ("question", "caption", "text"),
    )


CIDER = _evaluator(_cider, "CIDEr", check_references=check_document_frequencies)
BLEU = _evaluator(_bleu, *(f"BLEU-{n}" for n in range(1, 5)), is_mean=False)
ROUGE_L = _evaluator(_rouge_l, "ROUGE-L")
METEOR = _evaluator(_meteor, "METEOR", java_program="METEOR", is_mean=False)
SPICE = _evaluator(_spice, "SPICE", java_program="SPICE")
