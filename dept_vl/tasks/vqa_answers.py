"""How the official VQA evaluation normalises an answer, and the soft scores made from ten answers.

Source of the rules: GT-Vision-Lab/VQA (commit a013f00), ``PythonEvaluationTools/vqaEvaluation/
vqaEval.py``, functions ``processPunctuation`` and ``processDigitArticle``. Its oddities are kept on
purpose, since published accuracies contain them; each is named where it happens.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache

ENOUGH_PEOPLE = 3
"""Equal answers that make one certain (Antol et al. 2015)."""

_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_DIGIT_COMMA_DIGIT = re.compile(r"\d,\d")
# The script writes "(?!<=\d)(\.)(?!\d)": a look-behind with a typing error that never fails, so that
# a period is kept only before a digit (".5" and "3.5"; "5." loses it).
_PERIOD = re.compile(r"\.(?!\d)")
# ... and passes re.UNICODE, which is 32, in the place of the number of substitutions.
_MAX_PERIODS_REMOVED = 32

_ARTICLES = frozenset({"a", "an", "the"})
_NUMBER_WORDS = {
    "none": "0",
    "zero": "0",
    "one": "1",
    "two": "2",
    "three": "3",
    "four": "4",
    "five": "5",
    "six": "6",
    "seven": "7",
    "eight": "8",
    "nine": "9",
    "ten": "10",
}

# Contraction, then the spellings that are mapped to it. Three lines look wrong and are the script's:
# "somebody'd" loses its apostrophe, "let's" and "she's" map to themselves. Its keys with capitals
# ("Im", "Ive", "Id've", "I'dve") are left out: words are lower-cased first, so they never match.
_CONTRACTION_SPELLINGS = """
ain't aint|aren't arent|can't cant|could've couldve|couldn't couldnt|couldn't've couldn'tve couldnt've
didn't didnt|doesn't doesnt|don't dont|hadn't hadnt|hadn't've hadnt've hadn'tve|hasn't hasnt
haven't havent|he'd hed|he'd've hed've he'dve|he's hes|how'd howd|how'll howll|how's hows|isn't isnt
it'd itd|it'd've itd've it'dve|it'll itll|let's let's|ma'am maam|mightn't mightnt
mightn't've mightnt've mightn'tve|might've mightve|mustn't mustnt|must've mustve|needn't neednt
not've notve|o'clock oclock|oughtn't oughtnt|'ow's'at ow's'at 'ows'at 'ow'sat|shan't shant
she'd've shed've she'dve|she's she's|should've shouldve|shouldn't shouldnt
shouldn't've shouldnt've shouldn'tve|somebodyd somebody'd|somebody'd've somebodyd've somebody'dve
somebody'll somebodyll|somebody's somebodys|someone'd someoned|someone'd've someoned've someone'dve
someone'll someonell|someone's someones|something'd somethingd|something'd've somethingd've something'dve
something'll somethingll|that's thats|there'd thered|there'd've thered've there'dve|there're therere
there's theres|they'd theyd|they'd've theyd've they'dve|they'll theyll|they're theyre|they've theyve
'twas twas|wasn't wasnt|we'd've wed've we'dve|we've weve|weren't werent|what'll whatll|what're whatre
what's whats|what've whatve|when's whens|where'd whered|where's wheres|where've whereve|who'd whod
who'd've whod've who'dve|who'll wholl|who's whos|who've whove|why'll whyll|why're whyre|why's whys
won't wont|would've wouldve|wouldn't wouldnt|wouldn't've wouldnt've wouldn'tve|y'all yall
y'all'll yall'll y'allll|y'all'd've yall'd've y'alld've y'all'dve|you'd youd|you'd've youd've you'dve
you'll youll|you're youre|you've youve
"""


def _parse_contractions(table: str) -> dict[str, str]:
    """Returns {spelling: contraction} of a table of ``contraction spelling ...`` entries."""
    entries = (entry.split() for entry in re.split(r"[|\n]", table.strip()))
    return {spelling: contraction for contraction, *spellings in entries for spelling in spellings}


_CONTRACTIONS = _parse_contractions(_CONTRACTION_SPELLINGS)


def clean_whitespace(answer: str) -> str:
    """Returns `answer` with newlines and tabs as blanks and without blanks at its ends.

    The official script does this to every answer and every prediction before anything else.
    """
    return answer.replace("\n", " ").replace("\t", " ").strip()


def process_punctuation(answer: str) -> str:
    r"""Returns `answer` without punctuation marks, as the official ``processPunctuation`` does.

    A mark is deleted everywhere when it touches a blank anywhere in the answer, or when the answer
    has a comma between two digits; otherwise it becomes a blank ("t-shirt" gives "t shirt", but
    "t-shirt 1,000" gives "tshirt 1000"). Then periods not followed by a digit are deleted, the first
    32 of them at most. Apostrophes, ``:``, ``$``, ``%``, ``&``, ``*``, ``#`` stay. Upper case stays.
    """
    has_digit_comma = _DIGIT_COMMA_DIGIT.search(answer) is not None
    processed = answer
    for mark in _PUNCTUATION:
        if mark in answer:
            delete = has_digit_comma or f"{mark} " in answer or f" {mark}" in answer
            processed = processed.replace(mark, "" if delete else " ")
    return _PERIOD.sub("", processed, count=_MAX_PERIODS_REMOVED)


def process_digits_and_articles(answer: str, contractions: Mapping[str, str] = _CONTRACTIONS) -> str:
    """Returns `answer` lower-cased, number words as digits, without articles, contractions repaired.

    The official ``processDigitArticle``: "none" and "zero" give "0", "one" to "ten" give "1" to
    "10"; "a", "an" and "the" are dropped (so that the answer "a" becomes the empty string); runs of
    white space become one blank.
    """
    words = (_NUMBER_WORDS.get(word, word) for word in answer.lower().split())
    return " ".join(contractions.get(word, word) for word in words if word not in _ARTICLES)


@lru_cache(maxsize=1 << 17)
def normalise_answer(answer: str) -> str:
    """Returns `answer` as the official evaluation compares it where the ten answers differ.

    White space, punctuation, number words, articles and contractions are processed, in this order.
    Where all ten answers are the same string the official script compares without any of this: that
    decision is the evaluator's (`dept_vl.evaluators.vqa`), not this function's.
    """
    return process_digits_and_articles(process_punctuation(clean_whitespace(answer)))


_APOSTROPHE = "\N{RIGHT SINGLE QUOTATION MARK}"
_PLAIN_IN_VIZWIZ = frozenset({"aint", "arent", "cant", "couldve", "couldnt", "weve", "wheres", "whove"})
_PLAIN_SPELLINGS_IN_VIZWIZ = frozenset({"couldn'tve", "hadn'tve"})
_VIZWIZ_CONTRACTIONS = {
    spelling if spelling in _PLAIN_SPELLINGS_IN_VIZWIZ else spelling.replace("'", _APOSTROPHE): (
        contraction if spelling in _PLAIN_IN_VIZWIZ else contraction.replace("'", _APOSTROPHE)
    )
    for spelling, contraction in _CONTRACTIONS.items()
}
"""The script of VizWiz has nearly all apostrophes of the table as typographic ones, on both sides."""


def normalise_vizwiz_answer(answer: str) -> str:
    """Returns a prediction as the evaluation of VizWiz compares it, with answers that it does not normalise.

    Everything is as in `normalise_answer` but for its table of contractions, whose apostrophes are typographic: "dont"
    becomes "don’t", and "don't" stays.
    """
    return process_digits_and_articles(process_punctuation(clean_whitespace(answer)), _VIZWIZ_CONTRACTIONS)


def soft_score(count: int) -> float:
    """Returns the soft score of an answer that `count` of ten people gave: 0, 0.3, 0.6, 0.9 or 1.

    Equal to the official leave-one-out accuracy of that answer: ``(10 - n) * min(1, n / 3) / 10 +
    n * min(1, (n - 1) / 3) / 10``. Defined by hengyuan-hu/bottom-up-attention-vqa,
    ``tools/compute_softscore.py`` (``get_score``), which VL-T5 and Sung et al. train with.
    """
    return (0.0, 0.3, 0.6, 0.9)[count] if count < 4 else 1.0


def soft_scores(answers: Sequence[str]) -> dict[str, float]:
    """Returns the training targets of one question: each distinct normalised answer and its score.

    Args:
        answers: What the (ten) people answered, raw.

    Returns:
        Normalised answer to soft score in (0, 1], in order of first appearance. An answer of which
        nothing is left ("the", "a") is not a target, so the result is empty if all are like that.
    """
    counts = Counter(normalise_answer(answer) for answer in answers)
    return {answer: soft_score(count) for answer, count in counts.items() if answer}


def relative_scores(answers: Sequence[str]) -> dict[str, float]:
    """Returns ``min(n, 3)`` of each distinct normalised answer over that of the most frequent one, in (0, 1].

    The soft score where other than ten people answered: three equal answers make one certain (Antol et al. 2015, VQA:
    Visual Question Answering, section 3), and where there are fewer, the most frequent one is. In order of first
    appearance; an answer of which nothing is left stays, as "" (the answer "A" of a multiple choice is one).
    """
    counts = Counter(normalise_answer(answer) for answer in answers)
    return {
        answer: min(count, ENOUGH_PEOPLE) / min(max(counts.values()), ENOUGH_PEOPLE) for answer, count in counts.items()
    }
