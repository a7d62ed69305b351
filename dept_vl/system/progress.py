"""How far long work has got: a bar on a terminal, a plain line now and then in a file. The one place that shows it."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any

from dept_vl.system.memory import describe_peak

if TYPE_CHECKING:
    from tqdm import tqdm

logger = logging.getLogger(__name__)

LINE_EVERY_S = 60.0
"""Seconds between the plain lines of a piece of work."""

_SWITCH = "TQDM_DISABLE"


def is_terminal() -> bool:
    """Returns whether somebody sees the progress as it comes: standard error is a terminal."""
    return sys.stderr is not None and not sys.stderr.closed and sys.stderr.isatty()


@contextmanager
def no_bars_in_files() -> Iterator[None]:
    """Keeps libraries from drawing bars for the block where standard error is no terminal: tqdm reads this variable."""
    before = os.environ.get(_SWITCH)
    if not is_terminal():
        os.environ.setdefault(_SWITCH, "1")
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(_SWITCH, None)


class Meter:
    """Counts what is done and shows it; a context manager."""

    def __init__(
        self,
        total: int,
        label: str,
        unit: str,
        *,
        initial: int = 0,
        is_shown: bool = True,
        has_notes: bool = False,
        stays: bool = True,
    ) -> None:
        """Starts counting.

        Args:
            total: How much there is to do.
            label: What is done.
            unit: What is counted, in the plural.
            initial: How much was done before.
            is_shown: Whether this process shows it.
            has_notes: Whether plain lines come with the notes alone, the first one at once.
            stays: Whether a finished bar stays on the terminal.
        """
        self._total, self._label, self._unit = total, label, unit
        self._initial = self._done = initial
        self._notes: Mapping[str, str] = {}
        self._is_shown, self._has_notes = is_shown, has_notes
        self._started = time.monotonic()
        self._next_line = self._started if has_notes else self._started + LINE_EVERY_S
        self._next_memory = self._started
        self._bar: tqdm[Any] | None = None
        if is_shown and is_terminal():
            from tqdm import tqdm

            self._bar = tqdm(
                total=total, initial=initial, desc=label, unit=f" {unit}", leave=stays, mininterval=1.0, smoothing=0.05
            )

    def add(self, count: int = 1) -> None:
        """Counts what has been done since."""
        self._done += count
        if self._bar is not None:
            self._show_memory()
            self._bar.update(count)
        elif not self._has_notes:
            self._write_line()

    def note(self, **values: str) -> None:
        """Says more about the work, such as its loss; kept until the next note."""
        self._notes = values
        if self._bar is not None:
            self._next_memory = 0.0
            self._show_memory()
        else:
            self._write_line()

    def say(self, text: str) -> None:
        """Prints a line of its own, above the bar where there is one."""
        if self._bar is not None:
            self._bar.write(text, file=sys.stderr)
        elif self._is_shown:
            logger.info("%s", text)

    def close(self) -> None:
        """Ends the bar."""
        if self._bar is not None:
            self._bar.close()

    def __enter__(self) -> Meter:
        """Returns itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends the bar."""
        self.close()

    def _show_memory(self) -> None:
        """Puts notes and peak memory behind the bar, once a second or where there are new notes."""
        now = time.monotonic()
        if self._bar is not None and now >= self._next_memory:
            self._next_memory = now + 1.0
            self._bar.set_postfix({**self._notes, "memory": describe_peak()}, refresh=False)

    def _write_line(self) -> None:
        """Logs how far the work is, if the last line is long enough ago."""
        now = time.monotonic()
        if not self._is_shown or now < self._next_line:
            return
        self._next_line = now + LINE_EVERY_S
        parts = [f"{self._done:,} of {self._total:,} {self._unit}"]
        parts += [f"{name} {value}" for name, value in self._notes.items()]
        if self._done > self._initial:
            passed, done = max(now - self._started, 1e-9), self._done - self._initial
            if not self._has_notes:  # which say themselves how fast it goes
                parts.append(f"{done / passed:,.{0 if done >= 10 * passed else 1}f} {self._unit}/s")
            parts.append(f"{format_seconds(passed * (self._total - self._done) / done)} left")
        parts.append(f"memory {describe_peak()}")
        logger.info("%s: %s", self._label, ", ".join(parts))


def format_seconds(seconds: float) -> str:
    """Returns a time for people, in the largest unit it has two of."""
    for size, unit in ((86_400, "days"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
