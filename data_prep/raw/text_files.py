"""Rows of a text data set in its own (Hugging Face) columns: from parquet, JSON lines, CSV and TSV files.

Every row comes with its place, for messages: file and record (Parquet, from 0) or file and line (text, from 1).
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq

from data_prep.raw.json_files import RawFile, Record
from dept_vl.errors import DataError
from dept_vl.system.bounded_reading import parse_json
from dept_vl.tasks import Source

Placed = tuple[str, Record]
"""Where a row stands, and the row."""

_ROWS_PER_BATCH = 1024
_MAX_LINE_CHARACTERS = 1 << 24  # of a JSON line: a small packed file may hold a line of gigabytes
_MAX_FIELD_CHARACTERS = 1 << 24  # of a CSV field; the module's own limit of 128 Ki is less than a long web page


def find_split_file(raw: Path, hub_split: str) -> Path | None:
    """Returns the file of a hub split in a folder, None if there is none.

    Raises:
        DataError: There is no such folder, or the split is there in several formats.
    """
    if not raw.is_dir():
        raise DataError(f"{raw}: no such folder of raw files")
    found = [path for suffix in _READERS if (path := raw / f"{hub_split}{suffix}").is_file()]
    if len(found) > 1:
        raise DataError(f"{raw}: split {hub_split!r} is there {len(found)} times: {', '.join(p.name for p in found)}")
    return found[0] if found else None


def file_names(hub_split: str) -> str:
    """Returns the names a hub split's file may have, for messages."""
    return f"{hub_split}{{{','.join(_READERS)}}}"


def describe_file(path: Path) -> RawFile:
    """Returns a file's size and hash, without its content."""
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return RawFile(path, None, digest, path.stat().st_size)


def read_rows(path: Path, columns: Sequence[str]) -> Iterator[Placed]:
    """Yields the rows of one file, each with its place.

    Args:
        path: The file; its suffix says what it is.
        columns: The columns every row must have; others are not read.

    Raises:
        DataError: The file is damaged or cut short, or lacks a column.
    """
    suffix = next(suffix for suffix in _READERS if path.name.endswith(suffix))
    try:
        yield from _READERS[suffix](path, columns)
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not a text file in UTF-8 at byte {error.start:,}: {error.reason}") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path}: not a complete gzip file ({error}); download it again") from error


def check_columns(found: Sequence[str], expected: Sequence[str], place: str) -> None:
    """Checks that all expected columns are there.

    Raises:
        DataError: One is missing; the message names the place and both lists.
    """
    missing = [name for name in expected if name not in found]
    if missing:
        raise DataError(
            f"{place}: missing column {', '.join(map(repr, missing))}; it has {', '.join(found) or 'none'}; expected "
            f"{', '.join(expected)}: is this another data set, or not its Hugging Face columns?"
        )


def _read_parquet(path: Path, columns: Sequence[str]) -> Iterator[Placed]:
    try:
        file = pq.ParquetFile(path)
        check_columns(file.schema_arrow.names, columns, str(path))
        record = 0
        for batch in file.iter_batches(_ROWS_PER_BATCH, columns=list(columns)):
            for row in batch.to_pylist():
                yield f"{path}, record {record}", row
                record += 1
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{path}: not a complete Parquet file ({error}); download it again") from error


def _read_jsonl(path: Path, columns: Sequence[str]) -> Iterator[Placed]:
    with _open_text(path) as file:
        for number, line in enumerate(iter(lambda: file.readline(_MAX_LINE_CHARACTERS), ""), start=1):
            place = f"{path}, line {number}"
            if len(line) == _MAX_LINE_CHARACTERS:
                raise DataError(f"{place}: longer than {_MAX_LINE_CHARACTERS:,} characters, so no row of a data set")
            if not line.strip():
                continue
            try:
                row = parse_json(line)
            except ValueError as error:
                raise DataError(f"{place}: not valid JSON: {error}") from error
            if not isinstance(row, dict):
                raise DataError(f"{place}: expected an object, found {line.strip()[:40]!r}")
            check_columns(list(row), columns, place)
            yield place, row


def _read_csv(path: Path, columns: Sequence[str]) -> Iterator[Placed]:
    return _read_separated(path, columns, ",")


def _read_tsv(path: Path, columns: Sequence[str]) -> Iterator[Placed]:
    return _read_separated(path, columns, "\t")


def _read_separated(path: Path, columns: Sequence[str], delimiter: str) -> Iterator[Placed]:
    """Reads a table with a header line; fields may be quoted, and lists and objects are JSON."""
    csv.field_size_limit(_MAX_FIELD_CHARACTERS)
    with open(path, encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, delimiter=delimiter, strict=True)
        header: list[str] | None = None
        try:
            for fields in reader:
                place = f"{path}, line {reader.line_num}"
                if header is None:
                    header = fields
                    check_columns(header, columns, place)
                    twice = [name for name in columns if header.count(name) > 1]
                    if twice:
                        raise DataError(f"{place}: column {twice[0]!r} is there twice")
                elif fields:
                    if any("\0" in field for field in fields):
                        raise DataError(f"{place}: holds a NUL character; the file is damaged, or no text")
                    if len(fields) != len(header):
                        raise DataError(f"{place}: {len(fields)} fields, the header has {len(header)}")
                    yield place, dict(zip(header, fields, strict=True))
        except csv.Error as error:
            raise DataError(f"{path}, line {reader.line_num}: {error}; a quote that is not closed?") from error
        if header is None:
            raise DataError(f"{path}: the file is empty; expected a header with {', '.join(columns)}")


def _open_text(path: Path) -> IO[str]:
    return gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else open(path, encoding="utf-8")


_READERS: dict[str, Callable[[Path, Sequence[str]], Iterator[Placed]]] = {
    ".parquet": _read_parquet,
    ".jsonl": _read_jsonl,
    ".jsonl.gz": _read_jsonl,
    ".csv": _read_csv,
    ".tsv": _read_tsv,
}
"""File suffix -> its reader."""


def read_hub(source: Source, split: str, columns: Sequence[str]) -> Iterator[Placed]:
    """Yields the rows of one split of a hub data set, through `datasets` (downloaded once into its own cache).

    Raises:
        DataError: The hub cannot be reached, has no such data set, or other columns; the message says what to do.
    """
    import datasets

    try:
        rows = datasets.load_dataset(source.path, source.config, revision=source.revision, split=split)
    except Exception as error:  # whatever the hub's client and the readers below it raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DataError(
            f"{source}: cannot load split {split!r} from the hub ({reason}); with network access unset HF_HUB_OFFLINE, "
            f"without it put {file_names(split)} in the data set's own columns into a folder and give --raw FOLDER to "
            "`dept-vl prepare`"
        ) from error
    check_columns(rows.column_names, columns, f"{source}, {split}")
    record = 0
    for table in rows.select_columns(list(columns)).with_format("arrow").iter(_ROWS_PER_BATCH):
        for row in table.to_pylist():
            yield f"{source}, {split}, record {record}", row
            record += 1
