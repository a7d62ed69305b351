"""Where rows of one's own come from: files, folders, `datasets` folders, the hub, or memory; each with its place."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from data_prep.raw.json_files import RawFile, Record
from data_prep.raw.text_files import (
    Placed,
    describe_file,
    file_names,
    is_table,
    open_parquet,
    read_columns,
    read_dataset,
    read_rows,
    split_files_in,
)
from dept_vl.errors import DataError, first_line
from dept_vl.tasks.splits import SPLITS

if TYPE_CHECKING:
    from datasets import Dataset

logger = logging.getLogger(__name__)

SplitNames = Mapping[Any, Sequence[str]]
"""Our split -> what it is called in the rows."""

_HUB_ID = re.compile(r"^[A-Za-z0-9][\w.-]*/[\w.-]+(?::[\w.-]+)?$")
_SAVED = ("dataset_dict.json", "state.json")


@dataclass(frozen=True)
class RowPart:
    """Rows that come together: files of one split, or a split of a data set.

    Attributes:
        split: Ours; None where nothing says which.
        name: For messages.
        columns: Their names, as they stand: one that is there twice is listed twice.
        read: Yields rows that have at least the given columns, as far as the part has them.
        classes: Columns of numbers that stand for names -> those names.
    """

    split: str | None
    name: str
    columns: Sequence[str]
    read: Callable[[Sequence[str]], Iterator[Placed]]
    classes: Mapping[str, Sequence[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class RowSource:
    """All rows.

    Attributes:
        parts: At least one; splits are in all of them or in none.
        folder: What paths of images start from where nothing else is said; None for the hub and memory.
        files: The files read.
        source: What is no file: the hub's data set, or rows in memory.
    """

    parts: Sequence[RowPart]
    folder: Path | None = None
    files: Sequence[RawFile] = ()
    source: str | None = None


def open_rows(rows: str | Path, names: SplitNames, *, tsv_quotes: bool = False) -> RowSource:
    """Returns the rows of a file, of a folder, or of a data set on the hub.

    Args:
        rows: A table file; a folder of ``train.csv`` and its like, of shards, or written by `datasets`; or a hub id,
            ``user/name`` or ``user/name:configuration``.
        names: What our splits are called.
        tsv_quotes: Whether the fields of TSV files may be quoted.

    Raises:
        DataError: There is nothing there, or it is not one of these.
    """
    path = Path(rows).expanduser()
    if path.is_dir():
        return _open_folder(path, names, tsv_quotes)
    if path.exists():
        if not is_table(path):
            raise DataError(f"{path}: rows are read from files called {file_names('NAME')}, not from this one")
        return _of_files({None: [path]}, path.parent, tsv_quotes)
    if _HUB_ID.match(str(rows)) and not is_table(path):
        return _of_hub(str(rows), names)
    raise DataError(f"{path}: no such file or folder of rows, and no id of a data set on the hub (user/name)")


def of_records(rows: Any, names: SplitNames) -> RowSource:
    """Returns rows in memory: a list of mappings, a `datasets.Dataset` or a DataFrame; or a mapping of splits to such.

    Raises:
        DataError: They are something else, or a split is called as none of ours.
    """
    source = "rows in memory"
    if not isinstance(rows, Mapping):
        return RowSource([_of_memory(None, rows, "rows")], source=source)
    parts = []
    for name, part in rows.items():
        if (split := split_of(name, names)) is None:
            raise DataError(f"rows: split {name!r} is none of {known_names(names)}")
        parts.append(_of_memory(split, part, str(name)))
    if not parts:
        raise DataError("rows: an empty mapping; expected rows by split, such as {'train': [...]}")
    return RowSource(parts, source=source)


def as_list(rows: Any) -> Any:
    """Returns the rows of a DataFrame as a list of mappings; anything else as it is."""
    return rows.to_dict("records") if hasattr(rows, "iterrows") else rows


def split_of(name: Any, names: SplitNames) -> str | None:
    """Returns which of our splits something calls so, in any case; None: none."""
    wanted = str(name).strip().casefold()
    return next((split for split in SPLITS if wanted in [one.casefold() for one in names.get(split, ())]), None)


def known_names(names: SplitNames) -> str:
    """Returns what splits may be called, for messages."""
    return "; ".join(f"{split}: {', '.join(names[split])}" for split in SPLITS if split in names)


def class_names(schema: pa.Schema) -> dict[str, list[str]]:
    """Returns the names of classes that `datasets` recorded beside the columns of their numbers."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {name: list(one["names"]) for name, one in features.items() if one.get("_type") == "ClassLabel"}
    except (LookupError, TypeError, ValueError, AttributeError):
        return {}


def class_name(value: Any, names: Sequence[str] | None) -> Any:
    """Returns the name that a class's number stands for; other values as they are."""
    is_class = names is not None and isinstance(value, int) and 0 <= value < len(names)
    return names[value] if names is not None and is_class else value


def is_saved_data_set(folder: Path) -> bool:
    """Returns whether `datasets` wrote a folder."""
    return any((folder / name).is_file() for name in _SAVED)


def _open_folder(folder: Path, names: SplitNames, tsv_quotes: bool) -> RowSource:
    if is_saved_data_set(folder):
        import datasets

        try:
            saved = datasets.load_from_disk(str(folder))
        except Exception as error:  # whatever the readers below it raise
            raise DataError(f"{folder}: cannot be read as a data set that `datasets` saved ({error})") from error
        return _of_data_set(saved, str(folder), names)
    for place in (folder, folder / "data"):
        if place.is_dir() and (found := _split_files(place, names)):
            return _of_files(found, folder, tsv_quotes)
    files = sorted(path for path in folder.iterdir() if path.is_file() and is_table(path))
    if len(files) == 1 or (files and all(path.suffix.lower() == ".parquet" for path in files)):
        return _of_files({None: files}, folder, tsv_quotes)
    there = ", ".join(path.name for path in files[:8]) or "no table"
    raise DataError(
        f"{folder}: which rows are in which split? There is {there}; call the files {file_names('train')}, "
        "validation and test, or name one file"
    )


def _split_files(folder: Path, names: SplitNames) -> dict[str | None, list[Path]]:
    """Returns the files of each split in a folder, or in folders called as the splits; empty where there are none."""
    found: dict[str | None, list[Path]] = {}
    for split in SPLITS:
        options = {name: _called(folder, name) for name in names.get(split, ())}
        options = {name: paths for name, paths in options.items() if paths}
        if len(options) > 1:
            both = ", ".join(paths[0].name for paths in options.values())
            raise DataError(f"{folder}: split {split!r} is there {len(options)} times: {both}; leave one")
        if options:
            found[split] = next(iter(options.values()))
    return {None: found["train"]} if list(found) == ["train"] else found


def _called(folder: Path, name: str) -> list[Path]:
    if paths := split_files_in(folder, name.lower(), remedy=""):
        return paths
    inside = folder / name
    return sorted(path for path in inside.iterdir() if path.is_file() and is_table(path)) if inside.is_dir() else []


def _of_files(by_split: Mapping[str | None, Sequence[Path]], folder: Path, tsv_quotes: bool) -> RowSource:
    parts = []
    for split, paths in by_split.items():
        for path in paths:
            is_parquet = path.suffix.lower() == ".parquet"
            columns = read_columns(path, tsv_quotes=tsv_quotes)
            classes = class_names(open_parquet(path).schema_arrow) if is_parquet else {}
            read = partial(_read_file, path, columns if is_parquet else None, tsv_quotes)
            parts.append(RowPart(split, str(path), columns, read, classes))
    return RowSource(parts, folder, [describe_file(path) for paths in by_split.values() for path in paths])


def _read_file(
    path: Path, columns: Sequence[str] | None, tsv_quotes: bool, wanted: Sequence[str]
) -> Iterator[tuple[str, Record]]:
    """Yields a file's rows; of one whose `columns` are known before, those that are wanted alone."""
    chosen = None if columns is None else [name for name in wanted if name in columns]
    return read_rows(path, chosen, tsv_quotes=tsv_quotes)


def _of_hub(rows: str, names: SplitNames) -> RowSource:
    import datasets

    path, _, config = rows.partition(":")
    try:
        found = datasets.load_dataset(path, config or None)
    except Exception as error:  # whatever the hub's client and the readers below it raise
        offline = "; with network access unset HF_HUB_OFFLINE" if datasets.config.HF_HUB_OFFLINE else ""
        raise DataError(
            f"{rows}: no such file or folder, and it cannot be loaded from the hub ({first_line(error)}); check the "
            f"path or the id{offline}"
        ) from error
    return _of_data_set(found, rows, names)


def _of_data_set(found: Any, name: str, names: SplitNames) -> RowSource:
    """Returns the rows of a `datasets` data set, or of one that has splits; a single split counts as none."""
    if isinstance(found, Mapping) and len(found) == 1:
        (found,) = found.values()
    if not isinstance(found, Mapping):
        return RowSource([_of_dataset(None, found, name)], source=name)
    splits = {split: part for part in found if (split := split_of(part, names)) is not None}
    if "train" not in splits:
        raise DataError(
            f"{name}: has splits {', '.join(found)}, none of which is the training split: {known_names(names)}; "
            "split.names says what yours are called"
        )
    if left := [part for part in found if part not in splits.values()]:
        logger.warning(
            "%s: splits %s are not read; split.names says what yours are called (%s)",
            name,
            ", ".join(left),
            known_names(names),
        )
    parts = [_of_dataset(split, found[part], f"{name}, {part}") for split, part in splits.items()]
    return RowSource(parts, source=name)


def _of_dataset(split: str | None, rows: Dataset, name: str) -> RowPart:
    columns = list(rows.column_names)
    return RowPart(split, name, columns, partial(read_dataset, rows, name), class_names(rows.features.arrow_schema))


def _of_memory(split: str | None, rows: Any, name: str) -> RowPart:
    if hasattr(rows, "select_columns") and hasattr(rows, "with_format") and hasattr(rows, "__len__"):
        return _of_dataset(split, rows, name)
    rows = as_list(rows)
    if isinstance(rows, str | bytes) or not isinstance(rows, Sequence):
        raise DataError(
            f"{name}: expected a list of mappings, a datasets.Dataset or a DataFrame, got {type(rows).__name__}"
            f"{' (a stream cannot be read twice; load it whole)' if hasattr(rows, '__iter__') else ''}"
        )
    columns: dict[str, None] = {}
    for record, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise DataError(f"{name}, record {record}: expected a mapping of columns, got {type(row).__name__}")
        columns |= dict.fromkeys(row)
    return RowPart(split, name, list(columns), partial(_read_memory, rows, name))


def _read_memory(rows: Sequence[Record], name: str, wanted: Sequence[str]) -> Iterator[Placed]:
    return ((f"{name}, record {record}", row) for record, row in enumerate(rows))
