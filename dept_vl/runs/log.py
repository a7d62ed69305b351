"""What a run measures as it goes: ``metrics.jsonl``, and the same for TensorBoard."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dept_vl.runs.folder import METRICS_FILE
from dept_vl.runs.trackers import TENSORBOARD, start_tracker
from dept_vl.system.atomic import naming
from dept_vl.system.file_names import is_utf8

logger = logging.getLogger(__name__)


class RunLog:
    """Appends to a run's metrics; on the main process of a launch only."""

    def __init__(self, run_dir: Path, last_step: int = 0, *, has_board: bool = False) -> None:
        """Goes on after the `last_step` steps that the run has done; what TensorBoard has after them is hidden.

        Args:
            run_dir: The run's folder.
            last_step: As said.
            has_board: Whether TensorBoard gets the same numbers.

        Raises:
            OSError: TensorBoard's folder cannot be written.
        """
        self._path = run_dir / METRICS_FILE
        self._folder = run_dir / TENSORBOARD
        self._board: Any = None
        if has_board and not is_utf8(self._folder):
            logger.warning("%r: TensorBoard cannot write to a folder whose name is not UTF-8", str(run_dir))
        elif has_board:
            with naming(self._folder):
                self._board = start_tracker(TENSORBOARD, TENSORBOARD, run_dir, purge_step=last_step + 1)

    def record(self, step: int, values: Mapping[str, float]) -> None:
        """Appends one line.

        Raises:
            OSError: It cannot be written; the error names the file.
        """
        with naming(self._path), open(self._path, "a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")
        if self._board:
            with naming(self._folder):
                self._board.log(dict(values), step=step)

    def close(self) -> None:
        """Writes out what TensorBoard still holds.

        Raises:
            OSError: As `record`.
        """
        if self._board:
            with naming(self._folder):
                self._board.finish()
