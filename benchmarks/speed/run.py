"""One benchmark by its name: measured, written and described."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.speed.harness import Result
from benchmarks.speed.settings import DATA_SETS, BenchSettings
from benchmarks.speed.table import format_result, to_json
from dept_vl.errors import ConfigError
from dept_vl.registry import suggest
from dept_vl.system.atomic import write_json

_NEEDS = {"training": "peft", "features": "h5py"}
"""Packages of the extra ``bench`` that a benchmark's peers need."""


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
        package = _NEEDS.get(name)
        if package and importlib.util.find_spec(package) is None:
            raise ConfigError(f"{name}: a peer needs {package}; install the extra: pip install -e '.[bench]'")


def run_benchmark(name: str, *, cache_features: Callable[..., Path], **settings: Any) -> str:
    """Measures, writes ``bench-<name>.json`` and returns the tables.

    Args:
        name: ``training``, ``evaluation``, ``captions``, ``vision``, ``features``, ``startup``, ``means``,
            ``growth`` or ``paper-efficiency``.
        cache_features: ``data_prep.cache_features.cache_features``.
        settings: Fields of `BenchSettings`.
    """
    asked = BenchSettings(**settings)
    results = _measure(name, asked, cache_features)
    if asked.output_dir is not None:
        asked.output_dir.mkdir(parents=True, exist_ok=True)
        for result in results:
            file = re.sub(r"[^a-z0-9]+", "-", f"{name}-{result.name}".lower()).strip("-")
            write_json(asked.output_dir / f"bench-{file}.json", to_json(result))
    return "\n\n".join(format_result(result) for result in results)


def _measure(name: str, settings: BenchSettings, cache_features: Callable[..., Path]) -> list[Result]:
    """Imports the one benchmark that is asked for: each has peers of its own."""
    if name == "training":
        from benchmarks.speed.training import measure_training

        return measure_training(settings)
    if name == "evaluation":
        from benchmarks.speed.evaluation import measure_evaluation

        return measure_evaluation(settings)
    if name == "captions":
        from benchmarks.speed.captions import measure_captions

        return measure_captions(settings)
    if name == "vision":
        from benchmarks.speed.vision import measure_vision

        return measure_vision(settings, cache_features)
    if name == "features":
        from benchmarks.speed.features import measure_features

        return measure_features(settings, cache_features)
    if name == "startup":
        from benchmarks.speed.startup import measure_startup

        return measure_startup(settings)
    if name == "means":
        from benchmarks.speed.means import measure_means

        return measure_means(settings)
    if name == "growth":
        from benchmarks.speed.growth import measure_growth

        return measure_growth(settings)
    from benchmarks.speed.paper_efficiency import measure_paper_efficiency

    return measure_paper_efficiency(settings)
