"""Processes that have done nothing yet, without the seconds that importing torch takes each of them.

A server imports torch, transformers and this package once, does nothing else, and every process is forked from it:
heap, seeds, threads and settings are those of a program that has just started, whatever ran in the tests before.
"""

import multiprocessing
import os
import socket
import sys
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
        """Starts ``function(*arguments)``; a number that it returns is the exit code."""
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

    def run_launch(self, function: Callable[..., Any], *arguments: Any, timeout: float = 120) -> list[int | None]:
        """Returns the exit codes of ``function(*arguments)`` in two processes that find torchrun's variables."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        launch = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
        started = [
            self.start(_work_in_launch, {**launch, "RANK": rank, "LOCAL_RANK": rank}, function, arguments)
            for rank in ("0", "1")
        ]
        for process in started:
            process.join(timeout)
            if process.is_alive():
                process.kill()
                process.join()
        return [process.exitcode for process in started]

    def printed(self) -> str:
        """Returns what the process started last has printed, errors among it."""
        return self._log().read_text(encoding="utf-8", errors="replace")

    def _log(self) -> Path:
        return self._folder / f"{self._count}.log"


def start_server() -> None:
    """Starts the server and returns at once; it imports while others work."""
    _CONTEXT.set_forkserver_preload(_PRELOADED)
    forkserver.ensure_running()


def _work_in_launch(variables: dict[str, str], function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    os.environ.update(variables)
    _call(function, arguments)


def _work(log: Path, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    with open(log, "w") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    tqdm.set_lock(threading.RLock())  # its lock for several processes is reported as leaked when this one is killed
    _call(function, arguments)


def _call(function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    result = function(*arguments)
    if isinstance(result, int):
        sys.exit(result)
