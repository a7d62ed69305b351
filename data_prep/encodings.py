"""How pictures become the rows of a store: by an image encoder, or by that of a vision-language backbone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal, Protocol

import torch
from PIL import Image

from data_prep.store_layouts import GridLayout, RecordLayout, StoreLayout, record_bytes
from dept_vl.data.image_rows import ProcessedImage, Record, TowerFeatures
from dept_vl.data.images import ImageSource, open_image
from dept_vl.data.number_types import pack, unpack
from dept_vl.errors import DataError
from dept_vl.models.vision.base import ImageEncoder
from dept_vl.models.vision.settings import ImageEncoderSettings

LOOKED_AT = 16
"""Pictures by which the size of all is told, where each has another."""


@dataclass(frozen=True)
class Encoding:
    """What encodes pictures.

    Attributes:
        label: What a store's folder is called after.
        fingerprint: What the features depend on.
        earlier_fingerprint: What it was in earlier versions.
        layout: What a shard holds of an image.
        preprocess: Turns a picture into what the encoder takes; loader processes must be able to receive it.
        exif: How pictures are opened.
        stack: Makes one thing of what was preprocessed, in the loader process.
        encode: Makes rows of that.
        join: Makes one of the rows of several batches, for `FeatureWriter.write`.
        words: How much an image is, for messages.
    """

    label: str
    fingerprint: dict[str, Any]
    earlier_fingerprint: dict[str, Any]
    layout: StoreLayout
    preprocess: Callable[[Image.Image], Any]
    exif: Literal["apply", "ignore"]
    stack: Callable[[list[Any]], Any]
    encode: Callable[[Any], Any]
    join: Callable[[list[Any]], Any]
    words: str


class RecordEncoder(Protocol):
    """A vision-language backbone as `cache_features` takes it (`models/language/backbone_encoder.py`)."""

    label: str
    fingerprint: dict[str, Any]
    exif: Literal["apply", "ignore"]

    @property
    def preprocess(self) -> Callable[[Image.Image], ProcessedImage]:
        """What turns a picture into what the encoder takes; loader processes must be able to receive it."""
        ...

    def __call__(self, images: Sequence[ProcessedImage]) -> Sequence[Record | TowerFeatures]:
        """Returns what is stored of some images, on the CPU."""
        ...

    def count_tokens(self, image: ProcessedImage) -> int:
        """Returns how many tokens are stored of an image."""
        ...


def grid_encoding(settings: ImageEncoderSettings, device: torch.device) -> Encoding:
    """Returns what encodes with an image encoder.

    Raises:
        ConfigError: The encoder cannot be loaded.
    """
    encoder: ImageEncoder = settings.load(device)
    dtype = settings.dtype
    layout = GridLayout(encoder.fingerprint)
    empty = torch.empty((0, encoder.num_visual_tokens, encoder.feature_dim), dtype=unpacked_type(dtype))

    def encode(pixels: torch.Tensor) -> torch.Tensor:
        return encoder(pixels.to(device, non_blocking=True)).to(empty.dtype).cpu()

    return Encoding(
        label=settings.label,
        fingerprint=encoder.fingerprint,
        earlier_fingerprint=encoder.earlier_fingerprint,
        layout=layout,
        preprocess=encoder.preprocess,
        exif=encoder.exif,
        stack=torch.stack,
        encode=encode,
        join=lambda parts: torch.cat([empty, *parts]),
        words=f"{encoder.num_visual_tokens} x {encoder.feature_dim} {dtype}",
    )


def unpacked_type(dtype: str) -> torch.dtype:
    """Returns the type in which stored numbers come back."""
    return unpack(*pack(torch.zeros(1, 1), dtype)).dtype


def record_encoding(encoder: RecordEncoder, pictures: Sequence[ImageSource]) -> Encoding:
    """Returns what encodes with a vision-language backbone; a few of the pictures say how much one takes."""
    found = encoder.fingerprint
    row_bytes, tokens = _look_at(encoder, pictures)
    return Encoding(
        label=encoder.label,
        fingerprint=found,
        earlier_fingerprint=found,
        layout=RecordLayout(found, row_bytes),
        preprocess=encoder.preprocess,
        exif=encoder.exif,
        stack=list,
        encode=encoder,
        join=_chained,
        words=f"about {tokens} x {found['levels']} x {found['feature_dim']} {found['dtype']} ({found['where']})",
    )


def _chained(parts: Iterable[Sequence[Any]]) -> list[Any]:
    return list(chain.from_iterable(parts))


def _look_at(encoder: RecordEncoder, pictures: Sequence[ImageSource]) -> tuple[int, int]:
    """Returns the mean bytes and tokens of pictures spread over all, those left out that cannot be read."""
    sizes, tokens = [1], [0]
    for picture in pictures[:: max(1, len(pictures) // LOOKED_AT)]:
        try:
            image = encoder.preprocess(open_image(picture, exif=encoder.exif))
        except DataError:  # whoever encodes it will say so
            continue
        tokens.append(encoder.count_tokens(image))
        sizes.append(record_bytes(tokens[-1], len(image.ids), encoder.fingerprint))
    count = max(1, len(sizes) - 1)
    return max(1, sum(sizes) // count), sum(tokens) // count
