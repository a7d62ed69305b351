"""T5 written out for texts without padding, with a place for whatever a method changes: the reference for methods."""

from collections.abc import Callable

import torch
from torch import Tensor

from dept_vl.models.language.t5 import T5Backbone

Change = Callable[[str, int, str, Tensor], Tensor]


def unchanged(stack: str, layer: int, part: str, values: Tensor) -> Tensor:
    return values


def nothing(stack: str, layer: int, hidden: Tensor, normed: Tensor) -> Tensor | float:
    return 0.0


@torch.no_grad()
def plain_logits(
    backbone: T5Backbone,
    ids: Tensor,
    labels: Tensor,
    *,
    change: Change = unchanged,
    beside: Callable[[str, int, Tensor, Tensor], Tensor | float] = nothing,
    encoded: Callable[[Tensor], None] = lambda states: None,
) -> Tensor:
    """Returns (batch, target, vocabulary).

    Args:
        backbone: The model.
        ids: (batch, text), no padding.
        labels: (batch, target), no padding.
        change: What becomes of ``self_attn.k``, ``cross_attn.o``, ``ff.hidden``, ``ff.out``, ... in a block.
        beside: What is added beside a feed-forward that reads `hidden`, and after its norm `normed`.
        encoded: Is told the encoder's last states.
    """
    t5 = backbone.model

    def attend(stack, layer, part, module, queries, states, bias):
        heads = (module.n_heads, module.key_value_proj_dim)
        query, key, value = (
            change(stack, layer, f"{part}.{name}", getattr(module, name)(read)).unflatten(-1, heads)
            for name, read in (("q", queries), ("k", states), ("v", states))
        )
        weights = (torch.einsum("bqhd,bkhd->bhqk", query, key) + bias).softmax(-1)
        read = torch.einsum("bhqk,bkhd->bqhd", weights, value).flatten(2)
        return change(stack, layer, f"{part}.o", module.o(read))

    def feed_forward(stack, layer, block, hidden):
        module, normed = block.DenseReluDense, block.layer_norm(hidden)
        if hasattr(module, "wi"):
            inner = module.wi(normed).relu()
        else:
            inner = torch.nn.functional.gelu(module.wi_0(normed), approximate="tanh") * module.wi_1(normed)
        written = change(stack, layer, "ff.out", module.wo(change(stack, layer, "ff.hidden", inner)))
        return hidden + written + beside(stack, layer, hidden, normed)

    hidden = t5.shared(ids)
    bias = t5.encoder.block[0].layer[0].SelfAttention.compute_bias(ids.shape[1], ids.shape[1])
    for number, block in enumerate(t5.encoder.block):
        layer, normed = block.layer[0], block.layer[0].layer_norm(hidden)
        hidden = hidden + attend("encoder", number, "self_attn", layer.SelfAttention, normed, normed, bias)
        hidden = feed_forward("encoder", number, block.layer[1], hidden)
    states = t5.encoder.final_layer_norm(hidden)
    encoded(states)
    target = labels.shape[1]
    hidden = t5.shared(t5.prepare_decoder_input_ids_from_labels(labels))
    ahead = torch.ones(target, target, dtype=torch.bool).triu(1)
    bias = t5.decoder.block[0].layer[0].SelfAttention.compute_bias(target, target).masked_fill(ahead, -1e9)
    for number, block in enumerate(t5.decoder.block):
        layer, normed = block.layer[0], block.layer[0].layer_norm(hidden)
        hidden = hidden + attend("decoder", number, "self_attn", layer.SelfAttention, normed, normed, bias)
        layer, normed = block.layer[1], block.layer[1].layer_norm(hidden)
        hidden = hidden + attend("decoder", number, "cross_attn", layer.EncDecAttention, normed, states, 0.0)
        hidden = feed_forward("decoder", number, block.layer[2], hidden)
    hidden = t5.decoder.final_layer_norm(hidden)
    return t5.lm_head(hidden * (t5.config.d_model**-0.5 if t5.config.scale_decoder_outputs else 1.0))


TEXT = torch.tensor([[5, 9, 4], [8, 2, 7]]), torch.ones(2, 3, dtype=torch.long), torch.tensor([[6, 3], [3, 1]])
"""Ids, mask and labels of two texts without padding."""
