"""Opening images that came from somewhere else: a clear error instead of a crash, a bomb or half a picture."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from dept_vl.errors import DataError

FORMATS = ("JPEG", "PNG", "WEBP")
"""The decoders that may be used. Pillow knows dozens more, each of them a risk with files from strangers."""

MAX_PIXELS = 50_000_000
"""Default cap on width x height. COCO's largest image has 0.4 million pixels; this is a decoded 150 MB."""


def open_image(path: Path, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decodes an image completely and returns it in RGB, in its stored orientation (as CLIP's own tools read it).

    Args:
        path: A JPEG, PNG or WEBP file.
        max_pixels: Largest width x height accepted, checked before any pixel is decoded.

    Raises:
        DataError: The file is missing, is not an image of these formats, is cut short or damaged, or is too large.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such image file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=FORMATS) as image:
                width, height = image.size
                if width * height > max_pixels:
                    raise DataError(
                        f"{path}: image of {width} x {height} = {width * height:,} pixels; at most {max_pixels:,} "
                        "are accepted; scale it down"
                    )
                image.load()
                return _to_8_bits(image).convert("RGB")
    except UnidentifiedImageError as error:
        raise DataError(f"{path}: not an image; expected one of {', '.join(FORMATS)}") from error
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: image too large: {error}") from error
    except (OSError, SyntaxError, ValueError, EOFError, IndexError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}: damaged or truncated image ({error}); fetch it again") from error


def _to_8_bits(image: Image.Image) -> Image.Image:
    """Returns a 16-bit greyscale image with the high byte of each value; Pillow's own conversion clips at 255."""
    if not image.mode.startswith("I"):
        return image
    return Image.fromarray((np.asarray(image).astype(np.int64).clip(0, 65535) >> 8).astype(np.uint8))
