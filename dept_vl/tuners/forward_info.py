"""What a method is told of one forward pass."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class ForwardInfo:
    """One forward pass, as every place where a method acts sees it.

    Attributes:
        text_mask: (batch, text), 1 for text and 0 for padding on the right. In beam search a decoder's hooks see
            ``beams`` rows for each of these (`for_rows`).
        num_virtual_tokens: Prompt tokens before the text.
        task_ids: (batch,) int64, each example's task as its place in `TunerContext.tasks`; None: all of the first.
        num_visual_tokens: Visual tokens after the text.
        records: What a method noted at one place for another, by keys of its own; empty at the start of every pass.
    """

    text_mask: Tensor
    num_virtual_tokens: int
    task_ids: Tensor | None = None
    num_visual_tokens: int = 0
    records: dict[Hashable, Any] = field(default_factory=dict, compare=False, repr=False)

    @cached_property
    def only_task(self) -> int | None:
        """The task of all rows; None where there are several, or where asking would make the CPU wait for a GPU."""
        if self.task_ids is None:
            return 0
        if self.task_ids.device.type != "cpu":
            return None
        first = int(self.task_ids[0])
        return first if bool((self.task_ids == first).all()) else None

    def for_rows(self, per_example: Tensor, num_rows: int) -> Tensor:
        """Returns what belongs to each example, (batch, ...), for the rows of a decoder, (num_rows, ...).

        In beam search the beams of one example stand one after the other.
        """
        repeats = num_rows // len(per_example)
        return per_example if repeats == 1 else per_example.repeat_interleave(repeats, dim=0)
