"""A checkout's own command line in a `benchmarks.speed.worker` process: all that two revisions have in common."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


class CommandLine:
    """``dept-vl train`` of a checkout. Nothing of ``dept_vl`` may be imported in this process before."""

    def __init__(
        self, checkout: str, backbone: str, works: dict[str, Any], batch_size: int, run_dir: str,
        settings: dict[str, Any],
    ) -> None:  # fmt: skip
        """Imports the checkout's package.

        Args:
            checkout: Root of the repository.
            backbone: T5 folder.
            works: Workload to its saved `TextWork`.
            batch_size: Rows a step.
            run_dir: Run folder, made anew every round.
            settings: Dotted settings, names that both revisions know.
        """
        self._works = works
        self._run_dir = Path(run_dir)
        own = {"model.backbone": backbone, "data.batch_size": batch_size, "loop.eval_rows": batch_size}
        self._settings = {**own, **settings}
        self._main = _command_line(Path(checkout))

    def run(self, workload: str) -> dict[str, float]:
        """Trains, and returns what the run recorded of itself: the loop alone, without loading and evaluation."""
        work = self._works[workload]
        settings = {**self._settings, "data.dir": work["data_dir"], "seed": work["seed"]}
        options = [text for key, value in settings.items() for text in (f"--{key}", str(value))]
        command = ["train", "--task", work["task"], "--output-dir", str(self._run_dir), "--overwrite", *options]
        if self._main(command) != 0:
            raise RuntimeError(f"dept-vl {' '.join(command)} failed; see above")
        lines = (self._run_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        record = next(row for row in map(json.loads, lines) if "samples_per_s" in row)
        return {"rate": record["samples_per_s"]}


def _command_line(checkout: Path) -> Callable[[list[str]], int]:
    assert "dept_vl" not in sys.modules
    sys.path.insert(0, str(checkout))
    from dept_vl import cli

    assert Path(cli.__file__).is_relative_to(checkout)
    return cli.main
