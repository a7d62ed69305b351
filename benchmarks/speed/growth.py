"""How time and memory grow: with text length, prompt, batch, model, cached images and processes."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks.speed.competition import Entry, compete
from benchmarks.speed.harness import Result, Values
from benchmarks.speed.settings import BenchSettings
from benchmarks.speed.workload import glue_lengths, shape, train_config, write_backbone, write_text_work
from data_prep.feature_writer import FeatureWriter
from dept_vl.data.features import FeatureStore
from dept_vl.settings.load import dump_config
from dept_vl.settings.schema import TrainConfig


@dataclass(frozen=True)
class Curve:
    """Points of one quantity.

    Attributes:
        name: What grows.
        axis: What the x values count.
        quantity: What is measured, with its unit.
        points: (x, y).
        expected: The slope expected on log-log axes, in words.
    """

    name: str
    axis: str
    quantity: str
    points: Sequence[tuple[float, float]]
    expected: str

    @property
    def slope(self) -> float:
        """Least-squares slope on log-log axes: y grows as x to this power."""
        x, y = np.log(np.array(self.points)).T
        return float(np.polyfit(x, y, 1)[0])


Point = dict[str, int]
"""``m``, ``length`` of the texts in tokens, and ``batch``."""

_MEMORY_GROWS = {
    **dict.fromkeys(("text length", "prompt length", "batch"), "1"),
    "model": "about 0.75: activations grow as layers x width, weights as layers x width squared",
}


def measure_growth(settings: BenchSettings) -> list[Result]:
    """Measures every curve; with an output folder, ``growth.csv`` and ``growth.png`` are written."""
    curves = [*_model_curves(settings), *_cache_curves(settings), *_process_curve(settings)]
    notes = [
        f"{curve.name}: {curve.quantity} grows as {curve.axis} to the power {curve.slope:.2f} (expected: "
        f"{curve.expected}); " + ", ".join(f"{x:,.0f}: {y:.3g}" for x, y in curve.points)
        for curve in curves
    ]
    if settings.output_dir is not None:
        settings.output_dir.mkdir(parents=True, exist_ok=True)
        write_curves(settings.output_dir, curves)
    return [Result(f"growth, T5-{settings.shape}", "points", [], (), notes)]


def _model_curves(settings: BenchSettings) -> list[Curve]:
    """Step time and memory against s, m, batch and model; medians over the rounds."""
    fixed = {"m": 40, "length": 64, "batch": 8}
    axes: dict[str, tuple[str, Sequence[int]]] = {
        "text length": ("length", (32, 64, 128, 256)),
        "prompt length": ("m", (20, 40, 60, 80)),
        "batch": ("batch", (4, 8, 16, 32)),
    }
    asked = {name: [{**fixed, key: value} for value in values] for name, (key, values) in axes.items()}
    measured = _measure(settings, settings.shape, [point for points in asked.values() for point in points])
    curves = []
    for name, points in asked.items():
        axis, count = ("rows", _rows) if name == "batch" else ("encoder tokens", _tokens)
        curves += _both(name, axis, [(count(point), measured[_workload(point)]) for point in points])
    small = {**fixed, "batch": 4, "length": 32}
    shapes = ("tiny", "small") if settings.shape == "tiny" else ("small", "base", "large")
    models = [(_parameters(name), _measure(settings, name, [small])[_workload(small)]) for name in shapes]
    return [*curves, *_both("model", "encoder weights", models)]


def _measure(settings: BenchSettings, shape_name: str, points: Sequence[Point]) -> dict[str, list[Values]]:
    """Returns what a step measured in every round, by workload."""
    folder = settings.work_dir / shape_name
    backbone = str(folder if folder.is_dir() else write_backbone(folder, shape(shape_name)))
    workloads = list(dict.fromkeys(map(_workload, points)))
    rounds = compete([Entry("step", "benchmarks.speed.step_jobs:Steps", {"backbone": backbone})], workloads, settings)
    return {workload: [one["step"] for one in rounds[workload]] for workload in workloads}


def _both(name: str, axis: str, measured: Sequence[tuple[int, list[Values]]]) -> list[Curve]:
    """Returns the curves of time and memory."""
    curves = []
    for kind, key, unit, expected in (
        ("time", "step_s", "s a step", "1, a little more where attention's square shows; less where fixed costs do"),
        ("memory", "over_loaded_gib", "GiB over the loaded model", _MEMORY_GROWS[name]),
    ):
        points = [(float(x), float(np.median([one[key] for one in values]))) for x, values in measured]
        curves.append(Curve(f"{name}, {kind}", axis, unit, points, expected))
    return curves


def _cache_curves(settings: BenchSettings) -> list[Curve]:
    """Opening a feature store and reading from it, against the number of (tiny) images in it."""
    opening, reading = [], []
    sizes = (1_000, 10_000) if settings.shape == "tiny" else (1_000, 10_000, 100_000, 1_000_000)
    for size in sizes:
        folder = settings.work_dir / f"store-{size}"
        fingerprint = {"num_visual_tokens": 1, "feature_dim": 8, "dtype": "float16"}
        with FeatureWriter(folder, fingerprint, range(size), rows_per_shard=min(size, 50_000)) as writer:
            for plan in writer.pending():
                rows = len(plan.image_ids)
                writer.write(plan, torch.zeros(rows, 1, 8, dtype=torch.float16), [0] * rows)
            writer.finish()
        started = time.perf_counter()
        store = FeatureStore.open(folder)
        opening.append((float(size), time.perf_counter() - started))
        wanted = np.random.default_rng(0).integers(0, size, (50, 64)).tolist()
        store.read(wanted[0])
        started = time.perf_counter()
        for ids in wanted:
            store.read(ids)
        reading.append((float(size), (time.perf_counter() - started) / len(wanted)))
    return [
        Curve("cached images, opening", "images", "s", opening, "1: the index is read once"),
        Curve("cached images, reading 64", "images", "s a batch", reading, "0 (a binary search; more shards)"),
    ]


def _process_curve(settings: BenchSettings) -> list[Curve]:
    """Samples/s of ``dept-vl train`` in one process and in two (gloo), a thread each."""
    backbone = settings.work_dir / settings.shape
    if not backbone.is_dir():
        write_backbone(backbone, shape(settings.shape))
    work = write_text_work(
        settings.work_dir / "processes", backbone, glue_lengths("cola"), batch_size=settings.batch_size, steps=4
    )
    points = []
    for processes in (1, 2):
        run_dir = settings.work_dir / f"run-{processes}"
        config = train_config(str(backbone), work, shape(settings.shape), str(run_dir), 4)
        points.append((float(processes), launch(config, settings.work_dir, processes)))
    return [Curve("processes", "processes", "samples/s", points, "1 with a core each; less where memory is shared")]


def launch(config: TrainConfig, folder: Path, processes: int) -> float:
    """Runs ``dept-vl train`` under torchrun and returns the samples/s it recorded."""
    file = folder / f"launch-{processes}.yaml"
    file.write_text(dump_config(config), encoding="utf-8")
    command = ["-m", "torch.distributed.run", "--nproc-per-node", str(processes), "--standalone", "-m", "dept_vl"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(
        [sys.executable, *command, "train", "--config", str(file)], check=True, env=environment, capture_output=True
    )
    lines = (config.run_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    record = next(row for row in map(json.loads, lines) if "samples_per_s" in row)
    return float(record["samples_per_s"])


def write_curves(folder: Path, curves: Sequence[Curve]) -> None:
    """Writes ``growth.csv`` and ``growth.png``."""
    with open(folder / "growth.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["curve", "axis", "x", "quantity", "y", "slope"])
        for curve in curves:
            writer.writerows(
                [curve.name, curve.axis, x, curve.quantity, y, f"{curve.slope:.3f}"] for x, y in curve.points
            )
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    columns = 3
    figure, axes = pyplot.subplots(-(-len(curves) // columns), columns, figsize=(12, 3 * -(-len(curves) // columns)))
    for plot in np.ravel(axes)[len(curves) :]:
        plot.set_axis_off()
    for plot, curve in zip(np.ravel(axes), curves, strict=False):
        plot.loglog(*zip(*curve.points, strict=True), "o-")
        plot.minorticks_off()
        plot.set_title(f"{curve.name}: slope {curve.slope:.2f}", fontsize=9)
        plot.set_xlabel(curve.axis, fontsize=8)
        plot.set_ylabel(curve.quantity, fontsize=8)
    figure.tight_layout()
    figure.savefig(folder / "growth.png", dpi=120)
    pyplot.close(figure)


def _workload(point: Point) -> str:
    tuner = {"name": "dept", "num_virtual_tokens": point["m"], "allow_nearest": True}
    return json.dumps({"tuner": tuner, "length": point["length"], "batch": point["batch"]})


def _tokens(point: Point) -> int:
    return point["m"] + point["length"]


def _rows(point: Point) -> int:
    return point["batch"]


def _parameters(name: str) -> int:
    """Weights of the encoder's blocks: what every token passes."""
    config = shape(name).config
    return int(config.num_layers * config.d_model * (4 * config.num_heads * config.d_kv + 2 * config.d_ff))
