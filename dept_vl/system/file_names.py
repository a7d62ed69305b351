"""Names of files that are not UTF-8, for libraries that open no others (safetensors)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def is_utf8(path: Path) -> bool:
    """Returns whether a path can be written as UTF-8; Linux allows any bytes in a name."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


@contextmanager
def utf8_name(path: Path) -> Iterator[Path]:
    """Yields a name of the file that is UTF-8: its own, or that of a descriptor of it, good for the block.

    Raises:
        OSError: The file cannot be opened.
    """
    if is_utf8(path):
        yield path
        return
    with open(path, "rb") as file:
        yield Path(f"/proc/self/fd/{file.fileno()}")  # only Linux has such names, and it has this folder


def arrow_name(path: Path) -> str | bytes:
    """Returns a path as Arrow opens it: text, or the bytes themselves where they are not UTF-8."""
    return str(path) if is_utf8(path) else os.fsencode(path)
