"""Opening images that came from somewhere else: a clear error instead of a crash, a bomb or half a picture."""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from dept_vl.errors import DataError

ImageSource = Path | bytes | Image.Image | np.ndarray
"""What an image can be given as: a file, a file's content, a PIL image, or pixels, (height, width, 3) uint8 RGB."""

FORMATS = ("JPEG", "PNG", "WEBP")
"""The decoders that may be used. Pillow knows dozens more, each of them a risk with files from strangers."""

MAX_PIXELS = 50_000_000
"""Default cap on width x height. COCO's largest image has 0.4 million pixels; this is a decoded 150 MB."""

MAX_RATIO = 1000
"""Cap on one side over the other: preprocessing that scales the short side makes gigabytes of a line of pixels."""

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation -> what brings the stored picture upright (EXIF 2.32, tag 0x0112)."""


def open_image(
    source: ImageSource, *, max_pixels: int = MAX_PIXELS, exif: Literal["apply", "ignore"] = "apply"
) -> Image.Image:
    """Decodes an image completely and returns it in RGB.

    Args:
        source: A JPEG, PNG or WEBP file or its content; a PIL image, which is left as it is but for being loaded; or
            pixels.
        max_pixels: Largest width x height accepted, checked before any pixel is decoded.
        exif: Whether the picture is turned as its EXIF orientation says, so that it is as every viewer shows it, or
            stays as it is stored, which is how CLIP's own tools read it.

    Raises:
        DataError: The file is missing, is not an image of these formats, is cut short or damaged, or is too large; a
            PIL image was closed, or its values are no colours; pixels are of another shape or type.
    """
    name = describe_image(source)
    with _opened(source, name) as image:
        width, height = image.size
        if width * height > max_pixels:
            raise DataError(
                f"{name}: image of {width} x {height} = {width * height:,} pixels; at most {max_pixels:,} "
                "are accepted; scale it down"
            )
        if max(width, height, 1) > MAX_RATIO * min(width, height):
            raise DataError(
                f"{name}: image of {width} x {height} pixels; one side is more than {MAX_RATIO:,} times the other, "
                "so it is a line and no picture; crop it"
            )
        image.load()
        if image.mode == "F":
            raise DataError(
                f"{name}: mode 'F' holds numbers of no fixed range and so no colours; scale them to 0 to 255 and "
                "convert the image to 'L' or 'RGB'"
            )
        turn = _TURNS.get(_orientation(image)) if exif == "apply" else None
        colours = _to_rgb(image)
        return colours if turn is None else colours.transpose(turn)


def describe_image(source: ImageSource) -> str:
    """Returns what an image is called in messages."""
    if isinstance(source, bytes):
        return f"image of {len(source):,} bytes"
    if isinstance(source, Image.Image):
        return str(getattr(source, "filename", "") or f"PIL image of mode {source.mode!r}")
    return "array" if isinstance(source, np.ndarray) else str(source)


def is_turned(path: Path) -> bool:
    """Returns whether an image's EXIF orientation says that it is stored otherwise than it is to be shown.

    Raises:
        DataError: The file is missing, or not an image.
    """
    with _opened(path, str(path)) as image:
        return _orientation(image) in _TURNS


@contextmanager
def _opened(source: ImageSource, name: str) -> Iterator[Image.Image]:
    """Opens an image; what Pillow raises, here and while the block decodes it, names it.

    Its warnings are of no use to who only wants the picture (metadata that are damaged, palettes with transparency),
    but for that of a decompression bomb, which is refused.
    """
    if isinstance(source, Path) and not os.path.isfile(source):
        raise DataError(f"{name}: no such image file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            if isinstance(source, Image.Image):
                yield source
            elif isinstance(source, np.ndarray):
                yield _from_pixels(source)
            else:
                file: Any = io.BytesIO(source) if isinstance(source, bytes) else source
                with Image.open(file, formats=FORMATS) as image:
                    yield image
    except DataError:
        raise
    except UnidentifiedImageError as error:
        raise DataError(
            f"{name}: not an image; expected one of {', '.join(FORMATS)}; convert others, such as GIF or HEIC"
        ) from error
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise DataError(f"{name}: image too large: {error}") from error
    except Exception as error:  # decoders raise nearly every kind on damaged files: KeyError, struct.error, ...
        if isinstance(source, Image.Image):
            raise DataError(
                f"{name}: cannot be decoded ({error}); give an image that is whole and not closed"
            ) from error
        raise DataError(f"{name}: damaged or truncated image ({error}); fetch it again") from error


def _from_pixels(pixels: np.ndarray) -> Image.Image:
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
        raise DataError(
            f"array: expected pixels of uint8, (height, width, 3) in RGB, got {pixels.dtype} {pixels.shape}; "
            "give a PIL image for anything else"
        )
    return Image.fromarray(pixels)


def _orientation(image: Image.Image) -> int:
    """Returns the EXIF orientation, 1 to 8; 1, upright, where none can be read."""
    try:
        value = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # damaged metadata: the picture itself may be whole
        return 1
    return value if isinstance(value, int) and value in range(1, 9) else 1


def _to_rgb(image: Image.Image) -> Image.Image:
    """Returns a decoded image in RGB: transparency is dropped, and the colours below it stay.

    Of a 16-bit greyscale image it keeps the high byte of each value; Pillow's own conversion clips at 255.
    """
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64).clip(0, 65535) >> 8
        image = Image.fromarray(values.astype(np.uint8))
    return image.convert("RGB")
