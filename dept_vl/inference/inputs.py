"""What to predict on, from files and the command line, and whether it can be. No torch, so that it is said at once."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dept_vl.data.images import open_image
from dept_vl.errors import ConfigError, DataError
from dept_vl.models.language.stored import check_files
from dept_vl.runs.decoding import choose_decoding
from dept_vl.settings.schema import TrainConfig
from dept_vl.system.bounded_reading import parse_json, read_file
from dept_vl.tasks import Task, get_task

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")


@dataclass(frozen=True)
class PredictionInput:
    """One image (None for a text task) and the columns the task's template reads, such as ``question``."""

    image: Path | None
    columns: dict[str, Any]


def read_inputs(
    task_name: str, *, image: Path | None, file: Path | None, columns: Mapping[str, str]
) -> list[PredictionInput]:
    """Returns what to predict, from an image, a folder of images, a JSONL file, or columns alone.

    Args:
        task_name: Decides which columns are needed, and whether an image is.
        image: An image; a folder, of which every JPEG, PNG and WebP is taken; or a file as `file`.
        file: A ``.jsonl`` file of objects with the task's input columns and, for a task with images, ``image``
            (relative to the file).
        columns: Columns of every input that brings none of its own.

    Raises:
        ConfigError: The task needs an image or column that is not given, or does not take one that is.
        DataError: Nothing there, or a line of the JSONL file is malformed.
    """
    task = get_task(task_name)
    unknown = sorted(set(columns) - set(task.input_columns))
    if unknown:
        takes = ", ".join(task.input_columns) or "none"
        raise ConfigError(f"--column {unknown[0]}: task {task.name!r} takes no such column (it takes: {takes})")
    inputs = [PredictionInput(item.image, {**columns, **item.columns}) for item in _given(task, image=image, file=file)]
    for number, item in enumerate(inputs, start=1):
        where = str(item.image or f"input {number}")
        for name in task.input_columns:
            _check_column(task, name, item.columns.get(name), where)
    return inputs


def check_inputs(config: TrainConfig, inputs: Sequence[PredictionInput], *, num_beams: int) -> None:
    """Refuses what cannot be answered, before any model is loaded.

    Raises:
        ConfigError: There is no such number of beams, the answers cannot be made as the settings say, or files of the
            backbone or the encoder are incomplete or do not fit together.
        DataError: An image is missing or damaged, or the template cannot read an input's columns.
    """
    if num_beams < 1:
        raise ConfigError(f"--beams: must be at least 1, got {num_beams}")
    for item in inputs:
        if item.image is not None:
            open_image(item.image)
    task = get_task(config.task).under(config.data.protocol)
    choose_decoding(config, task)
    source_texts(task, inputs)
    check_files(config.model.backbone, config.model.revision)
    if task.uses_images:
        config.model.image_encoder.check_files()


def source_texts(task: Task, inputs: Sequence[PredictionInput]) -> list[str]:
    """Returns the source text of every input.

    Args:
        task: Under the run's protocol.
        inputs: Images and columns.

    Raises:
        DataError: The template cannot read an input's columns: it is made for prepared rows, and inputs may hold
            anything.
    """
    texts = []
    for number, item in enumerate(inputs, start=1):
        try:
            texts.append(task.source_text({**item.columns, "image": str(item.image)}))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"{item.image or f'input {number}'}: task {task.name!r} cannot read these columns "
                f"({type(error).__name__}: {error}); given: {json.dumps(item.columns, ensure_ascii=False)[:200]}"
            ) from error
    return texts


def _check_column(task: Task, name: str, value: Any, where: str) -> None:
    """Refuses a column that the task's template would not read as what it is.

    Raises:
        ConfigError: It is missing or empty.
        DataError: It is of another kind, or holds bytes that are not text.
    """
    if value is None or not str(value).strip():
        hint = "--question TEXT" if name == "question" else f"--column {name}=TEXT"
        raise ConfigError(f"{where}: task {task.name!r} needs a {name}; give {hint}")
    kind = task.columns.get(name, "text")
    if kind in ("text", "text or empty") and not isinstance(value, str):
        raise DataError(f"{where}: column {name!r} should be a text, found {type(value).__name__} {str(value)[:80]!r}")
    try:
        str(value).encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{where}: column {name!r} is not UTF-8 text: {str(value)[:80]!a} ({error.reason})") from None


def _given(task: Task, *, image: Path | None, file: Path | None) -> list[PredictionInput]:
    """Returns the inputs that image or file name, before the columns given to all."""
    if image is not None and file is not None:
        raise ConfigError("--image and --input: give one of them")
    if image is not None and not task.uses_images:
        raise ConfigError(f"--image: task {task.name!r} reads text alone; give --input JSONL or --column NAME=VALUE")
    if image is None and file is None:
        if task.uses_images:
            raise ConfigError(f"--image: task {task.name!r} needs an image, a folder of images or a JSONL file")
        return [PredictionInput(None, {})]
    path = file or image
    assert path is not None  # both None was handled above
    if path.is_dir():
        images = sorted(p for p in path.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
        if not images:
            raise DataError(f"{path}: no image in this folder (looked for {', '.join(IMAGE_SUFFIXES)})")
        return [PredictionInput(image, {}) for image in images]
    if file is not None or path.suffix.lower() == ".jsonl":
        return _read_jsonl(path, needs_image=task.uses_images)
    return [PredictionInput(path, {})]


def _read_jsonl(path: Path, *, needs_image: bool) -> list[PredictionInput]:
    inputs = []
    try:
        lines = read_file(path).decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text: {error}") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record: Any = parse_json(line)
        except ValueError as error:
            raise DataError(f"{path}, line {number}: not valid JSON: {error}") from None
        if not isinstance(record, dict):
            raise DataError(f"{path}, line {number}: expected an object of columns, got {line[:80]}")
        if needs_image and not isinstance(record.get("image"), str):
            raise DataError(f'{path}, line {number}: missing "image", a path (has: {", ".join(record)})')
        columns = {name: value for name, value in record.items() if name != "image"}
        inputs.append(PredictionInput(path.parent / record["image"] if needs_image else None, columns))
    if not inputs:
        raise DataError(f"{path}: no lines")
    return inputs
