"""One process at a time on a folder: a lock that dies with its owner, and a record beside it of who that is.

The lock is the operating system's (``filelock``), so a killed owner never keeps it. The record, ``<lock>.json``, says
who holds it and since when, and guards file systems that do not carry locks from one machine to another: a record
left by a process of this machine that is gone is taken over, one of another machine never is.
"""

from __future__ import annotations

import json
import logging
import os
import shlex
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from dept_vl.errors import ConfigError
from dept_vl.system.atomic import hidden_name, is_running, write_json

logger = logging.getLogger(__name__)

ORPHANS_TIMEOUT_S = 15.0
"""Loader workers of a killed owner hold its lock until they notice, a few seconds later."""

_SUFFIX = "in-use"


@dataclass(frozen=True)
class LockOwner:
    """Who holds a lock.

    Attributes:
        pid: Process number.
        host: Name of its machine.
        process_started: When the process began, in the kernel's own units (Linux; "" elsewhere): two processes may
            have one number, after each other. No clock that can be set takes part.
        since: When it took the lock, seconds since the epoch.
        command: What it runs.
    """

    pid: int
    host: str
    process_started: str
    since: float
    command: str

    @classmethod
    def this_process(cls) -> LockOwner:
        """Returns this process, from now on."""
        command = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
        return cls(os.getpid(), socket.gethostname(), _process_started(os.getpid()), time.time(), command)

    @property
    def is_here(self) -> bool:
        """Whether it ran on this machine."""
        return self.host == socket.gethostname()

    @property
    def is_alive(self) -> bool:
        """Whether the process is there; of another machine that cannot be known, so it is."""
        if not self.is_here:
            return True
        return is_running(self.pid) and self.process_started == _process_started(self.pid)

    def __str__(self) -> str:
        age = _format_age(time.time() - self.since)
        return f"process {self.pid} on {self.host} ({self.command}), for {age}"


class OwnedLock:
    """A lock file with its owner's record beside it; taken by one process at a time, without waiting."""

    def __init__(self, path: Path, what: str) -> None:
        """Says which lock; touches no file.

        Args:
            path: The lock file; its folder must exist when the lock is taken.
            what: What it protects, as the start of a sentence for people: ``run folder runs/vqa-dept``.
        """
        self.path = path
        self.what = what
        self._record = path.with_name(f"{path.name}.json")
        self._lock = FileLock(path)

    def acquire(self) -> None:
        """Takes the lock, over from a dead owner where one left its record.

        Raises:
            ConfigError: It is another's; the message names owner and age. Or the disk is full, or read-only.
        """
        deadline = time.monotonic() + ORPHANS_TIMEOUT_S
        while True:
            try:
                self._lock.acquire(timeout=0)
                break
            except Timeout:
                owner = self.owner()
                is_orphaned = owner is not None and not owner.is_alive
                if not is_orphaned or time.monotonic() > deadline:
                    raise ConfigError(self._refusal(owner)) from None
                time.sleep(0.2)
            except OSError as error:
                raise ConfigError(f"{self.what}: cannot be locked: {error.strerror or error}") from None
        try:
            self._take_over()
            write_json(self._record, asdict(LockOwner.this_process()))
        except BaseException:
            self._lock.release()
            raise

    def _take_over(self) -> None:
        left = self.owner()
        if left is None:
            return
        if left.is_alive and left.pid != os.getpid():
            raise ConfigError(self._refusal(left))
        logger.warning("%s: its owner is gone, taking over from %s", self.what, left)

    def _refusal(self, owner: LockOwner | None) -> str:
        holder = str(owner) if owner else "another process"
        hint = "wait for it, stop it, or choose another folder"
        if owner is not None and not owner.is_here:
            hint = f"wait for it; if that process is gone for certain, remove {self._record}"
        return f"{self.what}: in use by {holder}; {hint}"

    def release(self) -> None:
        """Gives the lock back and removes the record; the empty lock file stays, removing it would open a race."""
        if not self._lock.is_locked:
            return
        with suppress(OSError):  # the folder may have been deleted
            self._record.unlink(missing_ok=True)
        self._lock.release()

    def owner(self) -> LockOwner | None:
        """Returns whose record lies beside the lock; None for none, or one that was not written whole."""
        try:
            return LockOwner(**json.loads(self._record.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def refuse_if_taken(self) -> None:
        """Raises if somebody living has the lock, and leaves no file.

        Raises:
            ConfigError: As `acquire`.
        """
        if not self.path.is_file():
            return
        try:
            with self._lock.acquire(timeout=0):
                owner = self.owner()
                if owner is not None and owner.is_alive and owner.pid != os.getpid():
                    raise ConfigError(self._refusal(owner))
        except Timeout:
            owner = self.owner()
            if owner is None or owner.is_alive:
                raise ConfigError(self._refusal(owner)) from None


def folder_lock(folder: Path, what: str) -> OwnedLock:
    """Returns the lock of a folder, ``.<name>.in-use`` beside it: the folder may be replaced while it is held."""
    folder = Path(os.path.realpath(folder))  # one lock however the folder is called
    return OwnedLock(hidden_name(folder, _SUFFIX), what)


@contextmanager
def hold(lock: OwnedLock) -> Iterator[None]:
    """Holds a lock for the block; its folder is made if it is absent.

    Raises:
        ConfigError: As `OwnedLock.acquire`.
    """
    lock.path.parent.mkdir(parents=True, exist_ok=True)
    lock.acquire()
    try:
        yield
    finally:
        lock.release()


def refuse_if_used_inside(folder: Path) -> None:
    """Refuses to replace a folder while a process works on something directly in it.

    Raises:
        ConfigError: One does.
    """
    for path in sorted(folder.glob(f".*.{_SUFFIX}")):
        OwnedLock(path, str(folder)).refuse_if_taken()
    for path in sorted(folder.glob(".*.lock")):
        try:
            FileLock(path).acquire(timeout=0).lock.release()
        except Timeout:
            raise ConfigError(f"{folder}: in use by another process ({path.name} is locked); wait for it") from None


def _process_started(pid: int) -> str:
    """Returns the boot and the clock tick a process began at (Linux), or ""."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""
    return f"{boot} {stat.rpartition(')')[2].split()[19]}"  # field 22; the name before it may hold anything


def _format_age(seconds: float) -> str:
    """Returns an age in one unit; one below 0, after a clock was set back, as 0."""
    seconds = max(0.0, seconds)
    for size, unit in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} seconds"
