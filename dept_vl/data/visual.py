"""Where a batch's visual input comes from: a feature store, the images themselves, or zeros."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from PIL import Image
from tqdm import tqdm

from dept_vl.data.collator import VisualTensors
from dept_vl.data.features import FeatureStore
from dept_vl.data.image_rows import ImageRows, ProcessedImage
from dept_vl.data.images import open_image
from dept_vl.data.record_store import RecordStore
from dept_vl.errors import DataError


class VisualSource(Protocol):
    """Reads the visual input of some images.

    Attributes:
        skipped: Ids of images that could not be read, when features were cached or beforehand; never asked for.
    """

    @property
    def skipped(self) -> Collection[int]:
        """See the class."""
        ...

    def missing(self, image_ids: Collection[int]) -> list[int]:
        """Returns the ids, in order, this source has no features for and no reason why."""
        ...

    def read(self, image_ids: Sequence[int], images: Sequence[str]) -> VisualTensors:
        """Returns ``visual_features``, ``pixel_values`` or ``images`` of `collate`, one row an image."""
        ...


class CachedFeatures:
    """Features from a store, widened to float32 so that every source gives the model the same dtype."""

    def __init__(self, store: FeatureStore) -> None:
        """Takes an open store."""
        self.store = store
        self.skipped: Collection[int] = store.skipped

    def missing(self, image_ids: Collection[int]) -> list[int]:
        """See `VisualSource.missing`."""
        return sorted(i for i in image_ids if i not in self.store and i not in self.skipped)

    def read(self, image_ids: Sequence[int], images: Sequence[str]) -> VisualTensors:
        """Returns ``visual_features`` (batch, visual, feature_dim) float32."""
        return {"visual_features": self.store.read(image_ids).float()}


class CachedRecords:
    """Records of a vision-language backbone from a store."""

    def __init__(self, store: RecordStore) -> None:
        """Takes an open store."""
        self.store = store
        self.skipped: Collection[int] = store.skipped

    def missing(self, image_ids: Collection[int]) -> list[int]:
        """See `VisualSource.missing`."""
        return sorted(i for i in image_ids if i not in self.store and i not in self.skipped)

    def read(self, image_ids: Sequence[int], images: Sequence[str]) -> VisualTensors:
        """Returns ``images``, one row an image; one that is named twice is one object."""
        return {"images": ImageRows.one_each(self.store.read(image_ids))}


class ZeroFeatures:
    """All zeros in a store's shape: what a model scores that sees nothing but the text."""

    def __init__(self, num_visual_tokens: int, feature_dim: int, skipped: Collection[int] = ()) -> None:
        """Takes the shape of one image's features."""
        self._shape = (num_visual_tokens, feature_dim)
        self.skipped = skipped

    def missing(self, image_ids: Collection[int]) -> list[int]:
        """Nothing is ever missing."""
        return []

    def read(self, image_ids: Sequence[int], images: Sequence[str]) -> VisualTensors:
        """Returns ``visual_features`` (batch, visual, feature_dim) float32, all zero."""
        return {"visual_features": torch.zeros(len(image_ids), *self._shape)}


def find_unreadable(images: Mapping[int, Path]) -> dict[int, str]:
    """Decodes every image and returns why, by the id of each that cannot be read."""
    unreadable = {}
    for image_id, path in tqdm(images.items(), desc="look at images", unit=" images", disable=len(images) < 1000):
        try:
            open_image(path)
        except DataError as error:
            unreadable[image_id] = str(error)
    return unreadable


class ImagePixels:
    """Decoded and preprocessed images, for the image encoder on the device."""

    def __init__(
        self,
        image_root: Path,
        preprocess: Callable[[Image.Image], Any],
        *,
        exif: Literal["apply", "ignore"] = "apply",
        skipped: Collection[int] = (),
    ) -> None:
        """Says where images lie and how they become pixels.

        Args:
            image_root: The folder image paths start from.
            preprocess: Turns an image into pixels.
            exif: How images are opened (`open_image`).
            skipped: Ids of images that cannot be read (`find_unreadable`).
        """
        self._image_root = image_root
        self._preprocess = preprocess
        self._exif: Literal["apply", "ignore"] = exif
        self.skipped: Collection[int] = frozenset(skipped)

    def missing(self, image_ids: Collection[int]) -> list[int]:
        """Nothing more is known before the files are opened; opening one that fails raises ``DataError``."""
        return []

    def read(self, image_ids: Sequence[int], images: Sequence[str]) -> VisualTensors:
        """Returns ``pixel_values`` (batch, 3, height, width) float32.

        Raises:
            DataError: An image is missing, damaged or too large, or its path leaves the image root.
        """
        pixels = [self._preprocess(open_image(self._place(image), exif=self._exif)) for image in images]
        return {"pixel_values": torch.stack(pixels)}

    def _place(self, image: str) -> Path:
        """Returns an image's file. Rows may come from an altered Arrow copy, which the manifest's check did not see."""
        if Path(image).is_absolute() or ".." in Path(image).parts:
            raise DataError(f"{image}: leads out of the image root {self._image_root}; prepare the task again")
        return self._image_root / image


class ProcessedImages(ImagePixels):
    """Decoded images as the processor of a vision-language backbone gives them."""

    def read(self, image_ids: Sequence[int], images: Sequence[str]) -> VisualTensors:
        """Returns ``images``, one row an image; one that is named twice is one object, and so encoded once.

        Raises:
            DataError: As `ImagePixels.read`, or the processor refuses an image.
        """
        processed = {image: self._process(image) for image in dict.fromkeys(images)}
        return {"images": ImageRows.one_each([processed[image] for image in images])}

    def _process(self, image: str) -> ProcessedImage:
        opened = open_image(self._place(image), exif=self._exif)
        try:
            processed: ProcessedImage = self._preprocess(opened)
        except DataError as error:
            raise DataError(f"{image}: {error}") from error
        return processed
