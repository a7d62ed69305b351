"""What is given to a model in Python, as texts and images to ask about."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dept_vl.data.images import ImageSource
from dept_vl.errors import ConfigError
from dept_vl.inference.asked import Asked
from dept_vl.inference.inputs import PredictionInput, check_column, source_texts
from dept_vl.strict import expand_home
from dept_vl.tasks import Task

IMAGE = "image"
"""What an input calls its image."""

_ADDRESS = re.compile(r"^(?:[a-z][a-z0-9+.-]+://|data:)", re.IGNORECASE)


def taken(task: Task) -> tuple[str, ...]:
    """Returns what an input of a task holds, in order: its image (of several a list), if any, and its columns."""
    return ((IMAGE,) if task.uses_images else ()) + task.input_columns


def from_values(task: Task, values: Sequence[Any], columns: Mapping[str, Any], where: str = "") -> dict[str, Any]:
    """Returns an input by name, from values in order and by name.

    Args:
        task: Under the run's protocol.
        values: In the order of `taken`.
        columns: Those given by name.
        where: What stands before a message.

    Raises:
        ConfigError: Too many values, or one is given twice.
    """
    names = taken(task)
    if len(values) > len(names):
        raise ConfigError(f"{where}got {len(values)} values; {_takes(task)}")
    given = dict(zip(names, values, strict=False))
    twice = sorted(given.keys() & columns.keys())
    if twice:
        raise ConfigError(f"{where}{twice[0]} is given twice; {_takes(task)}")
    return {**given, **columns}


def read_many(task: Task, inputs: Any) -> list[dict[str, Any]]:
    """Returns inputs by name: each a mapping, a tuple in the order of `taken`, or the one value that the task takes.

    Raises:
        ConfigError: They are no such thing.
    """
    if isinstance(inputs, str | bytes | Mapping | os.PathLike | Image.Image):
        raise ConfigError(f"inputs: expected a list of inputs, got one {type(inputs).__name__}; put it into a list")
    return [_read_one(task, one, f"inputs[{number}]: ") for number, one in enumerate(inputs)]


def _read_one(task: Task, one: Any, where: str) -> dict[str, Any]:
    if isinstance(one, Mapping):
        return dict(one)
    if isinstance(one, tuple):
        return from_values(task, one, {}, where)
    if len(taken(task)) == 1:
        return from_values(task, (one,), {}, where)
    raise ConfigError(f"{where}expected a mapping or a tuple, got {type(one).__name__}; {_takes(task)}")


def make_asked(task: Task, given: Sequence[Mapping[str, Any]], *, are_many: bool) -> list[Asked]:
    """Returns inputs as they are put to a model.

    Args:
        task: Under the run's protocol.
        given: Inputs by name.
        are_many: Whether messages say which input they are about.

    Raises:
        ConfigError: A column is missing or not known, or an image is of a kind that is not read.
        DataError: A column is of another kind, or the template cannot read it.
    """
    places = [f"inputs[{number}]" if are_many else "" for number in range(len(given))]
    images: list[tuple[ImageSource, ...]] = []
    items = []
    for one, place in zip(given, places, strict=True):
        where = f"{place}: " if place else ""
        unknown = sorted(map(str, one.keys() - {*taken(task)}))
        if unknown:
            raise ConfigError(f"{where}{unknown[0]} is not taken; {_takes(task)}")
        for name in task.input_columns:
            check_column(task, name, one.get(name), place or "the input", how_to_give=f"{name}=...; {_takes(task)}")
        images.append(_images(task, one.get(IMAGE), where) if task.uses_images else ())
        items.append(PredictionInput((), {name: one[name] for name in task.input_columns}, place or "the input"))
    texts = source_texts(task, items)
    return [Asked(text, those, place) for text, those, place in zip(texts, images, places, strict=True)]


def _takes(task: Task) -> str:
    names = (f"{name} (a list of {task.num_images})" if name == IMAGE else name for name in taken(task))
    return f"task {task.name!r} takes {', '.join(taken(task) if task.num_images == 1 else names)}"


def _images(task: Task, value: Any, where: str) -> tuple[ImageSource, ...]:
    """Returns the images of an input: a single one, or as long a list as the task has images."""
    if task.num_images == 1 or value is None:
        return (_image(task, value, where),)
    if not isinstance(value, list | tuple) or len(value) != task.num_images:
        found = f"{len(value)}" if isinstance(value, list | tuple) else type(value).__name__
        raise ConfigError(f"{where}image: expected a list of {task.num_images} images, got {found}; {_takes(task)}")
    return tuple(_image(task, one, where) for one in value)


def _image(task: Task, value: Any, where: str) -> ImageSource:
    """Returns an image as `open_image` takes it."""
    if value is None:
        raise ConfigError(f"{where}there is no image; {_takes(task)}")
    if isinstance(value, str):
        if _ADDRESS.match(value):
            raise ConfigError(
                f"{where}{value[:100]}: is an address, and images are not fetched; download it, and give its path or "
                "its bytes"
            )
        try:
            return Path(expand_home(value))
        except ValueError as error:
            raise ConfigError(f"{where}{value}: {error}") from None
    if isinstance(value, Path | bytes | Image.Image | np.ndarray):
        return value
    if isinstance(value, bytearray | memoryview):
        return bytes(value)
    raise ConfigError(
        f"{where}image: expected a path, a PIL image, the bytes of a file or an array of pixels, "
        f"got {type(value).__name__}"
    )
