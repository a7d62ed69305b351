"""What a benchmark is asked to do."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.speed.harness import Round

logger = logging.getLogger(__name__)

DATA_SETS = ("cola", "sst2", "mrpc")


@dataclass(frozen=True)
class BenchSettings:
    """Settings shared by all benchmarks.

    Attributes:
        work_dir: Scratch folder: backbones, data, runs, logs.
        output_dir: Where plots and tables go; None: nowhere.
        rounds: Interleaved rounds.
        shape: ``"tiny"``, ``"small"``, ``"base"`` or ``"large"``.
        batch_size: Rows a step.
        steps: Optimiser steps a round.
        data_sets: Whose lengths training and evaluation use.
        released: Folder with the released code's ``peft`` package, or None to leave it out.
        before: Another checkout of this repository, for the benchmark ``revision``.
        skip: Contestants to leave out, each by a part of its name.
        only: Rows of the benchmark ``methods``; empty: every one.
    """

    work_dir: Path
    output_dir: Path | None = None
    rounds: int = 5
    shape: str = "small"
    batch_size: int = 32
    steps: int = 2
    data_sets: tuple[str, ...] = DATA_SETS
    released: Path | None = None
    before: Path | None = None
    skip: tuple[str, ...] = ()
    only: tuple[str, ...] = ()

    def wants(self, name: str) -> bool:
        """Returns whether a contestant takes part."""
        return not any(part in name for part in self.skip)

    def has(self, row: str) -> bool:
        """Returns whether a row of ``methods`` is measured."""
        return not self.only or row in self.only

    @property
    def threads(self) -> int:
        """Threads a contestant computes with: the cores this process may use."""
        return len(os.sched_getaffinity(0))

    @property
    def has_gpu(self) -> bool:
        """Whether contestants find a GPU."""
        import torch

        return bool(torch.cuda.is_available())

    @property
    def report_round(self) -> Callable[[int, Round], None]:
        """Logs a round when it is over."""
        return _report_round


def _report_round(number: int, values: Round) -> None:
    rates = ", ".join(
        f"{name} {rate:.3g}/s" for name, one in values.items() for key, rate in one.items() if key.startswith("rate")
    )
    logger.info("round %d: %s", number + 1, rates)
