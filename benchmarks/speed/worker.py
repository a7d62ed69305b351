"""A contestant in a process of its own: its libraries, its threads, its peak memory.

The parent (`Worker`) sends the name of a workload, a line each; the child does it and answers with a line of JSON. What
libraries print goes to the log file.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Protocol

from benchmarks.speed.harness import Values

_STATUS = Path("/proc/self/status")
_GIB = 2**20  # /proc counts KiB


class Job(Protocol):
    """What a worker does. Everything made in its constructor counts as loaded, not as measured."""

    def run(self, workload: str) -> dict[str, float]:
        """Does the work of one round and returns its values."""


class WorkerError(RuntimeError):
    """A contestant's process ended; the message holds the end of its log."""


class Worker:
    """The parent's side of one contestant's process.

    Attributes:
        log: Where the child's output goes.
    """

    def __init__(self, factory: str, arguments: Mapping[str, Any], log: Path | None = None) -> None:
        """Starts the process; several may load at the same time. `wait` until it is ready.

        Args:
            factory: ``package.module:Class`` of a `Job`.
            arguments: Its keyword arguments, JSON values.
            log: Where the child's output goes; None: a temporary file.
        """
        self.log = log or Path(tempfile.mkstemp(prefix="dept-vl-bench-", suffix=".log")[1])
        threads = str(len(os.sched_getaffinity(0)))
        found = {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}  # what this process can import
        environment = {**os.environ, **found, "OMP_NUM_THREADS": threads, "TOKENIZERS_PARALLELISM": "false"}
        with open(self.log, "w", encoding="utf-8") as log_file:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.speed.worker", factory, json.dumps(arguments)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log_file,
                text=True,
                env=environment,
            )

    def wait(self) -> None:
        """Waits until everything is loaded.

        Raises:
            WorkerError: The process ended.
        """
        self._receive()

    def measure(self, workload: str) -> Values:
        """Does one round of a workload in the child.

        Raises:
            WorkerError: The process ended.
        """
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # the missing answer tells why
            self._process.stdin.write(workload + "\n")
            self._process.stdin.flush()
        return self._receive()

    def close(self) -> None:
        """Ends the process."""
        if self._process.stdin:
            self._process.stdin.close()
        self._process.wait(timeout=60)

    def _receive(self) -> dict[str, float]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            tail = "\n".join(self.log.read_text(encoding="utf-8").splitlines()[-15:])
            raise WorkerError(f"a contestant's process ended (log: {self.log}):\n{tail}")
        answer: dict[str, float] = json.loads(line)
        return answer


def serve(job: Job, orders: IO[str], answers: IO[str]) -> None:
    """The child's side: obeys until the orders end."""
    _answer(answers, {})
    loaded = _memory("VmRSS")
    for line in orders:
        _forget_peak()
        values = job.run(line.strip())
        peak = _memory("VmHWM")
        memory = {} if peak is None or loaded is None else {"peak_gib": peak, "over_loaded_gib": peak - loaded}
        _give_memory_back()
        _answer(answers, {**values, **memory})


def _answer(answers: IO[str], values: Mapping[str, float]) -> None:
    answers.write(json.dumps(values) + "\n")
    answers.flush()


def _memory(field: str) -> float | None:
    """Returns ``VmRSS`` (now) or ``VmHWM`` (most since `_forget_peak`) in GiB; None where the kernel does not say."""
    if not _STATUS.exists():
        return None
    lines = dict(line.split(":", 1) for line in _STATUS.read_text(encoding="utf-8").splitlines() if ":" in line)
    return int(lines[field].split()[0]) / _GIB if field in lines else None


def _forget_peak() -> None:
    """Lets ``VmHWM`` count anew (Linux: proc_pid_clear_refs(5))."""
    path = Path("/proc/self/clear_refs")
    if path.exists():
        path.write_text("5", encoding="ascii")


def _give_memory_back() -> None:
    """Returns what was freed to the system, so that contestants that wait their turn hold little."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc
    if trim is not None:
        trim(0)


def main() -> None:
    """Runs in the child."""
    factory, arguments = sys.argv[1:3]
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print must not look like an answer
    module, name = factory.split(":")
    job: Job = getattr(importlib.import_module(module), name)(**json.loads(arguments))
    serve(job, sys.stdin, answers)


if __name__ == "__main__":
    main()
