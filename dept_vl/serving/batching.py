"""One queue and one worker: what waits and fits together is answered as a batch. No torch."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from dept_vl.serving.errors import DrainingError, QueueFullError

logger = logging.getLogger(__name__)

Row = TypeVar("Row")
Result = TypeVar("Result")


@dataclass(eq=False)
class _Waiting(Generic[Row, Result]):
    """A row that waits, since when (`time.monotonic`), and what becomes of it."""

    row: Row
    key: Hashable
    since: float
    future: Future[Result] = field(default_factory=Future)


class BatchQueue(Generic[Row, Result]):
    """Rows are answered in the order they came, but for those that fit the batch of an earlier one.

    A batch begins with the row that has waited longest, and takes further ones of its key, oldest first. It is answered
    as soon as it is full, or once its first row has waited `max_wait_ms`. If a batch fails, its rows are answered one
    by one, so that a bad row fails alone.
    """

    def __init__(
        self,
        answer: Callable[[Sequence[Row]], Sequence[Result]],
        key: Callable[[Row], Hashable],
        *,
        max_batch: int,
        max_wait_ms: float,
        max_queue: int,
    ) -> None:
        """Starts the worker, a thread.

        Args:
            answer: From rows of one key to a result each.
            key: What rows of one batch have in common.
            max_batch: Rows of a batch at most.
            max_wait_ms: How long a row waits for others, in milliseconds.
            max_queue: Rows that wait at most.
        """
        self._answer = answer
        self._key = key
        self._max_batch = max_batch
        self._max_wait_s = max_wait_ms / 1000
        self._max_queue = max_queue
        self._waiting: deque[_Waiting[Row, Result]] = deque()
        self._changed = threading.Condition()
        self._is_draining = False
        self._thread = threading.Thread(target=self._work, name="answers", daemon=True)
        self._thread.start()

    def __len__(self) -> int:
        """Returns how many rows wait."""
        return len(self._waiting)

    @property
    def is_draining(self) -> bool:
        """Whether it takes nothing new."""
        return self._is_draining

    @property
    def is_working(self) -> bool:
        """Whether its worker is there; if not, nothing is ever answered."""
        return self._thread.is_alive()

    def submit(self, row: Row) -> Future[Result]:
        """Returns the result to come.

        Raises:
            QueueFullError: As many rows wait as may.
            DrainingError: It is being drained.
        """
        with self._changed:
            if self._is_draining:
                raise DrainingError
            if len(self._waiting) >= self._max_queue:
                raise QueueFullError(self._max_queue)
            waiting: _Waiting[Row, Result] = _Waiting(row, self._key(row), time.monotonic())
            self._waiting.append(waiting)
            self._changed.notify_all()
        return waiting.future

    def discard(self, future: Future[Result]) -> bool:
        """Takes a row out whose asker has left; returns whether it was still waiting."""
        with self._changed:
            found = next((one for one in self._waiting if one.future is future), None)
            if found is None:
                return False
            self._waiting.remove(found)
            found.future.cancel()
            self._changed.notify_all()
        return True

    def drain(self) -> None:
        """Takes nothing new; the worker ends once everything that waits is answered."""
        with self._changed:
            self._is_draining = True
            self._changed.notify_all()

    def join(self, timeout_s: float | None = None) -> bool:
        """Waits for a drained queue's worker; returns whether it has ended."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _work(self) -> None:
        while batch := self._take():
            rows = [one.row for one in batch]
            for one, result in zip(batch, self._results(rows), strict=True):
                if isinstance(result, BaseException):
                    one.future.set_exception(result)
                else:
                    one.future.set_result(result)

    def _results(self, rows: Sequence[Row]) -> list[Result | BaseException]:
        try:
            found = list(self._answer(rows))
            if len(found) != len(rows):
                raise RuntimeError(f"{len(rows)} rows got {len(found)} answers")
            return [*found]
        except Exception as error:
            if len(rows) == 1:
                return [error]
            logger.warning("a batch of %d rows failed (%s); its rows are answered one by one", len(rows), error)
            return [result for row in rows for result in self._results([row])]

    def _take(self) -> list[_Waiting[Row, Result]]:
        """Waits for a batch and returns it; nothing once the queue is drained and empty."""
        with self._changed:
            while True:
                if not self._waiting:
                    if self._is_draining:
                        return []
                    self._changed.wait()
                    continue
                first = self._waiting[0]
                batch = [one for one in self._waiting if one.key == first.key][: self._max_batch]
                remaining_s = first.since + self._max_wait_s - time.monotonic()
                if len(batch) == self._max_batch or remaining_s <= 0 or self._is_draining:
                    taken = set(map(id, batch))
                    self._waiting = deque(one for one in self._waiting if id(one) not in taken)
                    begun = [one for one in batch if one.future.set_running_or_notify_cancel()]
                    if begun:
                        return begun
                    continue
                self._changed.wait(remaining_s)
