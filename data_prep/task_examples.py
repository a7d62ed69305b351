"""A few rows of a task as the model sees them: made-up ones, or the first of a raw folder or of prepared data."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

from data_prep.raw.text_columns import read_row
from data_prep.raw.text_files import describe_folder, file_names, find_split_files, read_rows
from dept_vl.data.manifest import open_split, split_path
from dept_vl.errors import ConfigError, DataError
from dept_vl.tasks import RenderedExample, Task
from dept_vl.tasks.examples import example_rows
from dept_vl.tasks.splits import SPLITS


def render_examples(
    task: Task, *, raw: Path | None = None, data_dir: Path | None = None, count: int = 3
) -> tuple[list[list[RenderedExample]], str]:
    """Returns what each protocol makes of a few rows, and where the rows are from.

    Args:
        task: The task.
        raw: Folder of the data set's files; its first rows are shown.
        data_dir: Prepared data; the first rows of each protocol that is there are shown.
        count: How many rows.

    Raises:
        ConfigError: Both folders are given, or `raw` for a task whose raw files are of several kinds.
        DataError: There are no such rows, made-up ones included, or they are damaged.
    """
    if raw is not None and data_dir is not None:
        raise ConfigError("--raw and --data-dir: give one of them")
    if data_dir is not None:
        return _from_prepared(task, data_dir, count)
    if raw is not None:
        return _from_raw(task, raw, count)
    rows = example_rows(task.name)[:count]
    if not rows:
        shown = "--raw DIR or --data-dir DATA" if task.source else "--data-dir DATA"
        raise DataError(f"task {task.name!r} has no made-up rows to show; give {shown} for real ones")
    rows = [read_row(row, task.columns) if task.columns else row for row in rows]
    return [task.render(row) for row in rows], "made up for this listing, no data (--raw DIR shows real ones)"


def _from_raw(task: Task, raw: Path, count: int) -> tuple[list[list[RenderedExample]], str]:
    if task.source is None:
        raise ConfigError(f"--raw: shows rows of text tasks; prepare {task.name!r} and give --data-dir DATA")
    for name in task.source.rows:
        paths = find_split_files(raw, task.source, name, subset=True)
        if not paths:
            continue
        examples = []
        for place, record in islice(read_rows(paths[0], list(task.columns)), count):
            try:
                examples.append(task.render(read_row(record, task.columns)))
            except DataError as error:
                raise DataError(f"{place}: {error}") from None
        return examples, str(paths[0])
    names = " or ".join(map(file_names, task.source.rows))
    there = describe_folder(raw, task.source, next(iter(task.source.rows)))
    raise DataError(f"{raw}: no file of {task.source}: {names}; {there}")


def _from_prepared(task: Task, data_dir: Path, count: int) -> tuple[list[list[RenderedExample]], str]:
    ways = {way.protocol: way for way in task.ways()}
    there = [(p, s) for p, way in ways.items() for s in SPLITS if split_path(data_dir, way, s).is_file()]
    if not there:
        open_split(data_dir, next(iter(ways.values())), SPLITS[0])  # says what is missing
    shown = dict(reversed(there))
    examples = []
    for protocol, split in sorted(shown.items(), key=lambda item: item[0] or ""):
        rows = open_split(data_dir, ways[protocol], split)
        for row in rows.select(range(min(count, len(rows)))):
            examples.append([RenderedExample(protocol, ways[protocol].source_text(row), tuple(row["targets"]))])
    return examples, ", ".join(str(split_path(data_dir, ways[p], s)) for p, s in sorted(shown.items(), key=str))
