"""The character classes of the PTB lexer, as regular-expression classes without their brackets.

Measured on the Stanford lexer, character by character over the basic plane. It was built with a Unicode
of about version 6 and knows no character beyond U+FFFF. Rare marks of South Asian scripts are simplified.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Container, Iterable, Sequence

_PRIVATE_AND_SURROGATES = range(0xD800, 0xF900)
_SYMBOL_BLOCKS = (
    range(0x21, 0x7F),
    range(0xA1, 0xC0),
    range(0xD7, 0xD8),
    range(0xF7, 0xF8),
    range(0x2016, 0x2043),
    range(0x2044, 0x2045),
    range(0x2070, 0x208F),
    range(0x2100, 0x2150),
    range(0x2155, 0x215F),
    range(0x2190, 0x2C00),
    range(0x3001, 0x3003),
    range(0x30FB, 0x30FC),
    range(0xFF01, 0xFFE7),
)
_MARK_BLOCK = range(0x02C2, 0x0ED0)


def _class_of(code_points: Iterable[int]) -> str:
    """Returns the inside of a regular-expression class with exactly these characters."""
    runs: list[list[int]] = []
    for code_point in code_points:
        if runs and runs[-1][1] == code_point - 1:
            runs[-1][1] = code_point
        else:
            runs.append([code_point, code_point])
    return "".join(rf"\u{first:04x}-\u{last:04x}" for first, last in runs)


def _characters(blocks: Sequence[range], categories: Container[str]) -> str:
    """Returns the class of the characters of `blocks` whose general category is in `categories`."""
    return _class_of(
        code_point for block in blocks for code_point in block if unicodedata.category(chr(code_point)) in categories
    )


_BASIC_PLANE = (range(0x21, _PRIVATE_AND_SURROGATES.start), range(_PRIVATE_AND_SURROGATES.stop, 0x10000))

LETTERS = _characters(_BASIC_PLANE, {"Lu", "Ll", "Lt", "Lm", "Lo"})
DIGITS = _characters(_BASIC_PLANE, {"Nd"})
MARKS = _characters((_MARK_BLOCK,), {"Mn", "Mc", "Sk"})
"""Combining and modifier characters that continue a word (U+00AD, the soft hyphen, does so too)."""

SYMBOLS = _characters(
    _SYMBOL_BLOCKS,
    {"Sm", "Sc", "Sk", "So", "Pc", "Pd", "Ps", "Pe", "Pi", "Pf", "Po", "No"},
)
"""Characters that are a token by themselves where no rule says otherwise. What is in none of these classes
(control characters, emoji beyond U+FFFF, most of the newer symbols) the Stanford lexer deletes."""

APOSTROPHES = "'\u2019\u0092"
"""The straight one, the curly one, and the curly one of Windows-1252 taken for Latin-1."""

HYPHENS = r"\-\u058a\u2010\u2011"
SOFT_HYPHEN = r"\u00ad"

REPLACEMENTS = {
    "(": "-lrb-",
    ")": "-rrb-",
    "[": "-lsb-",
    "]": "-rsb-",
    "{": "-lcb-",
    "}": "-rcb-",
    "\u2026": "...",
    "\u0085": "...",
    "\u00a2": "cents",
    "\u00a3": "#",
    "\u00bc": "1/4",
    "\u00bd": "1/2",
    "\u00be": "3/4",
    "\u2153": "1/3",
    "\u2154": "2/3",
    "\u00ad": "-",
    **dict.fromkeys("\u2013\u2014\u2015\u0096\u0097", "--"),
    **dict.fromkeys("\u20ac\u0080\u00a4\u20a0", "$"),
    **dict.fromkeys("\u2018\u201b\u2039\u0091", "`"),
    **dict.fromkeys("\u2019\u203a\u0092", "'"),
    **dict.fromkeys("\u201c\u00ab\u0093", "``"),
    **dict.fromkeys("\u201d\u00bb\u0094", "''"),
}
"""Single characters that become another token: Penn Treebank brackets, quotes, dashes, the dollar for every
currency that has no ASCII sign of its own, fractions written out. Characters 80 to 97 (hexadecimal) are
Windows-1252 taken for Latin-1."""
