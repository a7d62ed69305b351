"""Draws images with question and predictions on one sheet."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps

from dept_vl.data.images import open_image
from dept_vl.inference.predict import Prediction
from dept_vl.system.atomic import write_bytes

_CELL = 224
_MARGIN = 12
_LINE = 16
_WRAP = 34
_COLUMNS = 4
_MAX_LINES = 6


def write_sheet(path: Path, predictions: Sequence[Prediction]) -> None:
    """Writes a PNG of at most four columns: each image, its question, and the predictions under it.

    Args:
        path: The PNG file.
        predictions: What to draw, in order.
    """
    columns = min(_COLUMNS, len(predictions))
    rows = math.ceil(len(predictions) / columns)
    width, height = _CELL + _MARGIN, _CELL + _MAX_LINES * _LINE + _MARGIN
    sheet = Image.new("RGB", (columns * width + _MARGIN, rows * height + _MARGIN), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(12)
    for index, prediction in enumerate(predictions):
        left, top = _MARGIN + index % columns * width, _MARGIN + index // columns * height
        assert prediction.image is not None  # the command line refuses a sheet of a task without images
        picture = ImageOps.contain(open_image(prediction.image), (_CELL, _CELL))
        sheet.paste(picture, (left, top))
        for line, text in enumerate(_caption(prediction)):
            draw.text((left, top + _CELL + 2 + line * _LINE), text, fill="black", font=font)
    content = BytesIO()
    sheet.save(content, "PNG")
    write_bytes(path, content.getvalue())


def _caption(prediction: Prediction) -> list[str]:
    """Returns the lines under one image."""
    lines = [line for text in prediction.columns.values() for line in textwrap.wrap(text, _WRAP)]
    for name, text in prediction.answers.items():
        lines += textwrap.wrap(f"{name}: {text}", _WRAP)
    return lines[:_MAX_LINES]
