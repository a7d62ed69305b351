"""Cuts the sources of a vision-language batch where they part: [template; prompt] -> [images] -> [text; template].

The first is of the whole batch, the second of all rows that have the same images, in whatever order they stand.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dept_vl.data.image_rows import Record
from dept_vl.data.text_codec import Frame
from dept_vl.models.language.segments import Deepstack, Segment, causal_bias
from dept_vl.models.language.shared_prompt import KeptPromptKeys
from dept_vl.models.language.source_hook import Kind, VisionLanguageInput


@dataclass(frozen=True)
class RowLengths:
    """How many tokens of a row are what.

    Attributes:
        first: Template and prompt before everything.
        images: Images, and the template behind them.
        own: Text, and the template behind that.
    """

    first: int
    images: int
    own: int

    @classmethod
    def of(cls, total: int, records: Sequence[Record], frame: Frame, num_virtual_tokens: int) -> RowLengths:
        """Returns those of a row of `total` tokens with these images, in this template."""
        first = len(frame.head if records else frame.text_head) + num_virtual_tokens
        images = sum(len(record.ids) for record in records) + (len(frame.between) if records else 0)
        return cls(first, images, total - first - images)


def divide(
    whole: VisionLanguageInput,
    lengths: Sequence[RowLengths],
    score_dtype: torch.dtype,
    *,
    images_see_themselves: bool,
    kept: KeptPromptKeys | None,
) -> VisionLanguageInput:
    """Returns the rows' own tokens, with what stands before them.

    Args:
        whole: Every row as a whole, padding first.
        lengths: Of its rows; all have the same `RowLengths.first`, and at least one token of their own.
        score_dtype: `Backbone.score_dtype`.
        images_see_themselves: Whether the tokens of an image see those of it that come after them.
        kept: Where the keys and values of the first segment are kept.
    """
    first, total = lengths[0].first, whole.kinds.shape[1]
    start = total - first - lengths[0].images - lengths[0].own
    prompt = whole.inputs_embeds[:1, start : start + first]
    positions = whole.position_ids[..., :1, start : start + first]
    before = [Segment(prompt, positions, causal_bias(first, prompt, score_dtype))]
    parents = None
    if any(one.images for one in lengths):
        leaders, parents = _group(whole.records, whole.kinds.device)
        before.append(_images(whole, lengths, leaders, score_dtype, images_see_themselves))
        if len(leaders) in (1, len(lengths)):  # the only one, or each its own
            parents = None
    size = max(one.own for one in lengths)
    own = torch.tensor([one.own for one in lengths], device=whole.kinds.device)
    is_token = torch.arange(size, device=own.device) >= size - own[:, None]
    return replace(
        whole, inputs_embeds=whole.inputs_embeds[:, -size:], attention_mask=is_token.long(),
        has_padding=any(one.own < size for one in lengths), position_ids=whole.position_ids[..., -size:],
        input_ids=whole.input_ids[:, -size:].where(is_token, 0), kinds=whole.kinds[:, -size:].where(is_token, Kind.PAD),
        records=((),) * len(lengths), before=tuple(before), parents=parents, kept=kept,
    )  # fmt: skip


def _group(records: Sequence[Sequence[Record]], device: torch.device) -> tuple[list[int], Tensor]:
    """Returns the first row of every list of images, and which of those lists each row has."""
    numbers: dict[tuple[int, ...], int] = {}
    leaders: list[int] = []
    parents: list[int] = []
    for row, images in enumerate(records):
        key = tuple(id(image) for image in images)
        if key not in numbers:
            numbers[key] = len(leaders)
            leaders.append(row)
        parents.append(numbers[key])
    return leaders, torch.tensor(parents, device=device)


def _images(
    whole: VisionLanguageInput,
    lengths: Sequence[RowLengths],
    leaders: Sequence[int],
    score_dtype: torch.dtype,
    see_themselves: bool,
) -> Segment:
    """Returns the images of some rows, and the template behind them, padding first."""
    device, sizes = whole.kinds.device, [lengths[row].images for row in leaders]
    size, rows = max(sizes), torch.tensor(list(leaders), device=device)[:, None]
    stops = whole.kinds.shape[1] - torch.tensor([lengths[row].own for row in leaders], device=device)[:, None]
    places = (stops - size + torch.arange(size, device=device)).clamp(min=0)  # (lists, size)
    has_padding = min(sizes) < size
    is_token = torch.arange(size, device=device) >= size - torch.tensor(sizes, device=device)[:, None]
    is_image = (whole.kinds[rows, places] == Kind.IMAGE) & is_token
    bias = causal_bias(size, whole.inputs_embeds, score_dtype)
    if see_themselves:
        number = (is_image & ~is_image.roll(1, dims=1)).cumsum(dim=1)  # a token of no image stands before the next
        is_same = is_image[:, :, None] & is_image[:, None] & (number[:, :, None] == number[:, None])
        bias = bias.masked_fill(is_same[:, None], 0)
    if has_padding:
        bias = bias.masked_fill(~is_token[:, None, None], torch.finfo(score_dtype).min)
    added = [one.deepstack for row in leaders for one in whole.records[row] if one.deepstack is not None]
    return Segment(
        whole.inputs_embeds[rows, places], whole.position_ids[..., rows, places], bias,
        is_token if has_padding else None,
        deepstack=Deepstack(is_image, torch.cat(added, dim=1).to(device, whole.inputs_embeds.dtype)) if added else None,
    )  # fmt: skip
