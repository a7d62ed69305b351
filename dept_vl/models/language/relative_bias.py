"""T5's relative position bias for an encoder input of prompt, text and visual tokens.

T5 adds to every attention score a learned value that depends on the distance between key and query. Two questions
arise once visual tokens follow a padded text:

- *Which distance has a visual token?* `"zero"`: none. Every pair with a visual token gets a bias of 0, and only prompt
  and text keep T5's bias (Sung et al.'s ``JointEncoder``, VL-T5 ``src/modeling_t5.py``; the published CLIP-T5).
  `"sequential"`: visual tokens come right after the text, and plain T5 reads prompt, text and image as one sequence.
- *Does padding count?* No. Text padding sits between text and image in a batch, so positions are counted over the
  unpadded sequence, per example. What an example gets does not depend on its batch mates.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers.models.t5.modeling_t5 import T5Attention


def position_bias(
    attention: T5Attention, kind: str, text_mask: Tensor, num_virtual_tokens: int, num_visual_tokens: int
) -> Tensor:
    """Returns the bias that every encoder block adds to its attention scores.

    Args:
        attention: The self-attention that owns the bias table, of the encoder's first block.
        kind: ``"zero"`` or ``"sequential"``, the bias of pairs with a visual token.
        text_mask: (batch, text), 1 for text and 0 for padding on the right.
        num_virtual_tokens: Prompt tokens before the text.
        num_visual_tokens: Visual tokens after the text; 0 without an image.

    Returns:
        (1, heads, total, total) where all examples share it, else (batch, heads, total, total), for total = prompt +
        text + visual, indexed [query, key], in the precision of the table.
    """
    worded = num_virtual_tokens + text_mask.shape[1]
    device = text_mask.device
    if num_visual_tokens == 0:
        return attention.compute_bias(worded, worded, device=device)  # (1, heads, worded, worded)
    if kind == "zero":
        bias = attention.compute_bias(worded, worded, device=device)
        return nn.functional.pad(bias, (0, num_visual_tokens, 0, num_visual_tokens))
    positions = _positions(text_mask, num_virtual_tokens, num_visual_tokens)  # (batch, total)
    total = worded + num_visual_tokens
    by_distance = _bias_by_distance(attention, total, device)  # (2 total - 1, heads)
    distance = positions[:, None, :] - positions[:, :, None]  # (batch, query, key)
    return by_distance[distance + (total - 1)].permute(0, 3, 1, 2)


def fold_mask(bias: Tensor, attention_mask: Tensor, dtype: torch.dtype) -> Tensor:
    """Puts the padding mask into the bias, once for all blocks.

    Left to T5, every block would add mask to bias again, and keep its own copy for the backward pass.

    Args:
        bias: (1 or batch, heads, total, total).
        attention_mask: (batch, total), 1 = attend, 0 = padding.
        dtype: Precision of the attention scores.

    Returns:
        (batch, heads, total, total): the bias, and the lowest number of `dtype` where the key is padding.
    """
    keys = attention_mask[:, None, None, :].bool()
    return torch.where(keys, bias.to(dtype), torch.finfo(dtype).min)


def _positions(text_mask: Tensor, num_virtual_tokens: int, num_visual_tokens: int) -> Tensor:
    """Returns each token's position in its own unpadded sequence, (batch, total); padding keeps its index, unread."""
    batch, text = text_mask.shape
    worded = torch.arange(num_virtual_tokens + text, device=text_mask.device).expand(batch, -1)
    after_text = num_virtual_tokens + text_mask.long().sum(dim=1, keepdim=True)  # (batch, 1)
    visual = after_text + torch.arange(num_visual_tokens, device=text_mask.device)
    return torch.cat([worded, visual], dim=1)


def _bias_by_distance(attention: T5Attention, total: int, device: torch.device) -> Tensor:
    """Returns T5's bias for key - query = -(total - 1) ... total - 1, (2 total - 1, heads).

    Read off the last row (distances up to 0) and the first (from 0 on) of the table that T5 itself computes.
    """
    bias = attention.compute_bias(total, total, device=device)[0]  # (heads, query, key)
    return torch.cat([bias[:, -1, :], bias[:, 0, 1:]], dim=1).T
