"""What a run measures as it goes: ``metrics.jsonl``, and the same for TensorBoard."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from dept_vl.runs.folder import METRICS_FILE
from dept_vl.system.atomic import naming
from dept_vl.system.file_names import is_utf8

logger = logging.getLogger(__name__)


class RunLog:
    """Appends to a run's metrics; on the main process of a launch only."""

    def __init__(self, run_dir: Path, last_step: int) -> None:
        """Opens the log of a run that has done `last_step` steps; what TensorBoard has after them is hidden."""
        self._path = run_dir / METRICS_FILE
        self._folder = run_dir / "tensorboard"
        self._board: SummaryWriter | None = None
        if not is_utf8(run_dir):
            logger.warning("%r: TensorBoard cannot write to a folder whose name is not UTF-8", str(run_dir))
            return
        with naming(self._folder):
            self._board = SummaryWriter(self._folder, purge_step=last_step + 1)

    def record(self, step: int, values: Mapping[str, float]) -> None:
        """Appends one line.

        Raises:
            OSError: It cannot be written; the error names the file.
        """
        with naming(self._path), open(self._path, "a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")
        if self._board is None:
            return
        with naming(self._folder):
            for name, value in values.items():
                self._board.add_scalar(name, value, step)

    def close(self) -> None:
        """Writes out what TensorBoard still holds.

        Raises:
            OSError: As `record`.
        """
        if self._board is None:
            return
        with naming(self._folder):
            self._board.close()
