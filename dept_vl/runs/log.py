"""What a run measures as it goes: ``metrics.jsonl``, and the same for trackers."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dept_vl.errors import ConfigError
from dept_vl.runs.folder import METRICS_FILE
from dept_vl.system.atomic import naming
from dept_vl.system.extras import is_installed, require_extra
from dept_vl.system.file_names import is_utf8

logger = logging.getLogger(__name__)

TENSORBOARD = "tensorboard"
"""The tracker that writes to a folder of the run, and that folder's name."""

_PROJECT = "dept-vl"
"""What the other trackers, which have a place of their own, file runs under."""


def chosen_trackers(asked: Sequence[str] | None) -> list[str]:
    """Returns the trackers of ``loop.trackers``: those named, or TensorBoard where it is installed.

    Raises:
        ConfigError: One that is named is not installed.
    """
    if asked is None:
        return [TENSORBOARD] if is_installed(TENSORBOARD) else []
    for name in asked:
        require_extra(name, f"loop.trackers: {name!r}")
    return list(dict.fromkeys(asked))


class RunLog:
    """Appends to a run's metrics; on the main process of a launch only."""

    def __init__(self, run_dir: Path, trackers: Sequence[str] | None = None) -> None:
        """Starts the trackers that have a place of their own; nothing is written to the run's folder yet.

        Args:
            run_dir: The run's folder, which need not be there.
            trackers: ``loop.trackers``.

        Raises:
            ConfigError: As `chosen_trackers`; or a tracker does not start, such as one that wants to be logged in to.
        """
        self._path = run_dir / METRICS_FILE
        self._folder = run_dir / TENSORBOARD
        names = chosen_trackers(trackers)
        self._has_board = TENSORBOARD in names
        self._trackers = [_start(name, _PROJECT, name=run_dir.name) for name in names if name != TENSORBOARD]

    def open(self, last_step: int) -> None:
        """Goes on after the `last_step` steps that the run has done; what TensorBoard has after them is hidden.

        Raises:
            OSError: TensorBoard's folder cannot be written.
        """
        if self._has_board and not is_utf8(self._folder):
            logger.warning("%r: TensorBoard cannot write to a folder whose name is not UTF-8", str(self._folder.parent))
        elif self._has_board:
            with naming(self._folder):
                self._trackers.append(_start(TENSORBOARD, TENSORBOARD, self._folder.parent, purge_step=last_step + 1))

    def record(self, step: int, values: Mapping[str, float]) -> None:
        """Appends one line.

        Raises:
            OSError: It cannot be written; the error names the file.
        """
        with naming(self._path), open(self._path, "a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")
        with naming(self._folder):
            for tracker in self._trackers:
                tracker.log(dict(values), step=step)

    def close(self) -> None:
        """Writes out what trackers still hold.

        Raises:
            OSError: As `record`.
        """
        with naming(self._folder):
            for tracker in self._trackers:
                tracker.finish()


def _start(kind: str, /, *arguments: Any, **options: Any) -> Any:
    """Starts one of accelerate's trackers, made with some arguments."""
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    if kind not in LOGGER_TYPE_TO_CLASS:
        raise ConfigError(f"loop.trackers: the accelerate installed here has no tracker {kind!r}; install a newer one")
    tracker = LOGGER_TYPE_TO_CLASS[kind](*arguments, **options)
    try:
        tracker.start()
    except OSError:
        raise
    except Exception as error:  # whatever a service's client raises: no account, no network
        raise ConfigError(f"loop.trackers: {kind!r} does not start: {error}") from error
    return tracker
