"""Reading what loader processes make, so that an error in one of them is told as one in this process is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

from dept_vl.errors import ConfigError, DataError

Made = TypeVar("Made")


def read_loaded(loader: Iterable[Made]) -> Iterator[Made]:
    """Yields what a ``DataLoader`` does.

    torch raises an error of a loader process with its traceback for a message. That message ends with the error's own,
    which is raised in its place. torch's error and the frame that raised it also hold each other, and so the loader:
    without its traceback it is let go, and the processes end. Those that ignore signals (`signals.worker_init`) would
    be waited for without end when this one exits.

    Raises:
        ConfigError, DataError: As a loader process raised it.
    """
    batches = iter(loader)
    try:
        yield from batches
    except (ConfigError, DataError) as error:
        kind = type(error)
        _, is_of_a_process, message = str(error).rpartition(f"\n{kind.__module__}.{kind.__qualname__}: ")
        if not is_of_a_process:
            raise
        error.__traceback__ = None
    else:
        return
    finally:
        del batches
    raise kind(message.rstrip("\n"))  # torch made one of a message too
