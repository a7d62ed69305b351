"""What a run measures as it goes: ``metrics.jsonl``, and the same for TensorBoard."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from dept_vl.atomic import naming
from dept_vl.run_folder import METRICS_FILE


class RunLog:
    """Appends to a run's metrics; on the main process of a launch only."""

    def __init__(self, run_dir: Path, last_step: int) -> None:
        """Opens the log of a run that has done `last_step` steps; what TensorBoard has after them is hidden."""
        self._path = run_dir / METRICS_FILE
        self._folder = run_dir / "tensorboard"
        with naming(self._folder):
            self._board = SummaryWriter(self._folder, purge_step=last_step + 1)

    def record(self, step: int, values: Mapping[str, float]) -> None:
        """Appends one line.

        Raises:
            OSError: It cannot be written; the error names the file.
        """
        with naming(self._path), open(self._path, "a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")
        with naming(self._folder):
            for name, value in values.items():
                self._board.add_scalar(name, value, step)

    def close(self) -> None:
        """Writes out what TensorBoard still holds.

        Raises:
            OSError: As `record`.
        """
        with naming(self._folder):
            self._board.close()
