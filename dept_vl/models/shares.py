"""Prompt and update as multiples of the frozen embeddings of the text, in words for people. No torch."""

from __future__ import annotations

from collections.abc import Mapping

INERT = 0.01
"""Below this share of the embeddings, what is added to them changes next to nothing."""


def embedding_shares(magnitudes: Mapping[str, float]) -> dict[str, float]:
    """Returns what `input_magnitudes` found of prompt and update, as multiples of the embeddings; 0 for neither."""
    size = magnitudes.get("embeddings")
    return {name: magnitudes[name] / size for name in ("prompt", "update") if magnitudes.get(name)} if size else {}


def describe_shares(shares: Mapping[str, float]) -> str:
    """Says what `embedding_shares` returned, for people."""
    words = {"prompt": "the prompt is", "update": "what is added to the text is"}
    found = ", ".join(f"{words[name]} {share:.2g} times" for name, share in shares.items())
    return f"beside the text's frozen embeddings {found} as large"


def warning_about(shares: Mapping[str, float]) -> str | None:
    """Returns a warning if something is added to the embeddings and is below `INERT` of them."""
    share = shares.get("update", 0.0)
    if not 0 < share < INERT:
        return None
    return (
        f"what the method adds to the text's embeddings is {100 * share:.2g} % of them at the end: it does next to "
        "nothing; raise its learning rate (rms/* and lr/* in metrics.jsonl show both over the run)"
    )
