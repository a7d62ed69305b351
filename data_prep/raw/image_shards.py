"""Pictures that come in shards: webdataset tars, Parquet files with bytes or paths, streamed data sets."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from glob import glob
from pathlib import Path
from typing import Any

from data_prep.raw.row_images import MAX_BYTES, image_content
from data_prep.raw.text_files import open_parquet, read_rows
from dept_vl.data.image_files import IMAGE_SUFFIXES
from dept_vl.errors import DataError, first_line

_TAR_BLOCK = 512  # of which the last ones are zeros

Pictures = Iterator[tuple[str, bytes]]
"""The place of each picture, for messages, and its file."""

_COLUMNS = ("image", "jpg", "png", "webp", "bytes", "img", "image_path", "path")
"""What a column of pictures is called, the first that is there."""


@dataclass(frozen=True)
class ImageShard:
    """One shard of pictures. Loader processes must be able to receive it.

    Attributes:
        name: Tells it from the others; recorded beside what is made of it.
        column: That of the pictures; None where there are no columns.
        num_bytes: Its size; None where nothing says it.
        count: Returns how many pictures it has; None where that is not known before they are read.
        read: Yields them.
    """

    name: str
    column: str | None
    num_bytes: int | None
    count: Callable[[], int | None]
    read: Callable[[], Pictures]


def open_shards(patterns: Sequence[str], *, column: str | None = None, root: Path | None = None) -> list[ImageShard]:
    """Returns the shards of some files, in the order of their names.

    Args:
        patterns: Tars and Parquet files, or patterns of their names (``*``, ``**``).
        column: Of Parquet files, that of the pictures; None for the first of usual names.
        root: What paths in Parquet files start from; None for the file's own folder.

    Raises:
        DataError: A pattern matches nothing, or a file is neither; two have one name; or a Parquet file has no such
            column.
    """
    paths: list[Path] = []
    for pattern in patterns:
        found = sorted(glob(pattern, recursive=True))
        if not found:
            raise DataError(f"--shards {pattern}: no such file; quote a pattern, such as 'shards/*.tar'")
        paths += map(Path, found)
    shards = [_open_file(path, column, root) for path in sorted(dict.fromkeys(paths))]
    names = [shard.name for shard in shards]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"--shards: two files are called {twice}; name them apart, as what is made of them records it")
    return shards


def streamed_shards(dataset: Any, name: str, column: str | None = None) -> list[ImageShard]:
    """Returns the shards of a data set of `datasets` that streams.

    Args:
        dataset: A ``datasets.IterableDataset``.
        name: For messages and records.
        column: That of the pictures; None for the first of usual names.

    Raises:
        DataError: It has no such column.
    """
    import datasets

    chosen = _choose(list(dataset.column_names or ()), column, name)
    if isinstance((dataset.features or {}).get(chosen), datasets.Image):
        dataset = dataset.cast_column(chosen, datasets.Image(decode=False))  # the file as it is, not its pixels
    total = dataset.num_shards
    return [
        ImageShard(
            f"{name}-{number:05d}", chosen, None, _unknown, partial(_read_stream, dataset, name, chosen, total, number)
        )
        for number in range(total)
    ]


def _unknown() -> None:
    return None


def _read_stream(dataset: Any, name: str, column: str, total: int, number: int) -> Pictures:
    for record, row in enumerate(dataset.shard(num_shards=total, index=number)):
        place = f"{name}, shard {number}, record {record}"
        if (content := _picture(row[column], place, Path())) is not None:
            yield place, content


def _open_file(path: Path, column: str | None, root: Path | None) -> ImageShard:
    if path.suffix == ".tar":
        return ImageShard(path.name, None, path.stat().st_size, partial(_count_tar, path), partial(_read_tar, path))
    if path.suffix == ".parquet":
        file = open_parquet(path)
        chosen = _choose(list(file.schema_arrow.names), column, str(path))
        count = partial(int, file.metadata.num_rows)
        read = partial(_read_parquet, path, chosen, root or path.parent)
        return ImageShard(path.name, chosen, path.stat().st_size, count, read)
    raise DataError(f"--shards {path}: is neither NAME.tar (a webdataset's) nor NAME.parquet")


def _choose(columns: Sequence[str], wanted: str | None, where: str) -> str:
    options = _COLUMNS if wanted is None else (wanted,)
    found = next((name for name in options if name in columns), None)
    if found is None:
        raise DataError(
            f"{where}: no column of pictures called {' or '.join(options)}; there are {', '.join(columns)}; "
            "--image-column names it"
        )
    return found


@contextmanager
def _reading(path: Path) -> Iterator[tarfile.TarFile]:
    try:
        with open(path, "rb") as file:
            file.seek(-min(_TAR_BLOCK, path.stat().st_size), os.SEEK_END)
            if len(end := file.read()) < _TAR_BLOCK or any(end):
                raise DataError(f"{path}: does not end as a tar does: cut short, or no tar; fetch it again")
        with tarfile.open(path, "r:") as tar:
            yield tar
    except (tarfile.TarError, OSError, EOFError) as error:
        raise DataError(f"{path}: a tar that is damaged or packed ({first_line(error)}); fetch it again") from error


def _members(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Yields the pictures of a tar, by their names' suffixes."""
    return (member for member in tar if member.isfile() and member.name.lower().endswith(IMAGE_SUFFIXES))


def _count_tar(path: Path) -> int:
    with _reading(path) as tar:
        return sum(1 for _ in _members(tar))


def _read_tar(path: Path) -> Pictures:
    with _reading(path) as tar:
        for member in _members(tar):
            place = f"{path}, {member.name}"
            if member.size > MAX_BYTES:
                raise DataError(f"{place}: image of more than {MAX_BYTES:,} bytes; scale it down")
            file = tar.extractfile(member)
            assert file is not None  # a regular file
            yield place, file.read()


def _read_parquet(path: Path, column: str, root: Path) -> Pictures:
    for place, row in read_rows(path, [column]):
        if (content := _picture(row[column], place, root)) is not None:
            yield place, content


def _picture(value: Any, place: str, root: Path) -> bytes | None:
    """Returns a picture's file, whether its bytes or its path is given; None where a row has none."""
    if isinstance(value, str):
        value = {"bytes": None, "path": str(root / value)}
    try:
        content = image_content(value, None)
    except DataError as error:
        raise DataError(f"{place}: {error}") from None
    assert not isinstance(content, str)  # without a root a path is read
    return content
