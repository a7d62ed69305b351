"""Labels that are scored on request."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from dept_vl.data.text_codec import TextCodec
from dept_vl.errors import ConfigError

MAX_LABEL_TOKENS = 512
"""Longest label that is scored; what is read of all labels together grows with the square of their tokens."""


def check_labels(labels: Any, codec: TextCodec) -> tuple[tuple[str, ...], int]:
    """Returns labels that are texts, each given once, and the tokens of the longest.

    Raises:
        ConfigError: They are no such texts, one is too long, or two are the same in tokens.
    """
    asked = _texts(labels)
    ids = [tuple(row) for row in codec.target_ids(asked)]
    longest = max(len(row) for row in ids)
    if longest > MAX_LABEL_TOKENS:
        raise ConfigError(f"labels: one has {longest:,} tokens; at most {MAX_LABEL_TOKENS} are scored")
    if len(set(ids)) < len(ids):
        same = [label for label, row in zip(asked, ids, strict=True) if ids.count(row) > 1]
        raise ConfigError(f"labels: {same[0]!r} has the same tokens as another of them; they cannot be told apart")
    return asked, longest


def _texts(labels: Any) -> tuple[str, ...]:
    """Returns labels that are texts, each given once."""
    if isinstance(labels, str) or not isinstance(labels, Iterable):
        raise ConfigError(f"labels: expected a list of texts, got {labels!r}")
    given = tuple(labels)
    bad = [label for label in given if not isinstance(label, str) or not label.strip()]
    if bad or not given:
        raise ConfigError(f"labels: expected at least one text, and none that is empty, got {(bad or [given])[0]!r}")
    twice = [label for label in given if given.count(label) > 1]
    if twice:
        raise ConfigError(f"labels: {twice[0]!r} is given twice")
    return given
