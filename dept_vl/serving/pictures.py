"""Images of requests: made ready where a request is read, encoded where its batch is answered, and kept in between."""

from __future__ import annotations

import hashlib
import threading
import uuid
from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from PIL import Image
from torch import Tensor

from dept_vl.data.collator import VisualTensors
from dept_vl.data.image_rows import ImageRows, ProcessedImage, Record
from dept_vl.data.images import open_image
from dept_vl.errors import DataError
from dept_vl.models.language.base import Backbone
from dept_vl.models.language.vision_language import VisionLanguageBackbone
from dept_vl.models.vision.base import ImageEncoder
from dept_vl.runs.backbone_images import BackboneImages
from dept_vl.runs.visual_input import VisualInput
from dept_vl.serving.image_cache import LeastRecentlyUsed

Features = Tensor | Record
"""What an image becomes: (visual, feature_dim) float32 of an encoder beside the model, or what a vision-language model
makes of it; on the model's device."""

Prepared = Tensor | ProcessedImage
"""What the image encoder reads of it: (3, height, width) float32, or what a processor gives; on the CPU."""


class ImageError(DataError):
    """What is wrong is an image."""


class PictureReader(ABC):
    """What an adapter's images become; adapters with the same image encoder have one.

    Attributes:
        exif: How images are opened.
    """

    exif: Literal["apply", "ignore"]

    def __init__(self) -> None:
        """Features that are kept are found by its name, which no other reader ever has."""
        self._name = uuid.uuid4().hex

    def read(self, content: bytes, cache: LeastRecentlyUsed[Features], *, max_pixels: int) -> Picture:
        """Returns an image of a request.

        Args:
            content: Of its file.
            cache: Features by `Picture.key`.
            max_pixels: Width x height that it may have.

        Raises:
            ImageError: It cannot be read.
        """
        key = f"{self._name} {hashlib.sha256(content).hexdigest()}"
        features = cache.get(key)
        if features is not None:
            return Picture(self, key, features)
        try:
            prepared = self.prepare(open_image(content, max_pixels=max_pixels, exif=self.exif))
        except DataError as error:
            raise ImageError(str(error)) from None
        return Picture(self, key, prepared=prepared)

    @property
    @abstractmethod
    def encoder(self) -> Hashable:
        """What encodes; readers that have it in common are one."""

    @abstractmethod
    def prepare(self, image: Image.Image) -> Prepared:
        """Returns what the encoder reads of an image.

        Raises:
            DataError: It cannot be read.
        """

    @abstractmethod
    def encode(self, prepared: Sequence[Any], device: torch.device) -> Sequence[Features]:
        """Returns the features of some images, none of them a view of a tensor that others are in too."""

    @abstractmethod
    def stacked(self, rows: Sequence[Sequence[Any]]) -> VisualTensors:
        """Returns the features of each row's images as `collate` takes them."""


@dataclass(frozen=True, eq=False)
class Picture:
    """An image of a request: its features where they are kept, else what the encoder is to read.

    Attributes:
        reader: Of its adapter.
        key: The reader and the sha256 of its file.
        features: See `Features`.
        prepared: See `Prepared`.
    """

    reader: PictureReader
    key: str
    features: Features | None = None
    prepared: Prepared | None = None

    @property
    def ids(self) -> Tensor:
        """The tokens that stand for it in the text of a vision-language model."""
        found = self.features if self.features is not None else self.prepared
        assert isinstance(found, ProcessedImage | Record)
        return found.ids


class EncoderPictures(PictureReader):
    """For an image encoder beside the language model."""

    def __init__(self, encoder: ImageEncoder) -> None:
        """Takes the encoder."""
        super().__init__()
        self._encoder = encoder
        self.exif = encoder.exif

    @property
    def encoder(self) -> Hashable:
        """The encoder."""
        return self._encoder

    def prepare(self, image: Image.Image) -> Tensor:
        """Returns its pixels."""
        pixels: Tensor = self._encoder.preprocess(image)
        return pixels

    def encode(self, prepared: Sequence[Tensor], device: torch.device) -> list[Tensor]:
        """Returns (visual, feature_dim) of every image."""
        return [features.clone() for features in self._encoder(torch.stack(list(prepared)).to(device))]

    def stacked(self, rows: Sequence[Sequence[Tensor]]) -> VisualTensors:
        """Returns rows of as many images each."""
        stacked = torch.stack([features for row in rows for features in row])
        return {"visual_features": stacked.unflatten(0, (len(rows), -1)) if len(stacked) > len(rows) else stacked}


class BackbonePictures(PictureReader):
    """For the image encoder of a vision-language model, whose images differ in how many tokens they become."""

    def __init__(self, images: BackboneImages, backbone: VisionLanguageBackbone) -> None:
        """Takes how images are processed, and what encodes them."""
        super().__init__()
        self._images = images
        self._backbone = backbone
        self._processing = threading.Lock()  # a processor has a tokenizer, which threads may not share
        self.exif = images.exif

    @property
    def encoder(self) -> Hashable:
        """The backbone."""
        return self._backbone

    def prepare(self, image: Image.Image) -> ProcessedImage:
        """Returns what the processor makes of it."""
        with self._processing:
            return self._images.process(image)

    def encode(self, prepared: Sequence[ProcessedImage], device: torch.device) -> list[Record]:
        """Returns the record of every image."""
        placed = [one.map(lambda tensor: tensor.to(device)) for one in prepared]
        records = self._backbone.records(ImageRows.one_each(placed))
        return [record.map(torch.clone) for (record,) in records]

    def stacked(self, rows: Sequence[Sequence[Record]]) -> VisualTensors:
        """Returns rows of any number of images."""
        return {"images": ImageRows(tuple(map(tuple, rows)))}


def picture_reader(visual: VisualInput, backbone: Backbone[Any], known: Sequence[PictureReader]) -> PictureReader:
    """Returns what reads an adapter's images.

    Args:
        visual: Of images of the user's own.
        backbone: Of the adapter's model.
        known: Readers of other adapters, one of which it is where the encoder is the same.
    """
    own: PictureReader
    if isinstance(visual, BackboneImages):
        assert isinstance(backbone, VisionLanguageBackbone)  # no other has a processor
        own = BackbonePictures(visual, backbone)
    else:
        assert visual.encoder is not None  # of images of the user's own
        own = EncoderPictures(visual.encoder)
    return next((one for one in known if one.encoder is own.encoder), own)
