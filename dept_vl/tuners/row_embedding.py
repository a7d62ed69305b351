"""What methods that act on the embeddings alone do, as tensors, so that rows of several adapters share a batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dept_vl.errors import DataError
from dept_vl.tuners.forward_info import ForwardInfo


@dataclass(frozen=True)
class RowEmbedding:
    """What `Tuner.embed` does in evaluation, without gradient.

    Attributes:
        prompt: (prompt, d_model) float32, put before the text; prompt may be 0.
        update: (max_source_length, d_model) float32, added to text tokens; None where they stay as they are.
        is_last_aligned: Which row a token gets: of n tokens, token i has row ``max_source_length - n + i``, or i.
    """

    prompt: Tensor
    update: Tensor | None = None
    is_last_aligned: bool = False

    @property
    def num_virtual_tokens(self) -> int:
        """Vectors put before the text."""
        return len(self.prompt)


def embed_rows(rows: Sequence[RowEmbedding], text_embeds: Tensor, info: ForwardInfo) -> Tensor:
    """Embeds a batch each row of which is an adapter's own, as `Tuner.embed` of each would.

    Args:
        rows: Of each row what its adapter does; the prompts are equally long.
        text_embeds: (batch, text, d_model) float32, padding on the right.
        info: The forward pass; its mask says how many tokens a row has.

    Returns:
        (batch, prompt + text, d_model), the prompt and the update gathered by row.

    Raises:
        DataError: The prompts differ in length, or there are not as many as rows.
    """
    lengths = {one.num_virtual_tokens for one in rows}
    if len(lengths) != 1 or len(rows) != len(text_embeds):
        raise DataError(
            f"a batch of {len(text_embeds)} rows got {len(rows)} adapters with prompts of {sorted(lengths)} tokens; "
            "one adapter a row and one length are needed"
        )
    if any(one.update is not None for one in rows):
        text_embeds = text_embeds + _updates(rows, text_embeds, info)
    if lengths == {0}:
        return text_embeds
    prompts = torch.stack([one.prompt for one in rows]).to(text_embeds)
    return torch.cat([prompts, text_embeds], dim=1)


def _updates(rows: Sequence[RowEmbedding], text_embeds: Tensor, info: ForwardInfo) -> Tensor:
    """Returns (batch, text, d_model); what padding gets is not read."""
    length = text_embeds.shape[1]
    begins = [0] * len(rows)
    if any(one.is_last_aligned for one in rows):
        counts = info.text_mask.sum(dim=1).tolist()
        begins = [
            len(one.update) - count if one.is_last_aligned and one.update is not None else 0
            for one, count in zip(rows, counts, strict=True)
        ]
    updates = torch.zeros_like(text_embeds)
    for number, (one, begin) in enumerate(zip(rows, begins, strict=True)):
        if one.update is not None:
            chosen = one.update[begin : begin + length]
            updates[number, : len(chosen)] = chosen
    return updates
