"""Ctrl-C and SIGTERM: stop at once where nothing is lost, at the next step where a checkpoint is to be written first.

Nothing here does anything until the command line calls `listen`; a program that uses the package keeps its own
handlers. Forked loader workers inherit the handlers and ignore the signals: their parent tells them when to end.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StoppedError(KeyboardInterrupt):
    """The process was asked to stop by a signal.

    A `KeyboardInterrupt`, so that nothing that handles errors takes it for one.

    Attributes:
        number: The signal.
        done: What was done about it, in words; "" for nothing.
        is_resumable: Whether the command got as far as a folder that ``--resume`` goes on with.
    """

    def __init__(self, number: int, done: str = "") -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number
        self.done = done
        self.is_resumable = _STATE.is_resumable

    @property
    def exit_code(self) -> int:
        """128 + the signal's number, as shells report it: 130 for SIGINT, 143 for SIGTERM."""
        return 128 + self.number


class _State:
    """What this process was asked. One per process, as signal handlers are."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.listener: int | None = None  # the process that listens; a fork of it does not
        self.is_deferring = False
        self.requested: int | None = None
        self.is_resumable = False


_STATE = _State()


def _handle(number: int, _frame: FrameType | None) -> None:
    if os.getpid() != _STATE.listener:
        return
    # A launcher passes Ctrl-C on to processes that had it from the terminal already, so only a process of its own
    # takes a second one as impatience.
    is_impatient = _STATE.requested is not None and number == signal.SIGINT and "WORLD_SIZE" not in os.environ
    if _STATE.is_deferring and not is_impatient:
        _STATE.requested = _STATE.requested or number
        return
    raise StoppedError(number)


@contextmanager
def listen() -> Iterator[None]:
    """Turns SIGINT and SIGTERM into `StoppedError` for the block; puts the earlier handlers back after it.

    Outside the main thread, where Python allows no handlers, it does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    earlier = {number: signal.signal(number, _handle) for number in _SIGNALS}
    _STATE.reset()
    _STATE.listener = os.getpid()
    try:
        yield
    finally:
        _STATE.reset()
        for number, handler in earlier.items():
            signal.signal(number, handler)


def is_listening() -> bool:
    """Returns whether this process has `listen` at work."""
    return _STATE.listener == os.getpid()


@contextmanager
def deferring() -> Iterator[None]:
    """Only takes note of a signal during the block, for `requested` to tell; one Ctrl-C after another stops at once."""
    before, _STATE.is_deferring = _STATE.is_deferring, True
    try:
        yield
    finally:
        _STATE.is_deferring = before


def requested() -> int | None:
    """Returns the signal that asked to stop while it was deferred, or None."""
    return _STATE.requested


def mark_resumable() -> None:
    """Says that from here on the command can be gone on with by ``--resume``."""
    _STATE.is_resumable = True


def is_resumable() -> bool:
    """Returns whether the command can be gone on with by ``--resume``."""
    return _STATE.is_resumable


def worker_init() -> Callable[[int], None] | None:
    """Returns what loader workers that must outlive a deferred signal start with; None where none is deferred."""
    return _ignore_in_worker if is_listening() and _STATE.is_deferring else None


def _ignore_in_worker(_worker: int) -> None:
    """Makes a loader worker ignore the signals (a ``worker_init_fn``): a cluster sends them to every process.

    The worker still ends with its parent, which asks it to by other means and whose death it notices.
    """
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
