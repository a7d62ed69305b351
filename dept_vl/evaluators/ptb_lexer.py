"""Splits text into Penn Treebank tokens as Stanford CoreNLP 3.4.1 does (``-preserveLines -lowerCase``).

A lexer in the classical sense: at each position the rule with the longest match makes the token, counting
what the rule looks at behind it; among equals the earlier rule. Lines are read one behind the other, as the
original reads them, because initials at the end of a line look at how the next line begins: "Plan B." keeps
its period, unless "The dog" or "A dog" follows.
"""

from __future__ import annotations

import re
from functools import lru_cache

from dept_vl.evaluators.ptb_rules import JOINED_WORDS, Rule, lexer_rules

# Most of a caption: a word between blanks, which no other rule could make longer.
_PLAIN_WORD = re.compile(r"[A-Za-z]+(?=[ \n]|\Z)")
# No other rule begins with these two; one does with the other blanks.
_BLANKS = re.compile(r"[ \t][ \t\u00a0\u2000-\u200a\u3000]*")


@lru_cache(maxsize=4096)
def _rules_for(character: str) -> tuple[Rule, ...]:
    """Returns the rules whose token may begin with `character`."""
    return tuple(rule for rule in lexer_rules() if rule.first.match(character))


def _next_token(text: str, position: int) -> tuple[str, int]:
    """Returns the token that begins at `position`, and where it ends.

    A character that no rule knows is deleted, as the original does: the token is empty then.
    """
    best: tuple[re.Match[str], Rule] | None = None
    longest = 0
    for rule in _rules_for(text[position]):
        match = rule.pattern.match(text, position)
        if match is None:
            continue
        end = max(match.end(), match.end("ahead")) if rule.pattern.groupindex else match.end()
        if end - position > longest:
            best, longest = (match, rule), end - position
    if best is None:
        return "", position + 1
    match, rule = best
    token = match[0] if rule.replace is None else rule.replace(match[0])
    return token.lower(), match.end()


def tokenize_lines(text: str) -> list[list[str]]:
    r"""Splits lines into tokens.

    Args:
        text: Lines separated by ``\n``.

    Returns:
        The tokens of each line in lower case, punctuation included; one list more than `text` has ``\n``.
    """
    lines: list[list[str]] = [[]]
    position = 0
    while position < len(text):
        if text[position] == "\n":
            lines.append([])
            position += 1
        elif (plain := _PLAIN_WORD.match(text, position)) and plain[0].lower() not in JOINED_WORDS:
            lines[-1].append(plain[0].lower())
            position = plain.end()
        elif blanks := _BLANKS.match(text, position):
            position = blanks.end()
        else:
            token, position = _next_token(text, position)
            if token:
                lines[-1].append(token)
    return lines
