"""The Arrow copy of a prepared split, which can be memory-mapped; Parquet is compressed and cannot.

It lies in ``DATA/<task>/.arrow/<split>-<sha256 of the Parquet file>.arrow``. One that is absent (the Parquet file came
alone) or belongs to another Parquet file is made again, after the rows are checked; where the data folder is read-only
it goes to a temporary folder of this process.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from dept_vl.data.manifest_checks import ROWS_PER_BATCH, check_rows
from dept_vl.errors import DataError
from dept_vl.system.atomic import atomic_file
from dept_vl.system.bounded_reading import hash_file
from dept_vl.system.file_names import arrow_name

if TYPE_CHECKING:
    from datasets import Dataset

_FOLDER = ".arrow"
_IS_TEMPORARY: ContextVar[bool] = ContextVar("is_temporary", default=False)


@contextmanager
def temporary_copies() -> Iterator[None]:
    """Lets copies that are made in the block go to a temporary folder, so that the data folder stays as it is."""
    token = _IS_TEMPORARY.set(True)
    try:
        yield
    finally:
        _IS_TEMPORARY.reset(token)


def replace_copy(path: Path) -> None:
    """Makes the copy of a Parquet file that was written anew, in place of those of earlier ones.

    Raises:
        DataError: A row breaks a rule of the manifest; the message names the file and the record.
    """
    cache = path.parent / _FOLDER
    cache.mkdir(exist_ok=True)
    for stale in cache.glob(f"{path.stem}-*.arrow"):
        stale.unlink()
    _write(path, cache / _name(path, hash_file(path)))


def _name(path: Path, digest: str) -> str:
    return f"{path.stem}-{digest[:24]}.arrow"


def _write(path: Path, arrow: Path) -> None:
    """Copies a Parquet file to an Arrow stream batch by batch, checking every row on the way."""
    parquet = pq.ParquetFile(pa.OSFile(arrow_name(path)), page_checksum_verification=True)
    with atomic_file(arrow) as file, pa.ipc.new_stream(file, parquet.schema_arrow) as writer:
        first = 0
        try:
            for batch in parquet.iter_batches(ROWS_PER_BATCH):
                check_rows(batch, path, first)
                writer.write_batch(batch)
                first += batch.num_rows
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{path}: damaged after record {first} ({error}); prepare the task again") from error


def open_copy(path: Path, rows: int, digest: str) -> Dataset:
    """Opens the copy of a Parquet file, memory-mapped, after making it where it is absent or unreadable.

    Args:
        path: The Parquet file.
        rows: How many rows it has.
        digest: Its sha256.

    Raises:
        DataError: A row breaks a rule, or the file is damaged.
    """
    from datasets import Dataset  # costs a second to import; the command line's help must not pay it

    name = _name(path, digest)
    arrow = path.parent / _FOLDER / name
    if arrow.is_file():
        try:
            dataset = Dataset.from_file(arrow_name(arrow))
            if len(dataset) == rows:
                return dataset
        except (pa.ArrowInvalid, OSError):
            pass  # a copy that cannot be read is made again below
    arrow = _writable_cache(path.parent) / name
    _write(path, arrow)
    return Dataset.from_file(arrow_name(arrow))


def _writable_cache(folder: Path) -> Path:
    """Returns the folder for Arrow copies: beside the split, or a temporary one when that is read-only."""
    cache = folder / _FOLDER
    if not _IS_TEMPORARY.get():
        try:
            cache.mkdir(exist_ok=True)
            if os.access(cache, os.W_OK | os.X_OK):
                return cache
        except OSError:
            pass  # a read-only file system: fall through
    temporary = tempfile.mkdtemp(prefix="dept-vl-arrow-")
    atexit.register(_remove_in, os.getpid(), temporary)
    return Path(temporary)


def _remove_in(process: int, folder: str) -> None:
    """Removes `folder` if this is the process that made it; forked loader workers inherit the exit hook."""
    if os.getpid() == process:
        shutil.rmtree(folder, ignore_errors=True)
