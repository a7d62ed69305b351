"""Files and folders that appear whole or not at all.

Everything is written under a temporary name beside its destination, flushed to the disk, and renamed into place; the
folder that holds the name is flushed too. A process killed at any moment leaves the old content or the new one, plus
at most a temporary name (``.<name>.tmp-<pid>-<machine>``), which the next writer of the same thing clears, and
`remove_leftovers`. Removing a folder is one step too.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from dept_vl.errors import ConfigError, DataError

_MAX_STEM_BYTES = 200
"""Of a name that gets something before and after it: file systems allow 255 bytes."""

_HOST = hashlib.sha256(socket.gethostname().encode()).hexdigest()[:6]


def hidden_name(path: Path, suffix: str) -> Path:
    """Returns a hidden name beside `path`, which no reader picks up; the name of a long `path` is cut and hashed."""
    name = os.fsencode(path.name)
    if len(name) > _MAX_STEM_BYTES:
        digest = hashlib.sha256(name).hexdigest()[:12]
        name = name[: _MAX_STEM_BYTES - 16].decode(errors="ignore").encode() + f"-{digest}".encode()
    return path.with_name(f".{os.fsdecode(name)}.{suffix}")


def _temporary_name(path: Path) -> Path:
    """Returns the name under which `path` is written: it says by which process of which machine."""
    return hidden_name(path, f"tmp-{os.getpid()}-{_HOST}")


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Makes an ``OSError`` of the block name `path`: a write on a full disk names no file, or a temporary one.

    Raises:
        OSError: The block's, of its own class and number.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None or (error.filename is not None and ".tmp-" not in os.fsdecode(error.filename)):
            raise
        raise OSError(error.errno, os.strerror(error.errno), str(path)) from error


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
    _remove_those_of_the_dead(path)
    try:
        with naming(path):
            with open(temporary, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
    finally:
        with suppress(OSError):  # of a read-only disk, which has none and refuses even to look
            temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def write_bytes(path: Path, content: bytes) -> None:
    """Writes `content` to `path` in one step."""
    with atomic_file(path) as file:
        file.write(content)


def write_text(path: Path, content: str) -> None:
    """Writes UTF-8 text to `path` in one step; names of files that are not UTF-8 go back to the bytes they are."""
    write_bytes(path, content.encode(errors="surrogateescape"))


def write_json(path: Path, content: Any, *, indent: int | None = 2) -> None:
    """Writes JSON with sorted keys and a final newline to `path` in one step."""
    write_text(path, encode_json(content, indent=indent, sort_keys=True) + "\n")


def encode_json(content: Any, *, indent: int | None = None, sort_keys: bool = False) -> str:
    """Returns JSON that is valid UTF-8: readable text, escaped where a file's name in it is not UTF-8."""
    text = json.dumps(content, indent=indent, sort_keys=sort_keys, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(content, indent=indent, sort_keys=sort_keys)
    return text


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
    _remove_those_of_the_dead(path)
    try:
        with naming(path):
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


def check_output_file(flag: str, path: Path) -> None:
    """Refuses a file that could not be written in the end.

    Args:
        flag: What names it, for the message.
        path: The file.

    Raises:
        ConfigError: It is a folder, there is no folder for it, or that cannot be written into.
    """
    if path.is_dir():
        raise ConfigError(f"{flag} {path}: is a folder")
    if not path.parent.is_dir():
        raise ConfigError(f"{flag} {path}: there is no folder {path.parent}/")
    if not can_be_written(path.parent):
        raise ConfigError(f"{flag} {path}: {path.parent}/ cannot be written into; name a file elsewhere")


def can_be_written(folder: Path) -> bool:
    """Returns whether a folder can be written into; of one that is not there yet, the nearest one above it."""
    nearest = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
    return os.access(nearest, os.W_OK)


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


def remove_folder(folder: Path) -> None:
    """Removes a folder so that no part of it is ever seen without the rest: it loses its name first."""
    doomed = _temporary_name(folder)
    shutil.rmtree(doomed, ignore_errors=True)  # of an earlier process with this number
    os.replace(folder, doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def remove_leftovers(folder: Path, path: Path | None = None) -> None:
    """Removes temporary files that writers killed in `folder` left behind. No such writer may be at work.

    Args:
        folder: Where they lie; need not exist.
        path: Only what was to become this; None: everything.
    """
    start = "." if path is None else hidden_name(path, "tmp-").name
    for leftover in folder.glob(".*.tmp-*"):
        if leftover.name.startswith(start):
            _remove_any(leftover)


def _remove_any(leftover: Path) -> None:
    if leftover.is_dir() and not leftover.is_symlink():
        shutil.rmtree(leftover, ignore_errors=True)
    else:
        leftover.unlink(missing_ok=True)


def _remove_those_of_the_dead(path: Path) -> None:
    """Removes what processes of this machine that are gone have left of `path`; another machine's may be at work."""
    start = hidden_name(path, "tmp-").name
    with suppress(OSError), os.scandir(path.parent) as entries:
        for name in [entry.name for entry in entries if entry.name.startswith(start)]:
            pid, _, host = name.removeprefix(start).partition("-")
            if pid.isdecimal() and host in ("", _HOST) and not is_running(int(pid)):
                _remove_any(path.with_name(name))


def is_running(pid: int) -> bool:
    """Returns whether this machine has a process of that number."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # another user's
    return True
