"""How large what a method puts into the input is, beside the frozen embeddings of the text."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from dept_vl.models.adapted_model import AdaptedModel

INERT = 0.01
"""Below this share of the embeddings, what is added to them changes next to nothing."""


@torch.no_grad()
def input_magnitudes(
    model: AdaptedModel, input_ids: Tensor, attention_mask: Tensor, task_ids: Tensor | None = None
) -> dict[str, float]:
    """Returns root mean squares over the tokens of a batch, padding left out.

    Args:
        model: In any mode; dropout is off meanwhile.
        input_ids: (batch, text).
        attention_mask: (batch, text), 1 for text and 0 for padding.
        task_ids: (batch,) the examples' tasks; None for one task.

    Returns:
        ``embeddings``, of the text's frozen ones; ``prompt``, of what stands before them, and ``update``, of what is
        added to them, of a method that has a prompt or changes them; nothing for one that does neither.
    """
    tuner, was_training = model.tuner, model.tuner.training
    embeds = model.backbone.embed_source(input_ids).float()  # (batch, text, d_model)
    tuner.eval()
    try:
        worded = tuner.embed(embeds, model.forward_info(attention_mask, None, task_ids)).float()
    finally:
        tuner.train(was_training)
    is_text, length = attention_mask.bool(), embeds.shape[1]
    prompt, update = worded[:, :-length], (worded[:, -length:] - embeds)[is_text]
    if not prompt.numel() and not update.any():
        return {}
    found = {"embeddings": embeds[is_text], "prompt": prompt, "update": update}
    return {name: _root_mean_square(values) for name, values in found.items() if values.numel()}


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


def _root_mean_square(values: Tensor) -> float:
    return (torch.linalg.vector_norm(values) / math.sqrt(values.numel())).item()
