"""One block of T5: its parts by their roles, and how one of the decoder is run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from dept_vl.models.language.cross_attention import cross_attend
from dept_vl.models.language.t5_family import ATTENTIONS, block_places
from dept_vl.tuners.layers.dropout import RectifiedDropout, replace_dropout
from dept_vl.tuners.places.hooks import SiteHook
from dept_vl.tuners.places.sites import AttentionPart, Part, StackName


def block_parts(block: Any) -> Iterator[tuple[Part, nn.Module]]:
    """Yields the parts of one T5 block, in the order they compute."""
    is_gated = hasattr(block.layer[-1].DenseReluDense, "wi_0")
    for part, place in block_places(_stack_of(block), is_gated=is_gated).items():
        yield part, block.get_submodule(place)


def block_attentions(block: Any) -> Iterator[tuple[AttentionPart, nn.Module]]:
    """Yields the attentions of one T5 block."""
    for part, place in ATTENTIONS[_stack_of(block)].items():
        yield part, block.get_submodule(place)


def _stack_of(block: Any) -> StackName:
    return "decoder" if block.is_decoder else "encoder"


def replace_block_dropout(block: Any) -> None:
    """Lets one T5 block keep less for its backward, by `dept_vl.tuners.layers.dropout`: the same function."""
    replace_dropout(block)
    dense = block.layer[-1].DenseReluDense
    if isinstance(dense.act, nn.ReLU):  # not gated
        dense.act, dense.dropout = nn.Identity(), RectifiedDropout(dense.dropout.p).train(block.training)


def run_decoder_block(
    block: Any,
    hidden: Tensor,
    bias: Tensor,
    states: Tensor,
    mask: Tensor | None,
    key_hook: SiteHook | None = None,
    value_hook: SiteHook | None = None,
) -> Tensor:
    """Runs one of the decoder's blocks on a whole target, with `cross_attend` for its cross-attention.

    Args:
        block: T5's ``T5Block``.
        hidden: (batch, target, width).
        bias: (1, heads, target, target), added to the self-attention's scores.
        states: (batch, source, width), what the encoder made.
        mask: (batch, 1, 1, source), added to the cross-attention's scores; None without padding.
        key_hook: What acts on the output of the cross-attention's k.
        value_hook: What acts on the output of its v.

    Returns:
        (batch, target, width).
    """
    hidden = block.layer[0](hidden, None, bias)[0]
    hidden = cross_attend(block.layer[1], hidden, states, mask, key_hook, value_hook)
    output: Tensor = block.layer[2](hidden)
    return output
