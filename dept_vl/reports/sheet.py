"""Draws images with question, predictions and what people answered on one sheet."""

from __future__ import annotations

import logging
import math
import textwrap
from collections import Counter
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from dept_vl.data.images import open_image
from dept_vl.inference.predict import Prediction
from dept_vl.reports.scored_answers import is_right
from dept_vl.system.atomic import write_bytes

logger = logging.getLogger(__name__)

_CELL = 224
_MARGIN = 12
_LINE = 16
_WRAP = 34
_COLUMNS = 4
_MAX_LINES = 8
_MAX_CELLS = 100
_COLOURS = {True: "darkgreen", False: "firebrick", None: "black"}


def write_sheet(path: Path, predictions: Sequence[Prediction], *, has_one_answer: bool = True) -> None:
    """Writes a PNG of at most four columns: images side by side, what was asked, predictions, what people answered.

    Args:
        path: The PNG file.
        predictions: What to draw, in order; the first `_MAX_CELLS` of them.
        has_one_answer: Whether an answer is right or wrong, which a caption is not, and marked so.
    """
    if len(predictions) > _MAX_CELLS:
        logger.info("%s: draws the first %d of %d predictions", path, _MAX_CELLS, len(predictions))
    drawn = predictions[:_MAX_CELLS]
    columns = min(_COLUMNS, len(drawn))
    rows = math.ceil(len(drawn) / columns)
    width, height = _CELL + _MARGIN, _CELL + _MAX_LINES * _LINE + _MARGIN
    sheet = Image.new("RGB", (columns * width + _MARGIN, rows * height + _MARGIN), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(12)
    for index, prediction in enumerate(drawn):
        left, top = _MARGIN + index % columns * width, _MARGIN + index // columns * height
        side = _CELL // len(prediction.images)  # the command line refuses a sheet of a task without images
        for number, image in enumerate(prediction.images):
            sheet.paste(_fitted(open_image(image), side), (left + number * side, top))
        mark = is_right(prediction.answer, prediction.references) if has_one_answer else None
        for line, (text, colour) in enumerate(caption(prediction, mark)):
            draw.text((left, top + _CELL + 2 + line * _LINE), text, fill=colour, font=font)
    content = BytesIO()
    sheet.save(content, "PNG")
    write_bytes(path, content.getvalue())


def _fitted(image: Image.Image, side: int) -> Image.Image:
    """Returns an image scaled to fill a square of a side, in pixels, each of its own at least a pixel."""
    scale = side / max(image.size)
    width, height = (max(1, round(side * scale)) for side in image.size)
    return image.resize((width, height), Image.Resampling.BICUBIC)


def caption(prediction: Prediction, mark: bool | None) -> list[tuple[str, str]]:
    """Returns the lines under one image, each with its colour: that of right or wrong for what the model says."""
    asked = [text for text in prediction.columns.values() if isinstance(text, str)]
    lines = [(line, "black") for text in asked for line in textwrap.wrap(text, _WRAP)]
    sure = "" if prediction.confidence is None else f" (p = {prediction.confidence:.2f})"
    word = "" if mark is None else " - right" if mark else " - wrong"
    for name, text in prediction.answers.items():
        note = f"{sure}{word}" if name == list(prediction.answers)[-1] else ""
        lines += [(line, _COLOURS[mark]) for line in textwrap.wrap(f"{name}: {text}{note}", _WRAP)]
    if prediction.references:
        people = "; ".join(text for text, _ in Counter(prediction.references).most_common(3))
        lines += [(line, "black") for line in textwrap.wrap(f"people: {people}", _WRAP)]
    return lines[:_MAX_LINES]
