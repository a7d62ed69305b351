"""The benchmarks by name; one of them measured, written and described."""

from __future__ import annotations

import importlib
import importlib.util
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.speed.harness import Result
from benchmarks.speed.settings import DATA_SETS, BenchSettings
from benchmarks.speed.table import format_result, to_json
from dept_vl.errors import ConfigError
from dept_vl.registry import suggest
from dept_vl.system.atomic import write_json


@dataclass(frozen=True)
class Benchmark:
    """Where a benchmark is, so that only the one asked for is imported: each has peers of its own.

    Attributes:
        measure: ``package.module:function`` of a function from `BenchSettings` to a list of `Result`.
        needs: Package of the extra ``bench`` that a peer needs; None: no such peer.
    """

    measure: str
    needs: str | None = None

    def run(self, settings: BenchSettings) -> list[Result]:
        """Imports the benchmark and measures."""
        module, name = self.measure.split(":")
        results: list[Result] = getattr(importlib.import_module(module), name)(settings)
        return results


BENCHMARKS = {
    "training": Benchmark("benchmarks.speed.training:measure_training", needs="peft"),
    "methods": Benchmark("benchmarks.speed.methods:measure_methods", needs="peft"),
    "side-tuning": Benchmark("benchmarks.speed.side_tuning:measure_side_tuning"),
    "folded": Benchmark("benchmarks.speed.folded:measure_folded", needs="peft"),
    "revision": Benchmark("benchmarks.speed.revision:measure_revision"),
    "evaluation": Benchmark("benchmarks.speed.evaluation:measure_evaluation"),
    "captions": Benchmark("benchmarks.speed.captions:measure_captions"),
    "vision": Benchmark("benchmarks.speed.vision:measure_vision"),
    "features": Benchmark("benchmarks.speed.features:measure_features", needs="h5py"),
    "records": Benchmark("benchmarks.speed.records:measure_records"),
    "startup": Benchmark("benchmarks.speed.startup:measure_startup"),
    "means": Benchmark("benchmarks.speed.means:measure_means"),
    "growth": Benchmark("benchmarks.speed.growth:measure_growth"),
    "paper-efficiency": Benchmark("benchmarks.speed.paper_efficiency:measure_paper_efficiency"),
}
"""Name on the command line to benchmark: a new one is a module and a line here."""


def check_request(names: Sequence[str], data_sets: Sequence[str], released: Path | None, rounds: int) -> None:
    """Refuses what cannot be measured, before anything is.

    Raises:
        ConfigError: An unknown data set, no rounds, a folder without the released code, or a package is missing.
    """
    for name in data_sets:
        if name not in DATA_SETS:
            raise ConfigError(
                f"--data-sets: unknown {name!r}{suggest(name, DATA_SETS)} (known: {', '.join(DATA_SETS)})"
            )
    if rounds < 1:
        raise ConfigError(f"--rounds: must be at least 1, got {rounds}")
    if released is not None and not (released / "peft" / "tuners" / "prompt_tuning_lora.py").is_file():
        raise ConfigError(
            f"--released: {released} holds no released DePT code (peft/tuners/prompt_tuning_lora.py); give a checkout "
            "of the authors' repository"
        )
    for name in names:
        package = BENCHMARKS[name].needs
        if package and importlib.util.find_spec(package) is None:
            raise ConfigError(f"{name}: a peer needs {package}; install the extra: pip install -e '.[bench]'")


def run_benchmark(name: str, settings: BenchSettings) -> str:
    """Measures, writes a ``bench-<name>-<result>.json`` a result and returns the tables.

    Args:
        name: One of `BENCHMARKS`.
        settings: What it is asked to do; files are written where `output_dir` is given.
    """
    results = BENCHMARKS[name].run(settings)
    if settings.output_dir is not None:
        settings.output_dir.mkdir(parents=True, exist_ok=True)
        for result in results:
            file = re.sub(r"[^a-z0-9]+", "-", f"{name}-{result.name}".lower()).strip("-")
            write_json(settings.output_dir / f"bench-{file}.json", to_json(result))
    return "\n\n".join(format_result(result) for result in results)
