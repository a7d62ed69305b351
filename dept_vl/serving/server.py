"""Runs the application under uvicorn until a signal, and then until everything that waits is answered."""

from __future__ import annotations

import errno
import os
import socket
import threading
from types import FrameType
from typing import Protocol

import uvicorn
from starlette.types import ASGIApp

from dept_vl.errors import ConfigError

_LAST_SECONDS = 10
"""How long clients that are slow to send or to read are waited for, once everything is answered."""


def bind(host: str, port: int) -> socket.socket:
    """Returns a listening socket; port 0 takes a free one. Done before any model is loaded.

    Raises:
        ConfigError: The address is not this machine's, or is taken.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Named as TCP, as asyncio sets TCP_NODELAY on such alone: an answer would wait 40 ms for an acknowledgement.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(1024)
    except (OSError, OverflowError) as error:
        listening.close()
        taken = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
        how = "; --port takes another one, 0 a free one" if taken else ""
        reason = (os.strerror(error.errno) if isinstance(error, OSError) and error.errno else None) or str(error)
        raise ConfigError(f"--host {host} --port {port}: cannot listen there: {reason}{how}") from None
    return listening


def shown_address(listening: socket.socket) -> str:
    """Returns a listening socket's address as it stands in a URL."""
    host, port = listening.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class Queue(Protocol):
    """What waits to be answered, as far as the end of a server goes."""

    @property
    def is_draining(self) -> bool:
        """Whether it takes nothing new."""

    def drain(self) -> None:
        """Takes nothing new."""

    def join(self) -> bool:
        """Waits until all is answered."""


class DrainingServer(uvicorn.Server):
    """Ends, at SIGTERM or SIGINT, once the queue is empty; until then whoever asks anew is answered with 503.

    A second SIGINT ends it at once.
    """

    def __init__(self, queue: Queue, app: ASGIApp, *, last_seconds: int = _LAST_SECONDS) -> None:
        """Takes what answers.

        Args:
            queue: What is drained.
            app: Its HTTP interface.
            last_seconds: How long open connections are waited for, once everything is answered.
        """
        config = uvicorn.Config(
            app, log_config=None, access_log=False, server_header=False, timeout_keep_alive=30,
            timeout_graceful_shutdown=last_seconds,
        )  # fmt: skip
        super().__init__(config)
        self._queue = queue

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begins to drain; uvicorn's own would close the door first and end the process by the signal."""
        if self._queue.is_draining:
            self.force_exit = self.should_exit = True
            return
        threading.Thread(target=self.drain, name="drain", daemon=True).start()

    def drain(self) -> None:
        """Refuses new requests, waits until all that wait are answered, then ends."""
        self._queue.drain()
        self._queue.join()
        self.should_exit = True
