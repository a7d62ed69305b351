"""Contestants in processes of their own."""

import pytest

from benchmarks.speed.competition import Entry, compete
from benchmarks.speed.settings import BenchSettings
from benchmarks.speed.worker import Worker, WorkerError

ECHO, BROKEN = "tests.benchmarks.speed.echo_job:Echo", "tests.benchmarks.speed.echo_job:Broken"


def test_a_worker_answers_with_values_and_its_peak_memory_whatever_libraries_print(tmp_path):
    worker = Worker(ECHO, {"factor": 3.0}, tmp_path / "log")
    worker.wait()
    values = worker.measure("2")
    worker.close()
    assert values["rate"] == 6.0
    assert values["peak_gib"] >= values["over_loaded_gib"] >= 0
    assert "while working" in (tmp_path / "log").read_text()


def test_a_worker_that_ends_is_reported_with_its_log(tmp_path):
    worker = Worker(BROKEN, {}, tmp_path / "log")
    with pytest.raises(WorkerError, match="no such model here"):
        worker.wait()


def test_a_constant_contestant_does_the_first_workload_and_stands_for_all(tmp_path):
    entries = [Entry("each", ECHO, {"factor": 1.0}), Entry("once", ECHO, {"factor": 10.0}, is_constant=True)]
    rounds = compete(entries, ["1", "5"], BenchSettings(tmp_path, rounds=2))
    assert [one["each"]["rate"] for one in rounds["5"]] == [5.0, 5.0]
    assert [one["once"]["rate"] for one in rounds["5"]] == [10.0, 10.0]
    assert rounds["1"][0]["each"]["rate"] == 1.0


def test_skipped_contestants_are_not_even_started(tmp_path):
    entries = [Entry("each", ECHO, {"factor": 1.0}), Entry("broken", BROKEN, {})]
    assert list(compete(entries, ["1"], BenchSettings(tmp_path, rounds=1, skip=("bro",)))["1"][0]) == ["each"]
