"""What a vision-language model reads in the place of its ids' embeddings, and the hook that puts it there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Literal

import torch
from torch import Tensor, nn

from dept_vl.data.image_rows import Record
from dept_vl.data.text_codec import Frame
from dept_vl.models.language.segments import CausalInput

ORDINARY = 0
"""The token whose place the prompt takes; its embedding is never read."""


class Kind(IntEnum):
    """What stands at a place of the input."""

    PAD = 0
    TEMPLATE = 1
    PROMPT = 2
    IMAGE = 3
    TEXT = 4
    TARGET = 5


@dataclass(frozen=True, kw_only=True)
class VisionLanguageInput(CausalInput):
    """What a vision-language model reads before the target.

    Attributes:
        position_ids: (batch, total), or (3, batch, total) where the family counts time, rows and columns.
        input_ids: (batch, total); what is read at the places of prompt, text and images is `inputs_embeds`.
        kinds: (batch, total) `Kind` of each place.
        records: The images of each row.
        divided: The same with what rows have in common before them; None where each reads all of its own.
    """

    input_ids: Tensor
    kinds: Tensor
    records: tuple[tuple[Record, ...], ...]
    divided: VisionLanguageInput | None = None


def places_of_row(
    text_ids: Tensor, records: Sequence[Record], frame: Frame, num_virtual_tokens: int, image_token_id: int
) -> tuple[Tensor, Tensor]:
    """Returns the ids of one row's places, and their kinds.

    Args:
        text_ids: (text,), without padding.
        records: The row's images.
        frame: The tokens of the template.
        num_virtual_tokens: Of the prompt.
        image_token_id: The token that stands for one image token; others of an image's are template.
    """
    pieces: list[tuple[Tensor, int]] = [
        (text_ids.new_tensor(frame.head if records else frame.text_head), Kind.TEMPLATE),
        (text_ids.new_full((num_virtual_tokens,), ORDINARY), Kind.PROMPT),
        *((record.ids.to(text_ids.device), Kind.IMAGE) for record in records),
        (text_ids.new_tensor(frame.between if records else ()), Kind.TEMPLATE),
        (text_ids, Kind.TEXT),
        (text_ids.new_tensor(frame.tail), Kind.TEMPLATE),
    ]
    ids = torch.cat([ids.long() for ids, _ in pieces])
    kinds = torch.cat([torch.full_like(ids, kind, dtype=torch.long) for ids, kind in pieces])
    is_marker = (kinds == Kind.IMAGE) & (ids != image_token_id)  # what stands around an image's tokens
    return ids, kinds.masked_fill(is_marker, Kind.TEMPLATE)


def token_types(kinds: Tensor, marked: Literal["image", "target"] | None) -> dict[str, Tensor]:
    """Returns what a family's masks are made from beside the attention mask; see `VisionLanguageFamily.token_types`."""
    if marked is None:
        return {}
    return {"token_type_ids": (kinds == (Kind.IMAGE if marked == "image" else Kind.TARGET)).long()}


@contextmanager
def reading(model: Any, text_model: nn.Module, joint: VisionLanguageInput) -> Iterator[None]:
    """Lets the model read a joint input in the place of its ids' embeddings, in the first pass of the block.

    Passes after it are of generated tokens. In beam search the first one has ``beams`` rows for each example. The
    output matrix is given a tensor of its own: of a slice, torch multiplies a copy of the matrix for each row.

    Args:
        model: Of transformers.
        text_model: The stack of blocks in it.
        joint: The source.
    """
    passes: list[int] = []
    total = joint.input_ids.shape[1]

    def put(_module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
        passes.append(len(output))
        if len(passes) > 1:
            return None
        embeds = joint.inputs_embeds.repeat_interleave(len(output) // len(joint.kinds), dim=0)
        return torch.cat([embeds.to(output.dtype), output[:, total:]], dim=1)

    def add(_module: nn.Module, inputs: tuple[Any, ...], arguments: dict[str, Any]) -> tuple[Any, Any] | None:
        if len(passes) > 1:
            return None
        length = arguments["inputs_embeds"].shape[1]
        return inputs, {**arguments, **_deepstack(joint, passes[0] // len(joint.kinds), length)}

    def own(_module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return inputs[0].contiguous(), *inputs[1:]

    handles = [model.get_input_embeddings().register_forward_hook(put)]
    handles.append(model.lm_head.register_forward_pre_hook(own))
    if any(record.deepstack is not None for row in joint.records for record in row):
        handles.append(text_model.register_forward_pre_hook(add, with_kwargs=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _deepstack(joint: VisionLanguageInput, repeats: int, length: int) -> dict[str, Any]:
    """Returns what Qwen3-VL's language model adds behind its first blocks, at which places.

    Args:
        joint: With records that have it.
        repeats: Rows that the model reads of each example.
        length: Of what it reads.
    """
    is_image = nn.functional.pad(joint.kinds == Kind.IMAGE, (0, length - joint.kinds.shape[1]))
    rows = [
        torch.cat([record.deepstack for record in row if record.deepstack is not None], dim=1)
        for row in joint.records
        if row
        for _ in range(repeats)
    ]
    return {
        "visual_pos_masks": is_image.repeat_interleave(repeats, dim=0),
        "deepstack_visual_embeds": list(torch.cat(rows, dim=1).to(is_image.device, joint.inputs_embeds.dtype)),
    }
