"""Named lookup whose error suggests the nearest names."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import TypeVar

from dept_vl.errors import ConfigError

T = TypeVar("T")

_CLOSE, _FARTHER = 0.6, 0.25
"""How alike a name must be (`difflib`, 1: equal), and how much less than the nearest it may be."""


def suggest(name: str, known: Iterable[str]) -> str:
    """Returns ``"; did you mean 'x'?"`` for the known names close to `name` in any case, or the empty string.

    Three at most, and none that is much farther off than the nearest: ``dpt`` is ``dept`` and not ``adapter``.
    """
    folded: dict[str, str] = {}
    for one in known:
        folded.setdefault(one.casefold(), one)
    asked = name.casefold()
    close = difflib.get_close_matches(asked, folded, n=3, cutoff=_CLOSE)
    ratios = {one: difflib.SequenceMatcher(None, one, asked).ratio() for one in close}
    near = [folded[one] for one in close if ratios[one] >= max(ratios.values()) - _FARTHER]
    return f"; did you mean {' or '.join(repr(n) for n in near)}?" if near else ""


def lookup(table: Mapping[str, T], name: str, kind: str) -> T:
    """Returns ``table[name]``.

    Args:
        table: The known entries by name.
        name: The name asked for.
        kind: What the entries are, for the message: ``"task"``, ``"evaluator"``.

    Raises:
        ConfigError: `name` is not in `table`; the message lists near names and all known ones.
    """
    if name in table:
        return table[name]
    known = ", ".join(sorted(table))
    raise ConfigError(f"unknown {kind} {name!r}{suggest(name, table)} (known: {known})")
