"""Named lookup whose error suggests the nearest names."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import TypeVar

from dept_vl.errors import ConfigError

T = TypeVar("T")


def suggest(name: str, known: Iterable[str]) -> str:
    """Returns ``"; did you mean 'x'?"`` for the known names close to `name` in any case, or the empty string."""
    folded: dict[str, str] = {}
    for one in known:
        folded.setdefault(one.casefold(), one)
    near = [folded[one] for one in difflib.get_close_matches(name.casefold(), folded, n=3, cutoff=0.6)]
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
