"""Tokenised examples to one padded batch. The only place that pads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypedDict, cast

import torch
from torch import Tensor
from torch.nn.functional import pad

from dept_vl.data.image_rows import ImageRows
from dept_vl.errors import DataError

IGNORE_INDEX = -100
"""The label of positions that carry no loss."""


@dataclass(frozen=True)
class Example:
    """One tokenised row.

    Attributes:
        example_id: The manifest's ``example_id``.
        input_ids: Source tokens, end-of-sequence included.
        labels: Target tokens, end-of-sequence included; empty where there are to be none.
        loss_weight: Factor of this example's loss.
    """

    example_id: int
    input_ids: list[int]
    labels: list[int]
    loss_weight: float = 1.0


class VisualTensors(TypedDict, total=False):
    """The visual part of a batch: one of the three, or none for a text-only task."""

    visual_features: Tensor
    pixel_values: Tensor
    images: ImageRows


def by_rows(read: VisualTensors, num_rows: int) -> VisualTensors:
    """Returns visual input of one row an image as that of so many rows, of as many images each."""
    grouped: dict[str, Any] = {}
    for name, value in read.items():
        if isinstance(value, ImageRows):
            grouped[name] = value.grouped(num_rows)
        else:
            grouped[name] = cast(Tensor, value).unflatten(0, (num_rows, -1))
    return cast(VisualTensors, grouped)


@dataclass(frozen=True)
class Batch:
    """What a forward pass takes. Shapes: text and target lengths are those of the longest example.

    Attributes:
        example_ids: The rows' ids, in order.
        input_ids: (batch, text) int64.
        attention_mask: (batch, text) int64, 1 = attend, 0 = padding.
        labels: (batch, target) int64 with `IGNORE_INDEX` where padded; (batch, 0) where there are none.
        loss_weights: (batch,) float32.
        visual_features: (batch, visual, feature_dim) floating point, of several images a row (batch, images, visual,
            feature_dim); or None for a text-only task.
        pixel_values: (batch, 3, height, width) float32, or (batch, images, 3, height, width), when the image encoder
            runs on the fly; else None.
        images: Every row's, for a backbone with an image encoder of its own; else None.
        task_ids: (batch,) int64, each example's task by its place among the run's; None where it has one.
    """

    example_ids: tuple[int, ...]
    input_ids: Tensor
    attention_mask: Tensor
    labels: Tensor
    loss_weights: Tensor
    visual_features: Tensor | None = None
    pixel_values: Tensor | None = None
    task_ids: Tensor | None = None
    images: ImageRows | None = None

    def to(self, device: torch.device | str) -> Batch:
        """Returns the batch with every tensor on `device`."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Batch:
        """Returns the batch in page-locked memory, for an asynchronous copy; ``DataLoader`` calls this."""
        return self._map(Tensor.pin_memory)

    def _map(self, function: Callable[[Tensor], Tensor]) -> Batch:
        changed: dict[str, Any] = {
            name: function(value) for name, value in vars(self).items() if isinstance(value, Tensor)
        }
        if self.images is not None:
            changed["images"] = self.images.map(function)
        return replace(self, **changed)


def collate(
    examples: Sequence[Example],
    pad_token_id: int,
    *,
    pad_to_length: int | None = None,
    visual_features: Tensor | None = None,
    pixel_values: Tensor | None = None,
    images: ImageRows | None = None,
) -> Batch:
    """Pads text and targets on the right.

    Args:
        examples: At least one.
        pad_token_id: Fills ``input_ids``.
        pad_to_length: Text length to pad to (tokens); None for the longest of the batch.
        visual_features: As `Batch` has them, handed through.
        pixel_values: As `Batch` has them, handed through.
        images: As `Batch` has them, handed through.

    Raises:
        ValueError: An example is longer than `pad_to_length`.
    """
    longest = max(len(example.input_ids) for example in examples)
    if pad_to_length is not None and longest > pad_to_length:
        raise ValueError(f"an example has {longest} tokens, more than pad_to_length={pad_to_length}")
    input_ids = _pad([example.input_ids for example in examples], pad_token_id, pad_to_length or longest)
    lengths = torch.tensor([len(example.input_ids) for example in examples])
    attention_mask = (torch.arange(input_ids.shape[1]) < lengths[:, None]).long()
    longest_target = max(len(example.labels) for example in examples)
    return Batch(
        example_ids=tuple(example.example_id for example in examples),
        input_ids=input_ids,
        attention_mask=attention_mask,
        labels=_pad([example.labels for example in examples], IGNORE_INDEX, longest_target),
        loss_weights=torch.tensor([example.loss_weight for example in examples], dtype=torch.float32),
        visual_features=visual_features,
        pixel_values=pixel_values,
        images=images,
    )


def join_batches(batches: Sequence[Batch], pad_token_id: int) -> Batch:
    """Returns several batches as one, in their order, each padded to the longest of all.

    Args:
        batches: At least one; with visual input all or none, and of one shape, where it is no `Batch.images`.
        pad_token_id: Fills ``input_ids``.

    Raises:
        DataError: Their images have different numbers of visual tokens.
    """
    if len(batches) == 1:
        return batches[0]
    shapes = {tuple(one.visual_features.shape[1:]) for one in batches if one.visual_features is not None}
    if len(shapes) > 1:
        raise DataError(
            f"rows of one batch have visual tokens of different shapes ({', '.join(map(str, sorted(shapes)))}): tasks "
            "with another number of images a row cannot share a step; set mix.batches=one-task"
        )

    def joined(name: str, fill: int | None = None) -> Tensor | None:
        tensors = [tensor for one in batches if (tensor := getattr(one, name)) is not None]
        if fill is not None:
            longest = max(tensor.shape[1] for tensor in tensors)
            tensors = [pad(tensor, (0, longest - tensor.shape[1]), value=fill) for tensor in tensors]
        return torch.cat(tensors) if tensors else None

    fills = {"input_ids": pad_token_id, "attention_mask": 0, "labels": IGNORE_INDEX}
    names = ("loss_weights", "visual_features", "pixel_values", "task_ids")
    tensors: dict[str, Any] = {
        **{name: joined(name, fill) for name, fill in fills.items()},
        **{name: joined(name) for name in names},
    }
    if any(one.images is not None for one in batches):
        none = ImageRows(())
        rows = [(one.images or none).rows or ((),) * len(one.example_ids) for one in batches]
        tensors["images"] = ImageRows(tuple(row for part in rows for row in part))
    return Batch(example_ids=tuple(number for one in batches for number in one.example_ids), **tensors)


def _pad(rows: Sequence[Sequence[int]], value: int, length: int) -> Tensor:
    """Returns (len(rows), length) int64, each row followed by `value`."""
    padded = torch.full((len(rows), length), value, dtype=torch.long)
    for index, row in enumerate(rows):
        padded[index, : len(row)] = torch.tensor(row, dtype=torch.long)
    return padded
