"""The images of a batch for a backbone that has an image encoder of its own: as its processor or its encoder left them.

Images differ in how many tokens they become, and rows in how many images they have, so nothing here is stacked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import torch
from torch import Tensor


class _Tensors:
    """A dataclass of tensors and mappings of tensors."""

    def map(self, function: Callable[[Tensor], Tensor]) -> Self:
        """Returns it with every tensor changed."""
        changed: dict[str, Any] = {}
        for field in fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if isinstance(value, Tensor):
                changed[field.name] = function(value)
            elif isinstance(value, Mapping):
                changed[field.name] = {key: function(tensor) for key, tensor in value.items()}
        return replace(self, **changed)  # type: ignore[type-var]


@dataclass(frozen=True)
class ProcessedImage(_Tensors):
    """One image as the backbone's processor gives it.

    Attributes:
        ids: (places,) int64, the tokens that stand for it in the text: its placeholders and what belongs around them.
        tensors: What the backbone's image encoder reads, by the processor's names, such as ``pixel_values``.
        is_unseen: Whether its record is to be all zeros.
    """

    ids: Tensor
    tensors: Mapping[str, Tensor]
    is_unseen: bool = False


@dataclass(frozen=True)
class TowerFeatures(_Tensors):
    """One image as the backbone's image encoder gives it, for the connector to read.

    Attributes:
        ids: As `ProcessedImage.ids`.
        features: (tiles, tokens, width), what goes into the connector.
        is_unseen: As `ProcessedImage.is_unseen`.
    """

    ids: Tensor
    features: Tensor
    is_unseen: bool = False


@dataclass(frozen=True)
class Record(_Tensors):
    """One image as the backbone's image encoder and connector give it: all that its language model needs of it.

    Attributes:
        ids: As `ProcessedImage.ids`.
        tokens: (placeholders, d_model).
        deepstack: (blocks, placeholders, d_model), what is added behind the first blocks (Qwen3-VL); None for none.
        grid: (3,) int64, frames, rows and columns of patches, from which multidimensional positions are counted; None
            for a family whose positions are plain.
    """

    ids: Tensor
    tokens: Tensor
    deepstack: Tensor | None = None
    grid: Tensor | None = None

    def zeroed(self) -> Record:
        """Returns a record of as many tokens, all zero."""
        deepstack = None if self.deepstack is None else torch.zeros_like(self.deepstack)
        return replace(self, tokens=torch.zeros_like(self.tokens), deepstack=deepstack)


RowImage = ProcessedImage | TowerFeatures | Record
"""An image of a row, as far as it was computed before."""


@dataclass(frozen=True)
class ImageRows:
    """The images of every row of a batch, in the order that the model reads them; a row may have none.

    Attributes:
        rows: One entry a row.
    """

    rows: tuple[tuple[RowImage, ...], ...]

    @classmethod
    def one_each(cls, images: Sequence[RowImage]) -> ImageRows:
        """Returns rows of one image each."""
        return cls(tuple((image,) for image in images))

    def grouped(self, num_rows: int) -> ImageRows:
        """Returns the same images in so many rows of as many images each."""
        images = list(self)
        size = len(images) // num_rows
        return ImageRows(tuple(tuple(images[start : start + size]) for start in range(0, len(images), size)))

    def map(self, function: Callable[[Tensor], Tensor]) -> ImageRows:
        """Returns the rows with every tensor changed; an image that several rows have is one image still."""
        changed = {id(image): image.map(function) for image in self}
        return ImageRows(tuple(tuple(changed[id(image)] for image in row) for row in self.rows))

    def __iter__(self) -> Iterator[RowImage]:
        """Yields every image, row by row."""
        return (image for row in self.rows for image in row)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, rows: slice) -> ImageRows:
        return ImageRows(self.rows[rows])

    def unseen(self) -> ImageRows:
        """Returns the images as a model that sees nothing in them reads them: as many tokens, all zero."""
        changed = {
            id(image): image.zeroed() if isinstance(image, Record) else replace(image, is_unseen=True) for image in self
        }
        return ImageRows(tuple(tuple(changed[id(image)] for image in row) for row in self.rows))


VisualFeatures = Tensor | ImageRows
"""What a model reads of a batch's images: features of an image encoder beside it, (batch, visual, feature_dim), of
several images a row (batch, images, visual, feature_dim); or the images of every row, for an encoder of its own."""
