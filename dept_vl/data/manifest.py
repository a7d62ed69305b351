"""Prepared splits: one Parquet file per split, read memory-mapped through `datasets`.

``DATA/<task>/<split>.parquet`` is the artefact: typed columns, and the task, split and image root in its metadata. A
text task has a folder for each protocol, ``DATA/<task>.<protocol>/``, so that both can lie side by side.
What `open_split` maps is a copy of the rows (`dept_vl.data.arrow_copy`): opening costs one hash of the Parquet file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from dept_vl.data.arrow_copy import open_copy, replace_copy
from dept_vl.data.manifest_checks import ROWS_PER_BATCH, check_columns, check_image_paths, check_numbers, check_rows
from dept_vl.errors import DataError
from dept_vl.system.atomic import atomic_file
from dept_vl.system.bounded_reading import hash_file, parse_json, read_file
from dept_vl.system.file_names import arrow_name
from dept_vl.tasks import Task

if TYPE_CHECKING:
    from datasets import Dataset

METADATA_KEY = b"dept_vl"
STATS = "stats.json"
"""What `dept-vl prepare` counted, and the sha256 of each split it wrote."""


@dataclass(frozen=True)
class SplitInfo:
    """What a split's file says about itself.

    Attributes:
        task: Task name.
        split: ``"train"``, ``"val"`` or ``"test"``.
        image_root: Folder that the column ``image`` is relative to; None for text-only tasks.
        protocol: The protocol a text task was prepared under; None for tasks with one way only.
        rows_key: What the rows depend on of the declaration of a task that is a file; None for other tasks.
    """

    task: str
    split: str
    image_root: str | None = None
    protocol: str | None = None
    rows_key: str | None = None

    @classmethod
    def of(cls, task: Task, split: str, image_root: str | None = None) -> SplitInfo:
        """Returns what the file of a split of a task, under its protocol, is to say."""
        rows_key = None if task.declaration is None else task.declaration.rows_key()
        return cls(task.name, split, image_root, task.protocol, rows_key)

    def __str__(self) -> str:
        protocol = f" under protocol {self.protocol!r}" if self.protocol else ""
        return f"split {self.split!r} of task {self.task!r}{protocol}"


def manifest_schema(
    *, images: bool, num_images: int = 1, text_columns: Sequence[str] = (), list_columns: Sequence[str] = ()
) -> pa.Schema:
    """Returns the columns of a task's rows.

    Every task has ``example_id`` (int64), ``targets`` (strings training draws from), ``target_weights`` (float32 in
    (0, 1], one per target) and ``references`` (strings to score against).

    Args:
        images: Whether rows also have ``image_id`` (int64) and ``image`` (path relative to the image root).
        num_images: Images of a row; of several, both columns are lists of so many, in the order the model reads them.
        text_columns: Names of further string columns: the task's inputs, and labels that scores are broken down by.
        list_columns: Names of input columns that hold several strings.
    """
    fields = [pa.field("example_id", pa.int64(), nullable=False)]
    if images:
        kinds = {"image_id": pa.int64(), "image": pa.string()}
        fields += [pa.field(name, _of_several(kind, num_images), nullable=False) for name, kind in kinds.items()]
    fields += [pa.field(name, pa.string(), nullable=False) for name in text_columns]
    strings = pa.list_(pa.field("element", pa.string(), nullable=False))
    fields += [pa.field(name, strings, nullable=False) for name in list_columns]
    weights = pa.list_(pa.field("element", pa.float32(), nullable=False))
    fields += [
        pa.field("targets", strings, nullable=False),
        pa.field("target_weights", weights, nullable=False),
        pa.field("references", strings, nullable=False),
    ]
    return pa.schema(fields)


def _of_several(kind: pa.DataType, number: int) -> pa.DataType:
    return kind if number == 1 else pa.list_(pa.field("element", kind, nullable=False), number)


def task_folder(data_dir: Path, task: Task) -> Path:
    """Returns the folder of a prepared task: ``DATA/<task>``, of one under a protocol ``DATA/<task>.<protocol>``."""
    return data_dir / (task.name if task.protocol is None else f"{task.name}.{task.protocol}")


def split_path(data_dir: Path, task: Task, split: str) -> Path:
    """Returns where a split's Parquet file lies, of a task under its protocol."""
    return task_folder(data_dir, task) / f"{split}.parquet"


def write_split(folder: Path, info: SplitInfo, schema: pa.Schema, rows: Iterable[Mapping[str, Any]]) -> int:
    """Writes one split, Parquet and Arrow copy, each in one step; the same rows give the same bytes.

    Args:
        folder: The task's folder; must exist.
        info: What the file says about itself.
        schema: From `manifest_schema`.
        rows: Column name to value, one mapping a row; read once, in batches.

    Returns:
        The number of rows written.

    Raises:
        DataError: A row breaks a rule of the schema; the message names the file and the record.
    """
    path = folder / f"{info.split}.parquet"
    schema = schema.with_metadata({METADATA_KEY: json.dumps(_described(info), sort_keys=True).encode()})
    options = {"compression": "zstd", "write_page_checksum": True}
    with atomic_file(path) as file, pq.ParquetWriter(file, schema, **options) as writer:
        count = 0
        for batch in _batches(rows, schema, path):
            check_rows(batch, path, count)
            writer.write_batch(batch)
            count += batch.num_rows
    replace_copy(path)
    return count


def _described(info: SplitInfo) -> dict[str, Any]:
    described = asdict(info)
    if info.rows_key is None:
        del described["rows_key"]
    return described


def open_split(data_dir: Path, task: Task, split: str) -> Dataset:
    """Opens a prepared split, memory-mapped: rows are read from disk when asked for.

    Args:
        data_dir: The folder `dept-vl prepare` wrote to.
        task: The task, under its protocol.
        split: ``"train"``, ``"val"`` or ``"test"``.

    Raises:
        DataError: The file is missing, is not a Parquet file, is for another task, split or protocol, lacks a column,
            was altered since it was prepared, has a row that breaks a rule, or holds no rows.
    """
    path, parquet, digest = _open_checked(data_dir, task, split)
    return open_copy(path, parquet.metadata.num_rows, digest)


def _open_checked(data_dir: Path, task: Task, split: str) -> tuple[Path, pq.ParquetFile, str]:
    """Returns a split's path, its file and the file's sha256, checked as `open_split` does, but for the rows."""
    path = split_path(data_dir, task, split)
    parquet = _open_parquet(path, task)
    info, wanted = split_info(data_dir, task, split), SplitInfo.of(task, split)
    if (info.task, info.split, info.protocol) != (task.name, split, task.protocol):
        raise DataError(f"{path}: holds {info}, expected {wanted}; the file was renamed or moved")
    if info.rows_key != wanted.rows_key:
        raise DataError(
            f"{path}: was prepared by another declaration of task {task.name!r} (its columns, labels or split rule "
            "differ); prepare the task again, or give the declaration it was prepared by"
        )
    check_columns(parquet.schema_arrow, path, task.input_columns, num_images=task.num_images)
    if parquet.metadata.num_rows == 0:
        raise DataError(f"{path}: the split is empty; the raw files hold no example of it (see stats.json beside it)")
    digest = hash_file(path)
    _check_digest(path, digest)
    return path, parquet, digest


def hash_rows(data_dir: Path, task: Task, split: str) -> str:
    """Returns the sha256 of a split's rows, in hexadecimal: the same wherever they were prepared.

    The Parquet file's own hash depends on the folder of the images, which its metadata name. Every column counts but
    ``image``, which says where an image lies; ``image_id`` says which it is.

    Raises:
        DataError: As `open_split`.
    """
    path, parquet, _ = _open_checked(data_dir, task, split)
    columns = [name for name in parquet.schema_arrow.names if name != "image"]
    digest = hashlib.sha256()
    for row in _read_rows(path, parquet, columns):
        digest.update(json.dumps(row, sort_keys=True).encode() + b"\n")
    return digest.hexdigest()


def _read_rows(path: Path, parquet: pq.ParquetFile, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yields some columns of every row of a split, after checking its targets and those columns."""
    first = 0
    try:
        for batch in parquet.iter_batches(ROWS_PER_BATCH, columns=[*{*columns, "targets", "target_weights"}]):
            check_rows(batch, path, first)
            yield from batch.select(columns).to_pylist()
            first += batch.num_rows
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{path}: damaged after record {first} ({error}); prepare the task again") from error


OWN_ID = "id"
"""Column of the ids of rows of one's own, where those are no whole numbers; rows are numbered then."""

REFERENCE_COLUMNS = ("example_id", "references", "answer_type", "question_type", "group")
"""What evaluators need of a row, where a task has it."""


def read_references(data_dir: Path, task: Task, split: str, *, limit: int | None = None) -> list[dict[str, Any]]:
    """Returns `REFERENCE_COLUMNS` of the rows of a split, in order, without opening it for training.

    Args:
        data_dir: Prepared data.
        task: The task, under its protocol.
        split: ``"train"``, ``"val"`` or ``"test"``.
        limit: Only the first so many rows.

    Raises:
        DataError: As `open_split`.
    """
    path, parquet, _ = _open_checked(data_dir, task, split)
    columns = [name for name in REFERENCE_COLUMNS if name in parquet.schema_arrow.names]
    return list(islice(_read_rows(path, parquet, columns), limit))


def has_targets(data_dir: Path, task: Task, split: str, *, limit: int | None = None) -> bool:
    """Returns whether any row of a split has a target; arguments and errors are those of `read_references`."""
    path, parquet, _ = _open_checked(data_dir, task, split)
    return any(row["targets"] for row in islice(_read_rows(path, parquet, ["targets"]), limit))


def is_complete(data_dir: Path, task: Task, split: str) -> bool:
    """Returns whether a split is the complete one: `dept-vl prepare` compared its counts with the data set's own.

    Rows of one's own, drawn scenes and data without the record of their preparation are not.
    """
    try:
        stats = parse_json(read_file(task_folder(data_dir, task) / STATS))
        return stats["is_subset"] is False and split in stats["expected"]
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _check_digest(path: Path, digest: str) -> None:
    """Compares a split with what `dept-vl prepare` recorded beside it; files that came without a record pass."""
    stats = path.parent / STATS
    if not stats.exists():
        return
    try:
        recorded = parse_json(read_file(stats)).get("files", {}).get(path.stem, digest)
    except (OSError, ValueError, AttributeError) as error:
        raise DataError(f"{stats}: damaged ({error}); prepare the task again") from None
    if recorded != digest:
        raise DataError(
            f"{path}: sha256 is {digest}, {STATS} beside it says {recorded}: altered or damaged since it was prepared; "
            "prepare the task again"
        )


def split_info(data_dir: Path, task: Task, split: str) -> SplitInfo:
    """Reads what a split's file says about itself: task, split, image root and protocol.

    Raises:
        DataError: The file is missing, is not a Parquet file, or was not written by `write_split`.
    """
    path = split_path(data_dir, task, split)
    metadata = _open_parquet(path, task).schema_arrow.metadata or {}
    try:
        return SplitInfo(**parse_json(metadata[METADATA_KEY]))
    except (KeyError, ValueError, TypeError) as error:
        raise DataError(
            f"{path}: has no dept_vl metadata, so it was not written by `dept-vl prepare`; prepare the task again"
        ) from error


def split_images(data_dir: Path, task: Task, split: str) -> dict[int, str]:
    """Returns the image path of every image id of a split, in order of first appearance; empty for an empty split.

    Raises:
        DataError: The file is missing or damaged, has no images, or gives an image two paths.
    """
    path = split_path(data_dir, task, split)
    parquet = _open_parquet(path, task)
    check_columns(parquet.schema_arrow, path)
    if "image" not in parquet.schema_arrow.names:
        raise DataError(f"{path}: has no column 'image': task {task.name!r} is text only")
    images: dict[int, str] = {}
    first = 0
    try:
        for batch in parquet.iter_batches(ROWS_PER_BATCH, columns=["image_id", "image"]):
            check_image_paths(batch["image"], path, first)
            for record, (ids, paths) in enumerate(zip(*(c.to_pylist() for c in batch.columns), strict=True)):
                for image_id, image in zip(as_list(ids), as_list(paths), strict=True):
                    if images.setdefault(image_id, image) != image:
                        two = f"{image!r} here and {images[image_id]!r} above"
                        raise DataError(f"{path}, record {first + record}: image {image_id} is {two}")
            first += batch.num_rows
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: damaged after record {first} ({error}); prepare the task again") from error
    return images


def as_list(value: Any) -> list[Any]:
    """Returns what ``image_id`` or ``image`` of a row holds as a list: of one image, one without a list around it."""
    return value if isinstance(value, list) else [value]


def _open_parquet(path: Path, task: Task) -> pq.ParquetFile:
    if not path.is_file():
        option = f" --protocol {task.protocol}" if task.protocol else ""
        raw = f"--task {task.name}.yaml --rows ROWS" if task.is_own else f"--task {task.name}{option} --raw RAW"
        others = sorted(other.parent.name for other in path.parent.parent.glob(f"{task.name}.*/{path.name}"))
        there = f" (there is {', '.join(others)}: another protocol, see data.protocol)" if others else ""
        raise DataError(f"{path}: no such prepared split{there}; run: dept-vl prepare {raw} --out DATA")
    try:
        return pq.ParquetFile(pa.OSFile(arrow_name(path)), page_checksum_verification=True)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{path}: not a complete Parquet file ({error}); prepare the task again") from error


def _batches(rows: Iterable[Mapping[str, Any]], schema: pa.Schema, path: Path) -> Iterator[pa.RecordBatch]:
    """Groups rows into record batches, so that a long split is never whole in memory."""
    remaining = iter(rows)
    first = 0
    while chunk := list(islice(remaining, ROWS_PER_BATCH)):
        try:
            yield pa.RecordBatch.from_pylist(chunk, schema=schema)
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            check_numbers(chunk, schema, path, first)
            raise DataError(f"{path}, records {first} to {first + len(chunk) - 1}: {error}") from error
        first += len(chunk)
