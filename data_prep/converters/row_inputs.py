"""Rows of one's own as inputs to answer: what ``dept-vl predict --rows`` reads."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_prep.converters.row_reading import check_columns
from data_prep.raw.image_names import ImageNames
from data_prep.raw.row_sources import open_rows
from data_prep.raw.row_values import read_text, read_texts
from dept_vl.errors import ConfigError, DataError
from dept_vl.tasks import Task
from dept_vl.tasks.declaration import TaskDeclaration, columns_read


def read_row_inputs(task: Task, rows: str, images: Path | None) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields the rows in the form of ``predict``'s JSON lines, each with its place; they need no answers.

    Args:
        task: A task that is declared for rows of one's own.
        rows: As `open_rows`.
        images: What names of images start from; None: the folder of the rows.

    Raises:
        ConfigError: The task is not declared for rows.
        DataError: As `prepare_rows`; or pictures lie in the rows themselves.
    """
    if not task.is_own or task.declaration is None:
        raise ConfigError(
            f"data.rows: task {task.name!r} is not declared for rows of one's own; give --image or --input"
        )
    declaration = task.declaration
    if images is not None and not task.uses_images:
        raise ConfigError(f"--images: task {task.name!r} reads text alone; leave it out")
    if images is not None and not images.is_dir():
        raise DataError(f"{images}: no such folder of images")
    source = open_rows(rows, declaration.split.names)
    check_columns(declaration, source.parts, has_answers=False)
    names = ImageNames(images or source.folder or Path())
    wanted = [name for _, name in columns_read(declaration)]
    for part in source.parts:
        for place, record in part.read([name for name in wanted if name in part.columns]):
            try:
                yield place, _converted(declaration, record, names, task.result_keys[0])
            except DataError as error:
                raise DataError(f"{place}: {error}") from None


def _converted(declaration: TaskDeclaration, record: Any, names: ImageNames, id_key: str) -> dict[str, Any]:
    row: dict[str, Any] = {name: read_text(record.get(name)) for name in declaration.columns}
    answers = [text for name in declaration.target or () for text in read_texts(record.get(name))]
    row["references"] = [(declaration.labels or {}).get(text, text) for text in answers]
    if declaration.id is not None and (own := read_text(record.get(declaration.id))):
        row[id_key] = int(own) if own.isascii() and own.isdecimal() and str(int(own)) == own else own
    images = [_find(record.get(column), column, names) for column in declaration.images]
    if images:
        row["image"] = images if len(images) > 1 else images[0]
    return row


def _find(value: Any, column: str, names: ImageNames) -> str:
    """Returns the path of the image that a column of a row names."""
    name = read_text(value) if isinstance(value, str | int | float) else ""
    if not name:
        raise DataError(f"{column!r} should be the name of an image's file, found {value!r:.80}")
    found = names.find(name)
    if found is None:
        raise DataError(f"image {name!r} is not in {names.root}{names.near(name)}; --images names another folder")
    return str(names.root / found)
