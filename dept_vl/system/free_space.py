"""Whether what is to be written fits on the disk."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

from dept_vl.errors import DataError

logger = logging.getLogger(__name__)

_UNITS = (("GiB", 2**30), ("MiB", 2**20))


def show_bytes(number: int) -> str:
    """Returns a size in GiB, a small one in MiB or KiB."""
    for unit, size in _UNITS:
        if number >= size / 10:
            return f"{number / size:,.3g} {unit}"
    return f"{number / 2**10:.3g} KiB"


def check_free_space(folder: Path, needed: int, what: str, remedy: str) -> None:
    """Says how much is about to be written, and refuses what the disk has no room for.

    Args:
        folder: Where to; it is there.
        needed: Bytes.
        what: That are written, for messages.
        remedy: What to do other than to free space.

    Raises:
        DataError: Less is free.
    """
    free = shutil.disk_usage(folder).free
    logger.info("%s: %s to write for %s, %s free", folder, show_bytes(needed), what, show_bytes(free))
    if needed > free:
        raise DataError(
            f"{folder}: {what} need {show_bytes(needed)}, and its disk has {show_bytes(free)} free; free "
            f"{show_bytes(needed - free)}, or {remedy}"
        )
