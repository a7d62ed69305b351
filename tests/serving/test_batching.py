"""The queue by itself."""

import threading
import time

import pytest

from dept_vl.serving.batching import BatchQueue
from dept_vl.serving.errors import DrainingError, QueueFullError
from dept_vl.serving.image_cache import LeastRecentlyUsed
from dept_vl.serving.metrics import Histogram, Metrics


class Held:
    """Answers with its rows, and holds the first batch back until it is let go."""

    def __init__(self):
        self.go, self.begun, self.batches = threading.Event(), threading.Event(), []

    def __call__(self, rows):
        self.batches.append(list(rows))
        self.begun.set()
        assert self.go.wait(20)
        return list(rows)


def queue_of(answer, **sizes):
    return BatchQueue(answer, key=lambda row: row[0], **{"max_batch": 3, "max_wait_ms": 0, "max_queue": 10, **sizes})


def drained(queue):
    queue.drain()
    assert queue.join(20)


def test_a_batch_takes_what_fits_its_oldest_row_and_keeps_the_order():
    held = Held()
    queue = queue_of(held)
    futures = [queue.submit("a0")]
    assert held.begun.wait(20)
    futures += [queue.submit(row) for row in ("b1", "a2", "b3", "a4", "b5", "b6")]
    held.go.set()
    assert [one.result(20) for one in futures] == ["a0", "b1", "a2", "b3", "a4", "b5", "b6"]
    assert held.batches == [["a0"], ["b1", "b3", "b5"], ["a2", "a4"], ["b6"]]
    drained(queue)


def test_a_row_waits_for_others_as_long_as_it_may_and_no_longer_once_a_batch_is_full():
    held = Held()
    held.go.set()
    queue = queue_of(held, max_wait_ms=60_000)
    futures = [queue.submit(row) for row in ("a1", "a2")]
    time.sleep(0.05)
    assert not held.batches
    futures.append(queue.submit("a3"))
    assert [one.result(20) for one in futures] == ["a1", "a2", "a3"]
    drained(queue)
    queue, began = queue_of(held, max_wait_ms=50), time.monotonic()
    assert queue.submit("a").result(20) == "a"
    assert time.monotonic() - began >= 0.05
    drained(queue)


def test_draining_does_not_wait_for_others():
    held = Held()
    held.go.set()
    queue = queue_of(held, max_wait_ms=60_000)
    future = queue.submit("a")
    drained(queue)
    assert future.result(0) == "a"
    with pytest.raises(DrainingError, match="shutting down"):
        queue.submit("a")


def test_a_full_queue_refuses_and_a_row_that_is_discarded_makes_room():
    held = Held()
    queue = queue_of(held, max_queue=2)
    first = queue.submit("a0")
    assert held.begun.wait(20)
    left, other = queue.submit("a1"), queue.submit("b2")
    with pytest.raises(QueueFullError, match="2 requests are waiting"):
        queue.submit("a3")
    assert queue.discard(left)
    assert not queue.discard(left)
    assert not queue.discard(first)  # it has begun
    last = queue.submit("a3")
    held.go.set()
    assert [one.result(20) for one in (first, other, last)] == ["a0", "b2", "a3"]
    assert left.cancelled()
    assert held.batches == [["a0"], ["b2"], ["a3"]]
    drained(queue)


def test_a_bad_row_fails_alone():
    def answer(rows):
        if "a-bad" in rows:
            raise ValueError("bad")
        return rows

    queue = queue_of(answer, max_wait_ms=60_000)
    futures = [queue.submit(row) for row in ("a1", "a-bad", "a2")]
    assert [futures[0].result(20), futures[2].result(20)] == ["a1", "a2"]
    with pytest.raises(ValueError, match="bad"):
        futures[1].result(20)
    drained(queue)


def test_the_cache_forgets_what_was_not_asked_for_longest():
    cache = LeastRecentlyUsed(2)
    cache.put("a", 1)
    cache.put("b", 2)
    assert cache.get("a") == 1
    cache.put("c", 3)
    assert [cache.get(key) for key in "abc"] == [1, None, 3]
    nothing = LeastRecentlyUsed(0)
    nothing.put("a", 1)
    assert nothing.get("a") is None


def test_metrics_are_prometheus_text():
    histogram = Histogram("rows", "Rows.", (1, 2))
    for value in (1, 2, 2, 5):
        histogram.add(value)
    assert histogram.lines() == [
        "# HELP rows Rows.", "# TYPE rows histogram", 'rows_bucket{le="1"} 1', 'rows_bucket{le="2"} 3',
        'rows_bucket{le="+Inf"} 4', "rows_sum 10.0", "rows_count 4",
    ]  # fmt: skip
    metrics = Metrics()
    metrics.add_request(200, 0.02)
    metrics.add_request(429, 0.0)
    text = metrics.text(queue_length=3, adapters=2)
    assert 'dept_vl_requests_total{status="429"} 1\n' in text
    assert 'dept_vl_request_seconds_bucket{le="0.025"} 1\n' in text
    assert "dept_vl_queue_length 3\n" in text
    assert text.endswith("\n")
