"""Small copies of images that fit into a page, each there once however many rows show it."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from dept_vl.data.image_files import image_below
from dept_vl.data.images import open_image
from dept_vl.errors import DataError

_SIZES = ((256, 75), (192, 70), (160, 65), (128, 60), (96, 50), (80, 40), (64, 30), (48, 20))
"""Longest side in pixels, and quality of WebP (0 to 100): the first that fits is taken."""

_MARKUP_BYTES = 90
"""Around each image in the style sheet."""


@dataclass(frozen=True)
class Pictures:
    """Images of some rows.

    Attributes:
        small: Path as the rows name it -> copy of at most the largest of `_SIZES`.
        sizes: Path -> width and height of the original, as viewers show it, in pixels.
        missing: Path -> why there is no copy.
    """

    small: dict[str, Image.Image]
    sizes: dict[str, tuple[int, int]]
    missing: dict[str, str]


def open_pictures(places: Mapping[str, Path | None]) -> Pictures:
    """Opens every image.

    Args:
        places: Path, as answers name it -> the folder that it starts from; None where nothing says it.
    """
    found = Pictures({}, {}, {})
    for path, root in places.items():
        try:
            image = open_image(image_below(root, path))
        except DataError as error:
            found.missing[path] = str(error)
            continue
        found.sizes[path] = image.size
        image.thumbnail((_SIZES[0][0],) * 2)
        found.small[path] = image
    return found


def encode_pictures(images: dict[str, Image.Image], budget_bytes: int) -> dict[str, str] | None:
    """Returns data URIs, as large as fit together; None where not even the smallest do."""
    for side, quality in _SIZES:
        uris, left = {}, budget_bytes
        for path, image in images.items():
            uris[path] = _uri(image, side, quality)
            left -= len(uris[path]) + _MARKUP_BYTES
            if left < 0:
                break
        if left >= 0:
            return uris
    return None


def _uri(image: Image.Image, side: int, quality: int) -> str:
    small, content = image.copy(), io.BytesIO()
    small.thumbnail((side, side))
    small.save(content, "WEBP", quality=quality)
    return f"data:image/webp;base64,{base64.b64encode(content.getvalue()).decode()}"


def images_of(asked: Any) -> list[str]:
    """Returns the images of a row, as its line of answers names them; none for a text."""
    image = asked.get("image")
    return [str(path) for path in image] if isinstance(image, list) else [] if image is None else [str(image)]
