"""The cache of data that are made when they are first asked for: where it lies, and who makes something in it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from dept_vl.errors import DataError, NotMadeError

CACHE_VARIABLE = "DEPT_VL_CACHE"
"""Environment variable that names the cache's folder."""

_LAUNCHERS = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
"""Environment variables for the number of processes in a launch, as accelerate reads them: known without torch."""


def cache_root() -> Path:
    """Returns the cache's folder: ``$DEPT_VL_CACHE``, by default ``~/.cache/dept_vl``."""
    return Path(os.environ.get(CACHE_VARIABLE) or Path("~", ".cache", "dept_vl")).expanduser()


def refuse_making(folder: Path, command: str, *, may_make: bool = True) -> None:
    """Refuses to make something where nothing may be made, or in a launch of several: one makes it before.

    Args:
        folder: Where it would lie.
        command: What makes it too.
        may_make: Whether anything may be made.

    Raises:
        NotMadeError: Nothing may be made.
        DataError: There are several processes.
    """
    if not may_make:
        raise NotMadeError(folder, command)
    if any(os.environ.get(name, "1") != "1" for name in _LAUNCHERS):
        raise DataError(f"{folder}: not made yet, and one process makes it; run {command} without a launcher first")


@contextmanager
def making(folder: Path, doing: str, instead: str = "") -> Iterator[None]:
    """Holds the lock of a folder of the cache; what another process made while this one waited is there in the block.

    Args:
        folder: The folder, which the block makes.
        doing: What the block does, for the message.
        instead: What else one may do, at the end of the message.

    Raises:
        DataError: The cache cannot be written.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.parent / f".{folder.name}.lock"):
            yield
    except OSError as error:
        raise DataError(
            f"{folder}: cannot {doing}: {error.strerror or error}; set {CACHE_VARIABLE} to a folder that can be "
            f"written{instead}"
        ) from error
