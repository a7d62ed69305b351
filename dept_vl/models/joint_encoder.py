"""The frozen T5 encoder over prompt, text and visual tokens, with a position bias of our own."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers.models.t5.modeling_t5 import T5Stack

from dept_vl.models.relative_bias import fold_mask, position_bias


@dataclass(frozen=True)
class EncoderInput:
    """What the frozen encoder reads.

    Attributes:
        inputs_embeds: (batch, prompt + text + visual, d_model).
        attention_mask: (batch, prompt + text + visual), 1 = attend, 0 = padding.
        position_bias: (1 or batch, heads, total, total), added to every block's attention scores, padding folded in.
        has_padding: False only where it is known, without asking a GPU, that no token is padding.
    """

    inputs_embeds: Tensor
    attention_mask: Tensor
    position_bias: Tensor
    has_padding: bool

    def decoder_mask(self) -> Tensor | None:
        """Returns the decoder's mask over the encoder's states, (batch, 1, 1, total) additive; None without padding.

        T5 takes a 4-d additive mask as it is; given a 2-d one it would first ask whether there is padding, which
        makes the CPU wait for the GPU at every step.
        """
        if not self.has_padding:
            return None
        is_padding = self.attention_mask[:, None, None, :] == 0
        mask = torch.zeros(is_padding.shape, dtype=self.position_bias.dtype, device=is_padding.device)
        return mask.masked_fill_(is_padding, torch.finfo(mask.dtype).min)


def join(
    encoder: T5Stack,
    worded_embeds: Tensor,
    visual_embeds: Tensor | None,
    text_mask: Tensor,
    *,
    visual_position_bias: str,
) -> EncoderInput:
    """Joins prompt and text with visual tokens.

    Args:
        encoder: The frozen encoder, for its bias table.
        worded_embeds: (batch, prompt + text, d_model).
        visual_embeds: (batch, visual, d_model), or None without an image.
        text_mask: (batch, text), 1 for text and 0 for padding on the right.
        visual_position_bias: ``"zero"`` or ``"sequential"`` (`dept_vl.models.relative_bias`).
    """
    num_virtual_tokens = worded_embeds.shape[1] - text_mask.shape[1]
    num_visual_tokens = 0 if visual_embeds is None else visual_embeds.shape[1]
    inputs_embeds = worded_embeds
    if visual_embeds is not None:
        inputs_embeds = torch.cat([worded_embeds, visual_embeds.to(worded_embeds.dtype)], dim=1)
    attention_mask = nn.functional.pad(text_mask, (num_virtual_tokens, num_visual_tokens), value=1)
    bias = position_bias(encoder, visual_position_bias, text_mask, num_virtual_tokens, num_visual_tokens)
    dtype = _score_dtype(worded_embeds)
    # Asking a GPU whether there is padding would make the CPU wait for it; there the mask is always used.
    has_padding = text_mask.device.type != "cpu" or not bool(text_mask.all())
    bias = fold_mask(bias, attention_mask, dtype) if has_padding else bias.to(dtype)
    return EncoderInput(inputs_embeds, attention_mask, bias, has_padding)


def run_encoder(encoder: T5Stack, encoder_input: EncoderInput) -> Tensor:
    """Runs T5's own blocks on the given embeddings and position bias.

    The bias is built once and shared by all blocks. ``T5Stack.forward`` cannot be used, because it takes no bias and
    makes plain T5's.

    Returns:
        (batch, total, d_model): the encoder's last hidden states.
    """
    hidden = encoder.dropout(encoder_input.inputs_embeds)  # (batch, total, d_model)
    for block in encoder.block:
        # Positional, as gradient checkpointing wants; no mask, because it is folded into the bias.
        hidden = block(hidden, None, encoder_input.position_bias)[0]
    normed: Tensor = encoder.dropout(encoder.final_layer_norm(hidden))
    return normed


def _score_dtype(embeds: Tensor) -> torch.dtype:
    """Returns the precision T5's attention scores will have: autocast's where it is on, else the weights'."""
    if torch.is_autocast_enabled(embeds.device.type):
        return torch.get_autocast_dtype(embeds.device.type)
    return embeds.dtype
