"""Captions to tokens as coco-caption has them, without Java.

coco-caption tokenises with Stanford CoreNLP 3.4.1 (``PTBTokenizer -preserveLines -lowerCase``) and then
drops punctuation tokens. `dept_vl.evaluators.ptb_lexer` reproduces the former, this module the rest.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from dept_vl.evaluators.ptb_lexer import tokenize_lines

# pycocoevalcap's list has -LRB-, -RRB-, -LCB- and -RCB- too, but it is applied after lower-casing, so
# that brackets ("-lrb-") stay in the tokenised captions; so do "?!", "!!" and "-lsb-".
_DROPPED = frozenset(["''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";"])

_LINE_BREAK = re.compile("[\n\r\v\f\u2028\u2029]")


def one_line(caption: str) -> str:
    """Returns `caption` with every line break as a blank."""
    return _LINE_BREAK.sub(" ", caption)


def drop_punctuation(tokens: Iterable[str]) -> str:
    """Returns the tokens that are not punctuation, joined by blanks."""
    return " ".join(token for token in tokens if token not in _DROPPED)


def tokenize_ptb(captions: Sequence[str]) -> list[str]:
    """Tokenises captions as pycocoevalcap's ``PTBTokenizer`` does.

    Args:
        captions: Raw captions. A line break of any kind inside one counts as a blank.

    Returns:
        For each caption its tokens in lower case without punctuation, joined by blanks.
    """
    text = "\n".join(one_line(caption) for caption in captions)
    # An address may end in a blank beyond ASCII; pycocoevalcap strips every line of the original's output.
    return [drop_punctuation(" ".join(line).rstrip().split(" ")) for line in tokenize_lines(text)] if captions else []
