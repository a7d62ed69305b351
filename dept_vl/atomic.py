"""Files and folders that appear whole or not at all.

Everything is written under a temporary name beside its destination, flushed to the disk, and renamed into place; the
folder that holds the name is flushed too. A process killed at any moment leaves the old content or the new one, plus
at most a temporary name (``.<name>.tmp-<pid>``) that `remove_leftovers` clears.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from dept_vl.errors import DataError


def _temporary_name(path: Path) -> Path:
    """Returns the name under which `path` is written; hidden, so that no reader picks it up."""
    return path.with_name(f".{path.name}.tmp-{os.getpid()}")


def sync_folder(folder: Path) -> None:
    """Flushes a folder's list of names to the disk; without it a rename may be lost in a power cut."""
    if os.name == "nt":  # Windows cannot open a folder for this
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def atomic_file(path: Path) -> Iterator[IO[bytes]]:
    """Yields a binary file that becomes `path` when the block ends without an error.

    The folder must exist. The new file gets the permissions an ordinary ``open`` would give it.
    """
    temporary = _temporary_name(path)
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        if error.filename is None:  # a write that fails, on a full disk say, does not name its file
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def write_bytes(path: Path, content: bytes) -> None:
    """Writes `content` to `path` in one step."""
    with atomic_file(path) as file:
        file.write(content)


def write_text(path: Path, content: str) -> None:
    """Writes UTF-8 text to `path` in one step."""
    write_bytes(path, content.encode())


def write_json(path: Path, content: Any, *, indent: int | None = 2) -> None:
    """Writes JSON with sorted keys and a final newline to `path` in one step."""
    write_text(path, json.dumps(content, indent=indent, sort_keys=True, ensure_ascii=False) + "\n")


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yields an empty folder that becomes `path` when the block ends without an error.

    On an error nothing of it stays. Parents of `path` are created.

    Raises:
        DataError: `path` exists and is not an empty folder.
    """
    refuse_existing(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary_name(path)
    try:
        temporary.mkdir()
        yield temporary
        for parent, _, names in os.walk(temporary):
            for name in names:
                with open(os.path.join(parent, name), "rb") as file:
                    os.fsync(file.fileno())
            sync_folder(Path(parent))
        refuse_existing(path)
        os.replace(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    sync_folder(path.parent)


def refuse_existing(path: Path) -> None:
    """Checks that output may go to the folder `path`: it is absent or empty.

    Raises:
        DataError: `path` is a file or a folder with something in it.
    """
    if path.is_dir() and not any(path.iterdir()):
        return
    if path.exists() or path.is_symlink():
        what = "the output folder is not empty" if path.is_dir() else "the output is to be a folder, this is a file"
        raise DataError(f"{path}: {what}; remove it or choose another place")


def remove_leftovers(folder: Path) -> None:
    """Removes temporary files that writers killed in `folder` left behind. No writer may be at work there."""
    for leftover in folder.glob(".*.tmp-*"):
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)
