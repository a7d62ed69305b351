"""Rows of one's own, as a task's declaration says -> its prepared splits."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_prep.converters.row_manifest import OwnRows
from data_prep.converters.row_reading import LeftOut, image_numbers, read_table
from data_prep.converters.row_splits import NOT_GIVEN
from data_prep.prepared import Preparation, PreparedStats
from data_prep.raw.official import read_official
from data_prep.raw.row_images import ImageColumn, RowImage
from data_prep.raw.row_sources import RowSource, of_records, open_rows
from dept_vl.data.manifest import task_folder
from dept_vl.errors import ConfigError, DataError
from dept_vl.system.atomic import refuse_existing
from dept_vl.tasks import Task
from dept_vl.tasks.declaration import TaskDeclaration
from dept_vl.tasks.splits import SPLITS

logger = logging.getLogger(__name__)

_TEST = SPLITS.index("test")


def prepare_rows(
    task: Task,
    raw: Path | None,
    out: Path,
    *,
    rows: str | Path | None = None,
    images: Path | None = None,
    tsv_quotes: bool = False,
    skip_missing_images: bool = False,
    image_check: bool = True,
    subset: bool = False,
) -> PreparedStats:
    """Writes ``out/<task>/{train,val,test}.parquet`` and ``stats.json`` from rows of one's own, all or nothing.

    Args:
        task: A task with a declaration.
        raw: Folder of the official files, of a task that is declared for such.
        out: The data folder.
        rows: A file, a folder, or a data set of the hub, as `open_rows` takes them.
        images: What names of images start from; None: the folder of the rows.
        tsv_quotes: Whether the fields of TSV files may be quoted.
        skip_missing_images: Whether rows whose image is not there are left out and counted, instead of refused.
        image_check: Whether each image's file is looked for; official files alone can do without.
        subset: Take official files that are not complete.

    Returns:
        Counts by split, also logged.

    Raises:
        ConfigError: Rows are not given, or are given to a task of official files.
        DataError: Rows or images are missing, damaged, or not as the declaration says; or the folder is not empty.
    """
    declaration = _declaration(task)
    refuse_existing(task_folder(out, task))
    if declaration.format is not None:
        if rows is not None or raw is None:
            raise ConfigError(
                f"--raw: task {task.name!r} needs the folder of its official files (format: {declaration.format}), and "
                "takes no --rows"
            )
        source = read_official(declaration, raw, subset=subset)
    elif rows is None:
        raise ConfigError(f"--rows: task {task.name!r} needs rows: a file, a folder or a data set of the hub")
    elif raw is not None:
        raise ConfigError(f"--raw: task {task.name!r} takes rows, and no official files; leave it out")
    else:
        _check_images(declaration, images, "--images")
        source = open_rows(rows, declaration.split.names, tsv_quotes=tsv_quotes)
    return _prepare(
        task, source, out, images or source.folder,
        skip_missing_images=skip_missing_images, image_check=image_check, subset=subset,
    )  # fmt: skip


def prepare_records(task: Task, rows: Any, out: Path, *, images: Path | None = None) -> PreparedStats:
    """Writes prepared splits from rows in memory, as `prepare_rows` does from files.

    Args:
        task: A task with a declaration.
        rows: A list of mappings, a `datasets.Dataset` or a DataFrame; or a mapping of ``train``, ``val`` and ``test``
            to such.
        out: The data folder.
        images: What names of images start from; None: pictures are in the rows, or names are paths of files.

    Raises:
        DataError: As `prepare_rows`.
    """
    declaration = _declaration(task)
    _check_images(declaration, images, "images")
    refuse_existing(task_folder(out, task))
    return _prepare(task, of_records(rows, declaration.split.names), out, images)


def _check_images(declaration: TaskDeclaration, images: Path | None, argument: str) -> None:
    if images is not None and not declaration.uses_images:
        raise ConfigError(f"{argument}: task {declaration.name!r} reads text alone; leave it out")


def _declaration(task: Task) -> TaskDeclaration:
    if task.declaration is None:
        raise ConfigError(f"task {task.name!r} is not declared for rows of one's own")
    return task.declaration


def _prepare(
    task: Task,
    source: RowSource,
    out: Path,
    images: Path | None,
    *,
    skip_missing_images: bool = False,
    image_check: bool = True,
    subset: bool = False,
) -> PreparedStats:
    """Reads rows and images, sorts them into splits and writes them; see `prepare_rows`."""
    declaration, left_out, column = _declaration(task), LeftOut(), ImageColumn(images)
    table = read_table(declaration, source, column, left_out)
    found = column.resolve(is_checked=image_check, may_miss=skip_missing_images) if declaration.uses_images else []
    table = _without_missing(table, found, left_out, declaration)
    table, unanswered = _without_unanswered(table, left_out, declaration)
    reasons = "; ".join(f"{count:,} {why}" for why, count in left_out.described().items()) or "there are none"
    if table.num_rows == 0:
        raise DataError(f"task {task.name!r}: no row is left to train on: {reasons}")
    rows = OwnRows.sorted(declaration, table, found, column)
    for split in ("train", "val") if declaration.can_train else ():
        if split not in rows.present:
            raise DataError(f"task {task.name!r}: {split} would have no rows: {reasons}")
    preparation = Preparation(
        task=task,
        schema=rows.schema(),
        rows={split: rows.convert(split) for split in rows.present},
        examples={split: rows.size(split, unanswered) for split in rows.present},
        inputs=source.files,
        is_subset=subset,
        left_out=left_out.described(),
        source=source.source,
        images=(lambda folder: column.write_held(folder, _pictures(source, declaration))) if column.is_held else None,
    )
    stats = preparation.write(out, source.folder, column.root if declaration.uses_images else None)
    _warn_of_cut_targets(stats, task)
    return stats


def _warn_of_cut_targets(stats: PreparedStats, task: Task) -> None:
    longest = stats.splits["train"].words.get("targets", {}).get("max", 0) if "train" in stats.splits else 0
    if longest > task.max_target_length:
        logger.warning(
            "%s: the longest target has %s words, and data.max_target_length keeps %d tokens: training cuts what is "
            "longer, and answers are as short",
            task.name, f"{longest:,}", task.max_target_length,
        )  # fmt: skip


def _pictures(source: RowSource, declaration: TaskDeclaration) -> Iterator[Any]:
    """Yields the images of every row, read once more."""
    names = declaration.images
    return (record.get(name) for part in source.parts for _, record in part.read(names) for name in names)


def _without_missing(
    table: pa.Table, images: Sequence[RowImage | None], left_out: LeftOut, declaration: TaskDeclaration
) -> pa.Table:
    """Leaves out rows of which an image is not there."""
    absent = [number for number, image in enumerate(images) if image is None]
    if not absent:
        return table
    is_absent = pa.array(np.isin(image_numbers(table, declaration), absent).any(axis=1))
    gone = table.filter(is_absent)
    if gone.num_rows:
        left_out.add("rows left out: their image is missing", gone["place"][0].as_py(), gone.num_rows)
    return table.filter(pc.invert(is_absent))


def _without_unanswered(
    table: pa.Table, left_out: LeftOut, declaration: TaskDeclaration
) -> tuple[pa.Table, dict[int, int]]:
    """Leaves out rows without an answer, but for a given test split in which no row has one.

    Returns:
        The rest, and how many were left out of each given split, by its number.
    """
    is_empty = pc.equal(pc.list_value_length(table["answers"]), 0)
    if not pc.any(is_empty).as_py():
        return table, {}
    is_test = pc.equal(table["split"], _TEST)
    answered_tests = table.filter(pc.and_(is_test, pc.invert(is_empty))).num_rows
    if not answered_tests:
        is_empty = pc.and_(is_empty, pc.invert(is_test))
    gone = table.filter(is_empty)
    columns = ", ".join(map(repr, declaration.target or ("answers",)))
    numbers = gone["split"].to_pylist()
    for number in dict.fromkeys(numbers):
        of_split = gone.filter(pc.equal(gone["split"], number))
        split = "" if number == NOT_GIVEN else f"{SPLITS[number]} "
        why = f"{split}rows of {table.num_rows:,} left out: {columns} is empty, so there is no answer"
        left_out.add(why, of_split["place"][0].as_py(), of_split.num_rows)
    return table.filter(pc.invert(is_empty)), {number: numbers.count(number) for number in dict.fromkeys(numbers)}
