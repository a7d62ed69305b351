"""The features of the images that were asked about last, by the content of their files."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Generic, TypeVar

Value = TypeVar("Value")


class LeastRecentlyUsed(Generic[Value]):
    """A mapping that forgets what was not asked for longest; safe for threads."""

    def __init__(self, size: int) -> None:
        """Takes the number of entries kept, 0 for none."""
        self._size = size
        self._entries: OrderedDict[str, Value] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: str) -> Value | None:
        """Returns a value, which then is the last one to be forgotten; None where it is not kept."""
        with self._lock:
            if key in self._entries:
                self._entries.move_to_end(key)
            return self._entries.get(key)

    def put(self, key: str, value: Value) -> None:
        """Keeps a value, and forgets one where there are too many."""
        with self._lock:
            self._entries[key] = value
            self._entries.move_to_end(key)
            while len(self._entries) > self._size:
                self._entries.popitem(last=False)
