"""The benchmarks run, at the tiniest shape; what they measure is not asserted."""

import json

import numpy as np
import pytest

from data_prep.cache_features import cache_features
from dept_vl.bench.growth import Curve, write_curves
from dept_vl.bench.run import check_request, run_benchmark
from dept_vl.bench.startup import imports_torch
from dept_vl.cli import main
from dept_vl.errors import ConfigError

TINY = {"rounds": 1, "shape": "tiny", "batch_size": 4, "steps": 1, "data_sets": ("cola",)}


def test_help_imports_no_torch():
    assert not imports_torch()


@pytest.mark.bench
def test_captions_are_compared_and_written(tmp_path):
    text = run_benchmark(
        "captions", cache_features=cache_features, work_dir=tmp_path, output_dir=tmp_path / "out", **TINY
    )
    assert "both returned the same tokens" in text
    (file,) = (tmp_path / "out").iterdir()
    assert json.loads(file.read_text())["floors"][0]["bound"] == 1.0


@pytest.mark.bench
def test_vision_trains_with_cached_features_and_on_the_fly(tmp_path):
    text = run_benchmark("vision", cache_features=cache_features, work_dir=tmp_path, **TINY)
    assert "share of training time waiting for data" in text


@pytest.mark.bench
@pytest.mark.slow
@pytest.mark.parametrize("name", ["training", "evaluation", "features", "means", "growth", "paper-efficiency"])
def test_every_other_benchmark_runs(tmp_path, name):
    work_dir = tmp_path / "work"
    work_dir.mkdir()
    text = run_benchmark(name, cache_features=cache_features, work_dir=work_dir, output_dir=tmp_path / "out", **TINY)
    assert "1 interleaved rounds" in text or name == "growth"


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


def test_a_request_that_is_refused_is_one_message(capsys):
    assert main(["bench", "startup", "--rounds", "0"]) == 2
    assert "must be at least 1" in capsys.readouterr().err
