"""What a user asks a trained run, put to it in batches: the one way from texts and images to answers."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from PIL import Image

from dept_vl.data.collator import Batch, Example, VisualTensors, collate
from dept_vl.data.images import ImageSource, open_image
from dept_vl.errors import DataError
from dept_vl.runs.open import OWN_IMAGES, RunParts, report_long
from dept_vl.runs.visual_input import VisualInput
from dept_vl.settings.schema import DataConfig
from dept_vl.system.progress import Meter

T = TypeVar("T")


@dataclass(frozen=True)
class Asked:
    """One thing that is asked.

    Attributes:
        text: The source text, made by the task's template.
        images: Of its row, in the order that the model reads them in; empty for a text task.
        place: Where it stands, for messages; "" where its image alone says enough.
    """

    text: str
    images: tuple[ImageSource, ...] = ()
    place: str = ""


def ask(
    parts: RunParts, data: DataConfig, asked: Sequence[Asked], each: Callable[[Batch], Sequence[T]], *, batch_size: int
) -> list[T]:
    """Returns what `each` makes of everything asked, in its order.

    Batches hold texts of like length, or texts about the same image, which is then encoded once.

    Args:
        parts: A run that was opened without splits.
        data: Its settings.
        asked: At least one.
        each: From a batch on the run's device, with the features of its images, to one result an example.
        batch_size: Examples a batch.

    Raises:
        DataError: An image is missing, damaged or too large; or a text is longer than ``data.max_source_length`` and
            ``data.on_long`` is ``"error"``.
    """
    texts, visual = [one.text for one in asked], parts.visual.get(OWN_IMAGES)
    report_long(parts.codec.count_longer(texts, data.max_source_length), len(texts), parts.task.name, data)
    ids = parts.codec.source_ids(texts, data.max_source_length)
    pictures, keys = _pictures(asked)
    numbers = {key: number for number, key in enumerate(pictures)}
    order = sorted(range(len(asked)), key=lambda row: ([numbers[key] for key in keys[row]], len(ids[row])))
    features: dict[Hashable, Any] = {}
    results: dict[int, T] = {}
    with Meter(len(order), "predict", "inputs", is_shown=len(order) > batch_size) as meter:
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            examples = [Example(row, ids[row], []) for row in rows]
            read: VisualTensors = {}
            if visual is not None:
                wanted = {key: pictures[key] for row in rows for key in keys[row]}
                features = _with_features(features, wanted, visual, parts)
                read = visual.stacked([features[key] for row in rows for key in keys[row]], len(rows))
            batch = collate(examples, parts.codec.pad_token_id, **read).to(parts.device)
            results |= zip(rows, each(batch), strict=True)
            meter.add(len(rows))
    return [results[number] for number in range(len(asked))]


_Picture = tuple[ImageSource, str]
"""An image that is asked about, and the place where that is done first."""


def _pictures(asked: Sequence[Asked]) -> tuple[dict[Hashable, _Picture], list[list[Hashable]]]:
    """Returns every image that is asked about by its key, and the keys of each row's images."""
    keys = [[_key(image) for image in one.images] for one in asked]
    pictures: dict[Hashable, _Picture] = {}
    for one, row in zip(asked, keys, strict=True):
        for key, image in zip(row, one.images, strict=True):
            pictures.setdefault(key, (image, one.place))
    return pictures, keys


def _key(image: ImageSource) -> Hashable:
    """Returns what is equal for images that are the same: a path, a content, or a very object."""
    return image if isinstance(image, Path | bytes) else id(image)


def _with_features(
    known: dict[Hashable, Any], wanted: dict[Hashable, _Picture], visual: VisualInput, parts: RunParts
) -> dict[Hashable, Any]:
    """Returns the features of every image that is wanted, those that are known not encoded again."""
    kept = {key: known[key] for key in wanted if key in known}
    new = [key for key in wanted if key not in known]
    if not new:
        return kept
    encoded = visual.encode((_open(*wanted[key], visual) for key in new), parts.device)
    return kept | dict(zip(new, encoded, strict=True))


def _open(image: ImageSource, place: str, visual: VisualInput) -> Image.Image:
    try:
        return open_image(image, exif=visual.exif)
    except DataError as error:
        raise DataError(f"{place}: {error}" if place else str(error)) from error
