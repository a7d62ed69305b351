"""Names of tasks in the released DePT code."""

from __future__ import annotations

_OURS = {"superglue-wsc.fixed": "superglue-wsc", "yelp_polarity": "yelp-polarity"}
"""Those that are spelled otherwise here."""


def our_name(released: str) -> str:
    """Returns the name that a task of the released code has here."""
    return _OURS.get(released, released)
