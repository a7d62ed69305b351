"""Prompt, text and visual tokens as one input."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class JointInput:
    """Prompt, text and visual tokens as a backbone reads them.

    Attributes:
        inputs_embeds: (batch, prompt + text + visual, d_model).
        attention_mask: (batch, prompt + text + visual), 1 = attend, 0 = padding.
        has_padding: False only where it is known, without asking a GPU, that no token is padding.
    """

    inputs_embeds: Tensor
    attention_mask: Tensor
    has_padding: bool


def concatenate(
    prompt_and_text_embeds: Tensor, visual_embeds: Tensor | None, text_mask: Tensor
) -> tuple[Tensor, Tensor, bool]:
    """Puts visual tokens behind prompt and padded text.

    Returns:
        (batch, prompt + text + visual, d_model), its mask with 0 for text padding, and whether padding must be
        reckoned with.
    """
    num_virtual_tokens = prompt_and_text_embeds.shape[1] - text_mask.shape[1]
    num_visual_tokens = 0 if visual_embeds is None else visual_embeds.shape[1]
    inputs_embeds = prompt_and_text_embeds
    if visual_embeds is not None:
        inputs_embeds = torch.cat([prompt_and_text_embeds, visual_embeds.to(prompt_and_text_embeds.dtype)], dim=1)
    attention_mask = nn.functional.pad(text_mask, (num_virtual_tokens, num_visual_tokens), value=1)
    # Asking a GPU whether there is padding would make the CPU wait for it; there the mask is always used.
    has_padding = text_mask.device.type != "cpu" or not bool(text_mask.all())
    return inputs_embeds, attention_mask, has_padding
