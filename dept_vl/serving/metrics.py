"""What ``GET /metrics`` shows, in Prometheus's text format. No torch."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128)


class Histogram:
    """Counts values by upper bounds; not safe for threads by itself."""

    def __init__(self, name: str, text: str, bounds: Sequence[float]) -> None:
        """Takes its name, what it is, and the bounds in rising order."""
        self._name, self._text, self._bounds = name, text, tuple(bounds)
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def add(self, value: float) -> None:
        """Counts a value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def lines(self) -> list[str]:
        """Returns it as text."""
        lines, total = _head(self._name, self._text, "histogram"), 0
        for bound, count in zip((*map(str, self._bounds), "+Inf"), self._counts, strict=True):
            total += count
            lines.append(f'{self._name}_bucket{{le="{bound}"}} {total}')
        return [*lines, f"{self._name}_sum {self._sum}", f"{self._name}_count {total}"]


class Metrics:
    """The numbers of one server; every method may be called from any thread."""

    def __init__(self) -> None:
        """Starts at zero."""
        self._lock = threading.Lock()
        self._requests: Counter[int] = Counter()
        self._hits = 0
        self._misses = 0
        self._discarded = 0
        self._latency = Histogram("dept_vl_request_seconds", "Chat completions: seconds to the answer.", _SECONDS)
        self._batches = Histogram("dept_vl_batch_rows", "Rows of a batch.", _ROWS)
        self._mixed = Histogram("dept_vl_batch_adapters", "Adapters of a batch.", _ROWS)

    def add_request(self, status: int, seconds: float) -> None:
        """Counts a chat completion; the latency of those that were answered."""
        with self._lock:
            self._requests[status] += 1
            if status == 200:
                self._latency.add(seconds)

    def add_batch(self, rows: int, adapters: int) -> None:
        """Counts a batch."""
        with self._lock:
            self._batches.add(rows)
            self._mixed.add(adapters)

    def add_images(self, *, hits: int = 0, misses: int = 0) -> None:
        """Counts images whose features were kept, and images that were encoded."""
        with self._lock:
            self._hits += hits
            self._misses += misses

    def add_discarded(self) -> None:
        """Counts a row whose asker left before it was begun."""
        with self._lock:
            self._discarded += 1

    def text(self, *, queue_length: int, adapters: int) -> str:
        """Returns all numbers.

        Args:
            queue_length: Rows that wait now.
            adapters: Adapters that are served now.
        """
        with self._lock:
            name = "dept_vl_requests_total"
            lines = _head(name, "Chat completions by status; 499: the client left.", "counter")
            lines += [f'{name}{{status="{status}"}} {count}' for status, count in sorted(self._requests.items())]
            for name, text, kind, value in (
                ("dept_vl_queue_length", "Rows that wait.", "gauge", queue_length),
                ("dept_vl_adapters", "Adapters that are served.", "gauge", adapters),
                ("dept_vl_image_cache_hits_total", "Images whose features were kept.", "counter", self._hits),
                ("dept_vl_image_cache_misses_total", "Images that were encoded.", "counter", self._misses),
                ("dept_vl_discarded_total", "Rows whose client left before they began.", "counter", self._discarded),
            ):
                lines += [*_head(name, text, kind), f"{name} {value}"]
            for histogram in (self._latency, self._batches, self._mixed):
                lines += histogram.lines()
        return "\n".join(lines) + "\n"


def _head(name: str, text: str, kind: str) -> list[str]:
    return [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]
