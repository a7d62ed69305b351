"""How large what a method puts into the input is, beside the frozen embeddings of the text."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from dept_vl.models.adapted_model import AdaptedModel
from dept_vl.models.language.base import Backbone

_ROWS_AT_ONCE = 8_192
"""Of the table of word embeddings."""


@torch.no_grad()
def embedding_size(backbone: Backbone[Any]) -> float:
    """Returns the root mean square over all numbers of the embeddings that the model reads a source's text with."""
    table = backbone.source_table
    rows = torch.arange(table.shape[0], device=table.device).split(_ROWS_AT_ONCE)
    norms = [torch.linalg.vector_norm(backbone.embed_source(ids), dtype=torch.float64) for ids in rows]
    return float(torch.stack(norms).norm()) / math.sqrt(table.shape[0] * backbone.d_model)


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


def _root_mean_square(values: Tensor) -> float:
    return (torch.linalg.vector_norm(values) / math.sqrt(values.numel())).item()
