"""Rows of a text data set in its own (Hugging Face) columns: from Parquet, JSON, JSON lines, CSV and TSV files.

Every row comes with its place, for messages: file and record (Parquet and JSON, from 0) or file and line (from 1).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from data_prep.raw.json_files import RawFile, Record
from data_prep.raw.tables import check_columns, read_csv, read_header, read_tsv
from dept_vl.errors import DataError, first_line
from dept_vl.system.bounded_reading import hash_file, parse_json
from dept_vl.system.text_files import open_text, parse_line, read_json, text_lines
from dept_vl.tasks import Source

if TYPE_CHECKING:
    from datasets import Dataset

Placed = tuple[str, Record]
"""Where a row stands, and the row."""

_ROWS_PER_BATCH = 1024
_LARGE_ROWS_PER_BATCH = 32
_LOOKED_AT_ROWS = 100
_PEEKED_CHARACTERS = 1 << 20  # of a JSON file's first line, to see whether it is a row


def find_split_files(raw: Path, source: Source, hub_split: str, *, subset: bool = False) -> list[Path]:
    """Returns the files of a hub split, several where it is in shards; empty if there are none.

    They are called ``train.parquet`` or, as on the hub, ``train-00000-of-00002.parquet``, and lie in the folder, in
    ``data/``, or in a folder called as the data set's configuration.

    Args:
        raw: The folder.
        source: The data set.
        hub_split: The split.
        subset: Whether shards may be missing.

    Raises:
        DataError: There is no such folder, the split is there in several formats, or a shard is missing.
    """
    for folder in _places(raw, source):
        if paths := split_files_in(folder, hub_split, subset=subset):
            return paths
    return []


def split_files_in(folder: Path, split: str, *, subset: bool = False, remedy: str = ", or give --subset") -> list[Path]:
    """Returns the files of a split that lie directly in a folder, as `find_split_files` does in several.

    Raises:
        DataError: The split is there in several formats, or a shard is missing; `remedy` ends that message.
    """
    found = _find_in(folder, split)
    if len(found) > 1:
        names = ", ".join(paths[0].name for paths in found.values())
        raise DataError(f"{folder}: split {split!r} is there {len(found)} times: {names}; leave one")
    for (_, shards), paths in found.items():
        if shards and len(paths) != shards and not subset:
            raise DataError(
                f"{folder}: split {split!r} is in {shards} shards, of which {len(paths)} are there: "
                f"{', '.join(path.name for path in paths[:3])}; add the others{remedy}"
            )
        return paths
    return []


def is_table(path: Path) -> bool:
    """Returns whether a file is called as one that `read_rows` reads."""
    return _suffix(path.name) is not None


def describe_folder(raw: Path, source: Source, hub_split: str) -> str:
    """Returns what lies in a folder, where a split was not found in it, and how its files may be called."""
    named = [
        path.relative_to(raw).as_posix()
        for folder in _places(raw, source)
        for path in sorted(folder.iterdir())
        if not path.name.startswith(".") and not path.is_dir()
    ]
    there = f"{', '.join(named[:8])}{', ...' if len(named) > 8 else ''}" if named else "no file"
    folders = " or ".join(f"{place.name}/" for place in _subfolders(raw, source))
    return (
        f"there is {there}{'; rename what is meant' if named else ''} (also found: {hub_split}-00000-of-00002.parquet "
        f"and its like, text packed as .gz, and files in {folders})"
    )


def file_names(hub_split: str) -> str:
    """Returns the names a hub split's file may have, for messages."""
    return f"{hub_split}{{{','.join(_READERS)}}}"


def describe_file(path: Path) -> RawFile:
    """Returns a file's size and hash, without its content."""
    return RawFile(path, None, hash_file(path), path.stat().st_size)


def read_rows(path: Path, columns: Sequence[str] | None, *, tsv_quotes: bool = False) -> Iterator[Placed]:
    """Yields the rows of one file, each with its place.

    Args:
        path: The file; its suffix says what it is.
        columns: The columns every row must have; others need not be read. None: none must, and all are read.
        tsv_quotes: Whether the fields of a TSV file may be quoted.

    Raises:
        DataError: The file is damaged or cut short, or lacks a column.
    """
    suffix = _suffix(path.name)
    reader = partial(read_tsv, is_quoted=True) if tsv_quotes and suffix == ".tsv" else _READERS[suffix or ""]
    yield from reader(path, columns)


def read_columns(path: Path, *, tsv_quotes: bool = False) -> list[str]:
    """Returns the names of a file's columns: those of its header or schema; of JSON those that its first rows have.

    Raises:
        DataError: The file is damaged where they stand.
    """
    suffix = _suffix(path.name)
    if suffix in (".csv", ".tsv"):
        return read_header(path, is_tsv=suffix == ".tsv", is_quoted=tsv_quotes)
    if suffix == ".parquet":
        return list(open_parquet(path).schema_arrow.names)
    names: dict[str, None] = {}
    for _, row in islice(read_rows(path, None), _LOOKED_AT_ROWS):
        names |= dict.fromkeys(row)
    return list(names)


def _places(raw: Path, source: Source) -> list[Path]:
    """Returns the folders that a split's files may lie in."""
    if not raw.is_dir():
        raise DataError(f"{raw}: no such folder of raw files")
    return [place for place in (raw, *_subfolders(raw, source)) if place.is_dir()]


def _subfolders(raw: Path, source: Source) -> list[Path]:
    return [raw / name for name in ("data", source.config or "plain_text")]


def _find_in(folder: Path, hub_split: str) -> dict[tuple[str, int], list[Path]]:
    """Returns the files of a split in one folder, by suffix and number of shards (0: one file, without a number)."""
    shard = re.compile(rf"{re.escape(hub_split)}-(\d+)-of-(\d+)(?:-[0-9a-f]+)?", re.IGNORECASE)
    found: dict[tuple[str, int], list[Path]] = {}
    for path in sorted(folder.iterdir()):
        suffix = _suffix(path.name)
        if suffix is None or not path.is_file():
            continue
        stem = path.name[: path.name.lower().rindex(suffix)]
        if stem.lower() == hub_split:
            found.setdefault((path.name.lower(), 0), []).append(path)
        elif match := shard.fullmatch(stem):
            found.setdefault((suffix, int(match[2])), []).append(path)
    order = list(_READERS)
    return dict(sorted(found.items(), key=lambda item: order.index(_suffix(item[1][0].name) or "")))


def _suffix(name: str) -> str | None:
    """Returns which of the suffixes a file's name ends in, capitals or not, and whether packed or not."""
    name = name.lower()
    packed = name.removesuffix(".gz")
    return next((s for s in _READERS if packed.endswith(s) and (s != ".parquet" or packed == name)), None)


def open_parquet(path: Path) -> pq.ParquetFile:
    """Returns a Parquet file, its schema read.

    Raises:
        DataError: It is none, or is cut short.
    """
    try:
        return pq.ParquetFile(path)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{path}: not a complete Parquet file ({error}); download it again") from error


def _read_parquet(path: Path, columns: Sequence[str] | None) -> Iterator[Placed]:
    file = open_parquet(path)
    check_columns(file.schema_arrow.names, columns or (), str(path))
    record = 0
    batches = file.iter_batches(rows_per_batch(file.schema_arrow), columns=None if columns is None else list(columns))
    while True:
        try:
            rows = next(batches).to_pylist()
        except StopIteration:
            return
        except (pa.ArrowException, OSError, ValueError, OverflowError) as error:  # text that is no UTF-8, the year 0
            raise DataError(
                f"{path}: not a complete Parquet file, or damaged behind record {record} ({error}); download it again"
            ) from error
        for row in rows:
            yield f"{path}, record {record}", row
            record += 1


def rows_per_batch(schema: pa.Schema) -> int:
    """Returns how many rows of these columns are read at a time: few where bytes, such as images, are in them."""
    large = [name for name in schema.names if "binary" in str(schema.field(name).type)]
    return _ROWS_PER_BATCH if not large else _LARGE_ROWS_PER_BATCH


def _read_jsonl(path: Path, columns: Sequence[str] | None) -> Iterator[Placed]:
    with open_text(path) as file:
        for number, line in enumerate(text_lines(file, path), start=1):
            if line.strip():
                place = f"{path}, line {number}"
                row = parse_line(line, place)
                check_columns(list(row), columns or (), place)
                yield place, row


def _read_json(path: Path, columns: Sequence[str] | None) -> Iterator[Placed]:
    """Reads a JSON file: JSON lines under that name, or one list of rows in one of the forms of `_listed`."""
    with open_text(path) as file:
        head = file.readline(_PEEKED_CHARACTERS)
        while head and not head.strip():
            head = file.readline(_PEEKED_CHARACTERS)
    if _is_row(head, columns):
        yield from _read_jsonl(path, columns)
        return
    for number, row in enumerate(_listed(read_json(path), columns, path)):
        place = f"{path}, record {number}"
        if not isinstance(row, dict):
            raise DataError(f"{place}: expected an object of columns, got {str(row)[:80]}")
        check_columns(list(row), columns or (), place)
        yield place, row


def _is_row(line: str, columns: Sequence[str] | None) -> bool:
    try:
        row = parse_json(line)
    except ValueError:
        return False
    if not isinstance(row, dict) or any(isinstance(row.get(key), list) for key in ("data", "rows")):
        return False
    if columns is None:
        return not (row and all(isinstance(values, list | dict) for values in row.values()))
    return not isinstance(row.get(columns[0]), list)


def _listed(content: Any, columns: Sequence[str] | None, path: Path) -> list[Any]:
    """Returns the rows of a JSON value.

    It is a list of rows; ``{"data": [row, ...]}``; ``{"rows": [{"row": row}, ...]}`` as the hub's viewer gives them;
    or a list a column, or what pandas writes for it, an object a column of the row's number -> value.
    """
    if isinstance(content, dict):
        if isinstance(content.get("rows"), list):
            return [row.get("row", row) if isinstance(row, dict) else row for row in content["rows"]]
        if (rows := _by_column(content, columns)) is not None:
            return rows
        content = content.get("data", content)
    if not isinstance(content, list):
        raise DataError(
            f"{path}: expected a list of rows, objects with {', '.join(columns or ['a value a column'])}, or JSON "
            f"lines, got {str(content)[:80]}"
        )
    return content


def _by_column(content: Mapping[str, Any], columns: Sequence[str] | None) -> list[Any] | None:
    """Returns the rows of a JSON object that holds the values of a column under its name; None where it does not."""
    if columns is None:
        columns = [] if isinstance(content.get("data"), list) and len(content) == 1 else list(content)
    lists = {name: content[name] for name in columns if isinstance(content.get(name), list)}
    if not lists and columns and all(isinstance(content.get(name), dict) for name in columns):
        keys = [list(content[name]) for name in columns]
        if all(key == keys[0] for key in keys):
            lists = {name: list(content[name].values()) for name in columns}
    if not lists or len(lists) != len(columns) or len({len(values) for values in lists.values()}) != 1:
        return None
    return [dict(zip(lists, values, strict=True)) for values in zip(*lists.values(), strict=True)]


_READERS: dict[str, Callable[[Path, Sequence[str] | None], Iterator[Placed]]] = {
    ".parquet": _read_parquet,
    ".jsonl": _read_jsonl,
    ".json": _read_json,
    ".csv": read_csv,
    ".tsv": read_tsv,
}
"""File suffix -> its reader; what is text may be packed with gzip."""


def read_hub(source: Source, split: str, columns: Sequence[str]) -> Iterator[Placed]:
    """Yields the rows of one split of a hub data set, through `datasets` (downloaded once into its own cache).

    Raises:
        DataError: The hub cannot be reached, has no such data set, or other columns; the message says what to do.
    """
    import datasets

    try:
        rows = datasets.load_dataset(source.path, source.config, revision=source.revision, split=split)
    except Exception as error:  # whatever the hub's client and the readers below it raise
        offline = "with network access unset HF_HUB_OFFLINE, else " if datasets.config.HF_HUB_OFFLINE else ""
        raise DataError(
            f"{source}: cannot load split {split!r} from the hub ({first_line(error)}); {offline}put "
            f"{file_names(split)} in the data set's own columns into a folder and give --raw FOLDER to "
            "`dept-vl prepare`"
        ) from error
    check_columns(rows.column_names, columns, f"{source}, {split}")
    yield from read_dataset(rows, f"{source}, {split}", columns)


def read_dataset(rows: Dataset, name: str, wanted: Sequence[str]) -> Iterator[Placed]:
    """Yields the rows of a data set of `datasets`, with those of the wanted columns that it has."""
    chosen = rows.select_columns([column for column in wanted if column in rows.column_names])
    tables = chosen.with_format("arrow").iter(rows_per_batch(chosen.features.arrow_schema))
    for record, row in enumerate(row for table in tables for row in table.to_pylist()):
        yield f"{name}, record {record}", row
