"""A text data set in its own columns -> prepared splits of a text task under one protocol."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain, islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_prep.prepared import Preparation, PreparedStats
from data_prep.raw.json_files import RawFile, Record
from data_prep.raw.text_columns import read_row
from data_prep.raw.text_files import (
    Placed,
    describe_file,
    describe_folder,
    file_names,
    find_split_files,
    read_hub,
    read_rows,
)
from dept_vl.data.manifest import ROWS_PER_BATCH, manifest_schema, task_folder
from dept_vl.errors import ConfigError, DataError
from dept_vl.system.atomic import refuse_existing
from dept_vl.tasks import Row, Source, SplitRule, SplitSize, Task
from dept_vl.tasks.splits import SPLIT_SEED

_GOLDS = "__golds__"
_GOLDS_FIELD = pa.field(
    _GOLDS,
    pa.list_(pa.struct([("targets", pa.list_(pa.string())), ("references", pa.list_(pa.string()))])),
)
_TEXT_KINDS = ("text", "text or empty", "label", "number", "integer")


@dataclass(frozen=True)
class RawSplit:
    """One hub split, read and checked.

    Attributes:
        name: The hub split.
        table: Its rows: the kept columns, and the golds of each row as a list of {targets, references}.
        files: The files it came from; none for the hub.
    """

    name: str
    table: pa.Table
    files: tuple[RawFile, ...]


def prepare_text(
    task: Task,
    raw: Path | None,
    out: Path,
    *,
    protocol: str | None = None,
    subset: bool = False,
    tsv_quotes: bool = False,
) -> PreparedStats:
    """Writes ``out/<task>.<protocol>/{train,val,test}.parquet`` and ``stats.json``, all or nothing.

    Args:
        task: A text task.
        raw: Folder with ``<hub split>.{parquet,jsonl,json,csv,tsv}`` in the data set's own columns, in shards or packed
            as `find_split_files` says; None: the hub.
        out: The data folder.
        protocol: ``"fixed"`` or ``"paper"``; None: the task's default.
        subset: Take files that are not complete; a split whose file is not there is not made.
        tsv_quotes: Whether the fields of TSV files may be quoted, as those of CSV files.

    Returns:
        Counts by split, also logged.

    Raises:
        ConfigError: The task has no such protocol.
        DataError: A file is missing, damaged, incomplete or of another data set, a row breaks a rule, or the output
            folder is not empty.
    """
    task = task.under(protocol or task.protocols[0])
    refuse_existing(task_folder(out, task))
    return build(task, _read_splits(task, raw, subset=subset, tsv_quotes=tsv_quotes)).write(out, raw)


def build(task: Task, raw_splits: Mapping[str, RawSplit]) -> Preparation:
    """Cuts what was read into our splits and counts; reads and writes nothing.

    Raises:
        DataError: A split would have no rows.
    """
    variant, source = task.variant, _source(task)
    rules = {split: rule for split, rule in variant.splits.items() if rule.hub_split in raw_splits}
    rows: dict[str, Iterable[Row]] = {}
    examples: dict[str, SplitSize] = {}
    left_out: dict[str, int] = {}
    for split, rule in rules.items():
        table = raw_splits[rule.hub_split].table
        indices = split_indices(table, rule)
        if len(indices) == 0:
            raise DataError(
                f"task {task.name!r}: {split} would be empty: {rule.hub_split!r} has {table.num_rows:,} rows, of which "
                f"{'half' if rule.cut is None else format(rule.cut, ',')} validate"
            )
        taken = table[_GOLDS].take(pa.array(indices))
        examples[split] = SplitSize(int(pc.sum(pc.list_value_length(taken)).as_py()))
        left_out[f"{split} rows left out: they have no answer"] = _count_unanswered(taken)
        rows[split] = convert(table, indices)
    needed = {rule.hub_split for rule in variant.splits.values()}
    found = {name: split.table.num_rows for name, split in raw_splits.items()}
    is_subset = any(found.get(name) != source.rows[name] for name in needed)
    files = [file for split in raw_splits.values() for file in split.files]
    return Preparation(
        task=task,
        schema=_manifest_schema(task),
        rows=rows,
        examples=examples,
        is_subset=is_subset,
        complete=f"the raw files have as many rows as {source}",
        left_out=left_out,
        inputs=files,
        source=None if files else str(source),
    )


def split_indices(table: pa.Table, rule: SplitRule) -> np.ndarray:
    """Returns the rows of one of our splits, in its order, (rows,) int64: `SplitRule` says which."""
    if rule.part == "all":
        indices = np.arange(table.num_rows)
    elif rule.by_group:
        groups: dict[str, list[int]] = {}
        for row, group in enumerate(table["group"].to_pylist()):
            groups.setdefault(group, []).append(row)
        members = list(groups.values())
        indices = np.array([row for group in _part(len(members), rule) for row in members[group]], dtype=np.int64)
    else:
        indices = _part(table.num_rows, rule)
    return indices[: rule.limit]


def _part(count: int, rule: SplitRule) -> np.ndarray:
    """Returns the first part, or the rest, of ``range(count)`` in the released code's order."""
    import torch  # takes a second: what is wrong with the raw files is said before

    order = torch.randperm(count, generator=torch.Generator().manual_seed(SPLIT_SEED)).numpy()
    cut = count // 2 if rule.cut is None else rule.cut
    return order[:cut] if rule.part == "first" else order[cut:]


def convert(table: pa.Table, indices: np.ndarray) -> Iterator[Row]:
    """Yields manifest rows: one for each gold of the table's rows, in the order of `indices`.

    ``example_id`` counts the examples of the hub split, so it is the row's number there unless rows make several.
    """
    first_ids = np.concatenate([[0], np.cumsum(pc.list_value_length(table[_GOLDS]).to_numpy())])
    for start in range(0, len(indices), ROWS_PER_BATCH):
        part = indices[start : start + ROWS_PER_BATCH]
        for index, row in zip(part, table.take(pa.array(part)).to_pylist(), strict=True):
            golds = row.pop(_GOLDS)
            for number, gold in enumerate(golds):
                if gold["references"]:
                    weights = [1.0] * len(gold["targets"])
                    yield {**row, **gold, "target_weights": weights, "example_id": int(first_ids[index]) + number}


def _count_unanswered(golds: pa.ChunkedArray) -> int:
    references = pc.struct_field(pc.list_flatten(golds), "references")
    return int(pc.sum(pc.equal(pc.list_value_length(references), 0)).as_py() or 0)


def _read_splits(task: Task, raw: Path | None, *, subset: bool, tsv_quotes: bool) -> dict[str, RawSplit]:
    """Reads every hub split the protocol uses, from files or from the hub."""
    names, source = list(dict.fromkeys(rule.hub_split for rule in task.variant.splits.values())), _source(task)
    if raw is None:
        return {name: _read_split(task, name, (), subset=subset) for name in names}
    paths = {name: found for name in names if (found := find_split_files(raw, source, name, subset=subset))}
    absent = [name for name in names if name not in paths]
    if absent and not (subset and paths):
        hint = "" if subset else "; --subset prepares the splits whose files are there"
        needed = " and ".join(map(file_names, absent))
        raise DataError(
            f"{raw}: task {task.name!r} needs {needed}, as in {source}{hint}; {describe_folder(raw, source, absent[0])}"
        )
    return {name: _read_split(task, name, found, subset=subset, tsv_quotes=tsv_quotes) for name, found in paths.items()}


def _read_split(task: Task, name: str, paths: Sequence[Path], *, subset: bool, tsv_quotes: bool = False) -> RawSplit:
    """Reads a hub split from its files, from the hub where there are none."""
    source, columns = _source(task), list(task.columns)
    placed = chain.from_iterable(read_rows(path, columns, tsv_quotes=tsv_quotes) for path in paths)
    table, expected = read_table(placed if paths else read_hub(source, name, columns), task), source.rows[name]
    if table.num_rows != expected and not subset:
        raise DataError(
            f"{', '.join(map(str, paths)) or source}: {table.num_rows:,} rows of {name!r}, the complete {source} has "
            f"{expected:,}: it is cut or of another version; --subset prepares it as it is"
        )
    return RawSplit(name, table, tuple(map(describe_file, paths)))


def read_table(placed: Iterable[Placed], task: Task) -> pa.Table:
    """Reads and checks every row; see `RawSplit` for the result.

    Raises:
        DataError: A value is missing or of another kind, or a label is none of the task's; the message names the place.
    """
    schema = _kept_columns(task).append(_GOLDS_FIELD)
    rows = (_checked(place, record, task) for place, record in placed)
    batches = []
    while chunk := list(islice(rows, ROWS_PER_BATCH)):
        batches.append(pa.RecordBatch.from_pylist(chunk, schema=schema))
    return pa.Table.from_batches(batches, schema=schema)


def _checked(place: str, record: Record, task: Task) -> Row:
    """Returns a row with its golds; columns that are not kept are dropped by the schema."""
    try:
        row = read_row(record, task.columns)
        golds = task.variant.golds(row)
    except DataError as error:
        raise DataError(f"{place}: {error}") from None
    group = next((row[name] for name, kind in task.columns.items() if kind == "group"), None)
    return {**row, "group": group, _GOLDS: [asdict(gold) for gold in golds]}


def _manifest_schema(task: Task) -> pa.Schema:
    texts = [name for name, kind in task.columns.items() if kind in _TEXT_KINDS]
    lists = [name for name, kind in task.columns.items() if kind == "texts"]
    groups = ["group"] if task.variant.groups else []
    return manifest_schema(images=False, text_columns=[*texts, *groups], list_columns=lists)


def _kept_columns(task: Task) -> pa.Schema:
    """Returns the columns of the manifest that come from the raw row as they are."""
    made = ("example_id", "targets", "target_weights", "references")
    return pa.schema([field for field in _manifest_schema(task) if field.name not in made])


def _source(task: Task) -> Source:
    if task.source is None:
        raise ConfigError(f"task {task.name!r} is not a text task: it has no source")
    return task.source
