"""The benchmarks run, at the tiniest shape; what they measure is not asserted."""

import importlib
import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.speed.growth import Curve, write_curves
from benchmarks.speed.run import BENCHMARKS, check_request, run_benchmark
from benchmarks.speed.settings import BenchSettings
from benchmarks.speed.startup import imports_torch
from dept_vl.errors import ConfigError

TINY = {"rounds": 1, "shape": "tiny", "batch_size": 4, "steps": 1, "data_sets": ("cola",)}


def test_help_imports_no_torch():
    assert not imports_torch()


@pytest.mark.parametrize("benchmark", BENCHMARKS.values(), ids=BENCHMARKS)
def test_every_name_in_the_table_leads_to_a_function(benchmark):
    module, _, function = benchmark.measure.partition(":")
    assert callable(getattr(importlib.import_module(module), function))


@pytest.mark.bench
def test_captions_are_compared_and_written(tmp_path):
    text = run_benchmark("captions", BenchSettings(tmp_path, tmp_path / "out", **TINY))
    assert "both returned the same tokens" in text
    (file,) = (tmp_path / "out").iterdir()
    assert json.loads(file.read_text())["floors"][0]["bound"] == 1.0


@pytest.mark.bench
def test_vision_trains_with_cached_features_and_on_the_fly(tmp_path):
    text = run_benchmark("vision", BenchSettings(tmp_path, **TINY))
    assert "share of training time waiting for data" in text


@pytest.mark.bench
@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(BENCHMARKS.keys() - {"captions", "vision"}))
def test_every_other_benchmark_runs(tmp_path, name):
    work_dir = tmp_path / "work"
    work_dir.mkdir()
    settings = BenchSettings(work_dir, tmp_path / "out", before=Path(__file__).resolve().parents[3], **TINY)
    text = run_benchmark(name, settings)
    assert "1 interleaved rounds" in text or name == "growth"


def test_a_comparison_with_another_checkout_needs_one(tmp_path):
    with pytest.raises(ConfigError, match="--before: name a checkout"):
        run_benchmark("revision", BenchSettings(tmp_path, **TINY))


def test_the_slope_is_the_power_a_curve_grows_with(tmp_path):
    curve = Curve("squares", "tokens", "s", [(x, 3 * x**2) for x in (1.0, 2.0, 8.0)], "2")
    assert curve.slope == pytest.approx(2)
    write_curves(tmp_path, [curve])
    rows = (tmp_path / "growth.csv").read_text().splitlines()
    assert len(rows) == 4
    assert (tmp_path / "growth.png").stat().st_size > 1000
    assert np.isclose(float(rows[1].rsplit(",", 1)[1]), 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"data_sets": ["colla"]}, "did you mean"),
        ({"rounds": 0}, "--rounds: must be at least 1"),
        ({"released": "nowhere"}, "holds no released DePT code"),
    ],
)
def test_what_cannot_be_measured_is_refused_first(tmp_path, arguments, message):
    given = {"names": ["training"], "data_sets": ["cola"], "released": None, "rounds": 1, **arguments}
    if given["released"]:
        given["released"] = tmp_path / given["released"]
    with pytest.raises(ConfigError, match=message):
        check_request(**given)
