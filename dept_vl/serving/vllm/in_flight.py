"""How many requests are with the engine, and when all of them are answered. No torch."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from dept_vl.serving.errors import DrainingError, QueueFullError


class InFlight:
    """Counts requests that are being answered; takes no more than it may, and none once it is drained."""

    def __init__(self, most: int) -> None:
        """Starts with none.

        Args:
            most: Requests at once.
        """
        self._most = most
        self._count = 0
        self._is_draining = False
        self._changed = threading.Condition()

    def __len__(self) -> int:
        """Returns how many are being answered."""
        return self._count

    @property
    def is_draining(self) -> bool:
        """Whether it takes nothing new."""
        return self._is_draining

    @contextmanager
    def one_more(self) -> Iterator[None]:
        """Counts one request for the block.

        Raises:
            QueueFullError: There are as many as may be.
            DrainingError: It is being drained.
        """
        with self._changed:
            if self._is_draining:
                raise DrainingError
            if self._count >= self._most:
                raise QueueFullError(self._most)
            self._count += 1
        try:
            yield
        finally:
            with self._changed:
                self._count -= 1
                self._changed.notify_all()

    def drain(self) -> None:
        """Takes nothing new."""
        with self._changed:
            self._is_draining = True

    def join(self, timeout_s: float | None = None) -> bool:
        """Waits until none is left; returns whether that is so."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._count, timeout_s)
