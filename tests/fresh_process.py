"""Processes that have done nothing yet, without the seconds that importing torch takes each of them.

A server imports torch, transformers and this package once, does nothing else, and every process is forked from it:
heap, seeds, threads and settings are those of a program that has just started, whatever ran in the tests before.
"""

import multiprocessing
import os
import threading
from collections.abc import Callable
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from tqdm import tqdm

_CONTEXT = multiprocessing.get_context("forkserver")
_PRELOADED = ["data_prep.cache_features", "dept_vl.experiments.sweep", "dept_vl.training.trainer"]


class FreshProcess:
    """Starts functions of importable modules in processes of their own; what they print goes to a file each."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._count = 0

    def start(self, function: Callable[..., Any], *arguments: Any) -> BaseProcess:
        """Starts ``function(*arguments)``; its result is dropped."""
        self._count += 1
        started = _CONTEXT.Process(target=_work, args=(self._log(), function, arguments))
        started.start()
        return started

    def run(self, function: Callable[..., Any], *arguments: Any, timeout: float = 120) -> int | None:
        """Returns the exit code of ``function(*arguments)``: below 0 a signal's number, 1 an exception."""
        started = self.start(function, *arguments)
        started.join(timeout)
        if started.is_alive():
            started.kill()
        return started.exitcode

    def printed(self) -> str:
        """Returns what the process started last has printed, errors among it."""
        return self._log().read_text(encoding="utf-8", errors="replace")

    def _log(self) -> Path:
        return self._folder / f"{self._count}.log"


def start_server() -> None:
    """Starts the server and returns at once; it imports while others work."""
    _CONTEXT.set_forkserver_preload(_PRELOADED)
    forkserver.ensure_running()


def _work(log: Path, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    with open(log, "w") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    tqdm.set_lock(threading.RLock())  # its lock for several processes is reported as leaked when this one is killed
    function(*arguments)
