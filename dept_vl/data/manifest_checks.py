"""The rules a manifest's columns and rows must keep; each breach is reported with file and record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dept_vl.errors import DataError

ROWS_PER_BATCH = 8192
"""Rows that are read, checked and written at a time: a long split is never whole in memory."""

_REQUIRED = {
    "example_id": pa.types.is_int64,
    "targets": pa.types.is_list,
    "target_weights": pa.types.is_list,
    "references": pa.types.is_list,
}
_ITEMS = {"targets": pa.types.is_string, "target_weights": pa.types.is_float32, "references": pa.types.is_string}
_OF_IMAGES = {"image_id": pa.types.is_int64, "image": pa.types.is_string}
_WEIGHT_TOLERANCE = 1e-6  # float32 rounding of 1.0


def check_columns(schema: pa.Schema, path: Path, inputs: Sequence[str] = (), *, num_images: int | None = None) -> None:
    """Checks that the columns every task needs are there with their types, and images come with ids.

    Args:
        schema: The file's columns.
        path: The file, for the message.
        inputs: The columns that the task's template reads.
        num_images: Images a row of the task has, where it has any; None: any number.

    Raises:
        DataError: A column is missing or has another type, or rows have another number of images.
    """
    for name, is_expected in _REQUIRED.items():
        if name not in schema.names:
            raise DataError(f"{path}: missing column {name!r}; it has {', '.join(schema.names)}; prepare it again")
        found = schema.field(name).type
        if not is_expected(found) or (name in _ITEMS and not _ITEMS[name](found.value_type)):
            raise DataError(f"{path}: column {name!r} has type {found}, not a manifest's; prepare it again")
    for name in inputs:
        if name not in schema.names:
            raise DataError(f"{path}: missing column {name!r}, which the task reads; it has {', '.join(schema.names)}")
    if ("image_id" in schema.names) != ("image" in schema.names):
        raise DataError(f"{path}: columns 'image_id' and 'image' come together; it has {', '.join(schema.names)}")
    if "image" in schema.names:
        found = {_number_of_images(schema, path, name) for name in ("image_id", "image")}
        if len(found) > 1 or (num_images is not None and found != {num_images}):
            there = " and ".join(map(str, sorted(found)))
            wanted = "as many as ids" if num_images is None else f"{num_images} a row, as the task has"
            raise DataError(f"{path}: rows have {there} images, expected {wanted}; prepare the task again")


def _number_of_images(schema: pa.Schema, path: Path, name: str) -> int:
    """Returns how many images a row has by the type of a column."""
    kind, is_item = schema.field(name).type, _OF_IMAGES[name]
    number = kind.list_size if pa.types.is_fixed_size_list(kind) else 1
    if not is_item(kind.value_type if number > 1 else kind):
        raise DataError(f"{path}: column {name!r} has type {kind}, not a manifest's; prepare it again")
    return int(number)


def check_numbers(rows: Sequence[Mapping[str, Any]], schema: pa.Schema, path: Path, first_record: int) -> None:
    """Checks that rows have as many images as the schema says.

    Args:
        rows: Before they are written.
        schema: Of the file.
        path: The file, for the message.
        first_record: Number of the first row in it, from 0.

    Raises:
        DataError: One has not; the message names it.
    """
    for name in _OF_IMAGES:
        if name in schema.names and pa.types.is_fixed_size_list(kind := schema.field(name).type):
            for record, row in enumerate(rows, start=first_record):
                found = len(row[name]) if isinstance(row.get(name), list | tuple) else 1
                if found != kind.list_size:
                    raise DataError(
                        f"{path}, record {record}: {name!r} holds {found} images, and every row of the task has "
                        f"{kind.list_size}"
                    )


def check_rows(batch: pa.RecordBatch, path: Path, first_record: int) -> None:
    """Checks the values of some rows.

    Args:
        batch: The rows.
        path: The file they belong to, for the message.
        first_record: Number of the batch's first row in that file, from 0.

    Raises:
        DataError: A value is null, targets and weights differ in number, a weight is outside (0, 1], or an image path
            leaves the image root.
    """
    for name in batch.schema.names:
        _report(pc.is_null(batch[name]), path, first_record, f"{name!r} is null")
        if pa.types.is_list(batch[name].type) or pa.types.is_fixed_size_list(batch[name].type):
            items = pc.is_null(pc.list_flatten(batch[name]))
            _report_items(items, batch[name], path, first_record, f"null in {name!r}")
    lengths = (pc.list_value_length(batch[name]) for name in ("targets", "target_weights"))
    _report(pc.not_equal(*lengths), path, first_record, "'targets' and 'target_weights' differ in number")
    weights = pc.list_flatten(batch["target_weights"])
    bad = pc.or_kleene(pc.less_equal(weights, 0.0), pc.greater(weights, 1.0 + _WEIGHT_TOLERANCE))
    bad = pc.or_kleene(bad, pc.is_nan(weights))
    _report_items(bad, batch["target_weights"], path, first_record, "a target weight is outside (0, 1]")
    if "image" in batch.schema.names:
        check_image_paths(batch["image"], path, first_record)


def check_image_paths(images: pa.Array, path: Path, first_record: int) -> None:
    """Checks that image paths stay inside the image root.

    Raises:
        DataError: One is absolute, empty, or climbs out.
    """
    of_several = pa.types.is_fixed_size_list(images.type)
    paths = pc.list_flatten(images) if of_several else images
    outside = pc.match_substring_regex(paths, r"^$|^/|^[A-Za-z]:|\\|\x00|(^|/)\.\.(/|$)")
    problem = "'image' must be a path inside the image root, without '..' or '\\'"
    if of_several:
        _report_items(pc.fill_null(outside, True), images, path, first_record, problem)
    else:
        _report(outside, path, first_record, problem)


def _report(is_bad: pa.Array, path: Path, first_record: int, problem: str) -> None:
    """Raises for the first true entry of `is_bad`; null counts as true."""
    position = pc.index(pc.fill_null(is_bad, True), True).as_py()
    if position >= 0:
        raise DataError(f"{path}, record {first_record + position}: {problem}")


def _report_items(is_bad: pa.Array, lists: pa.Array, path: Path, first_record: int, problem: str) -> None:
    """Raises for the first true entry of `is_bad`, which has one entry per item of `lists`."""
    item = pc.index(is_bad, True).as_py()
    if item >= 0:
        record = pc.list_parent_indices(lists)[item].as_py()
        raise DataError(f"{path}, record {first_record + record}: {problem}")
