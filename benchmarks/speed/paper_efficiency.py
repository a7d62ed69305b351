"""The shape of the paper's Figure 4: speed and memory against m at a constant budget, relative to prompt tuning."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.speed.competition import Entry, compete
from benchmarks.speed.harness import Result, Round
from benchmarks.speed.settings import BenchSettings
from benchmarks.speed.workload import glue_lengths, shape, write_backbone
from dept_vl.reports.paper_numbers import PAPER_FIGURES

PROMPT_TUNING = "prompt tuning, l = 100"


def measure_paper_efficiency(settings: BenchSettings) -> list[Result]:
    """Measures the paper's setting, every text padded to s = 256, and CoLA's mean length as this package trains it.

    With an output folder, ``paper-efficiency.csv`` and ``paper-efficiency.png`` are written.
    """
    kind = shape(settings.shape)
    backbone = str(write_backbone(settings.work_dir / "backbone", kind))
    entries, results = [Entry("step", "benchmarks.speed.step_jobs:Steps", {"backbone": backbone})], []
    own_length = round(float(glue_lengths("cola").mean()))
    tuners: dict[str, dict[str, Any]] = {PROMPT_TUNING: {"name": "prompt-tuning", "num_virtual_tokens": 100}}
    for m in (80, 60, 40, 20, 0):
        tuners[f"DePT, m = {m}"] = {"name": "dept", "num_virtual_tokens": m, "allow_nearest": True}
    for what, length in (("padded to 256 as in the paper", kind.max_source_length), ("CoLA's mean length", own_length)):
        shared = {"length": length, "batch": settings.batch_size, "answers": True}
        asked = {name: json.dumps({**shared, "tuner": tuner}) for name, tuner in tuners.items()}
        measured = compete(entries, list(asked.values()), settings)
        rounds = [
            {name: measured[workload][number]["step"] for name, workload in asked.items()}
            for number in range(settings.rounds)
        ]
        title = f"paper efficiency, T5-{settings.shape}, {what}"
        results.append(Result(title, "samples", rounds, (), _notes(rounds, settings)))
    if settings.output_dir is not None:
        settings.output_dir.mkdir(parents=True, exist_ok=True)
        _write(settings.output_dir, results, settings.shape)
    return results


def _notes(rounds: Sequence[Round], settings: BenchSettings) -> list[str]:
    result = Result("", "samples", rounds)
    paper = _paper_speed(settings.shape)
    notes = []
    for name in result.contestants()[1:]:
        speed, memory = result.ratio(name, PROMPT_TUNING), result.ratio(name, PROMPT_TUNING, "over_loaded_gib")
        answers = result.ratio(name, PROMPT_TUNING, "answers_per_s")
        m = int(name.rpartition(" ")[2])
        beside = f" (the paper {paper[m]:.2f}, its Figure 4)" if m in paper else ""
        printed = f", {answers.median:.2f} times its answers/s{beside}" if answers else ""
        memory_text = f"; memory over the loaded model {memory.median:.2f} times" if memory else ""
        if speed is not None:
            notes.append(
                f"{name}: {speed.median:.2f} [{speed.least:.2f} .. {speed.most:.2f}] times prompt tuning's "
                f"samples/s{printed}{memory_text}"
            )
    return notes


def _paper_speed(shape_name: str) -> Mapping[int, float]:
    """Returns inference speed over prompt tuning with l = 100 by m, on one RTX 3090 (Shi & Lipani 2024, Figure 4)."""
    figure = PAPER_FIGURES["figure4"]
    return dict(zip(figure.num_virtual_tokens, figure.curves.get(f"t5-{shape_name}", ()), strict=False))


def _write(folder: Path, results: Sequence[Result], shape_name: str) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    paper = _paper_speed(shape_name)
    figure, axes = pyplot.subplots(1, 2, figsize=(10, 4))
    with open(folder / "paper-efficiency.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["setting", "m", "speed over prompt tuning", "memory over prompt tuning", "the paper's speed"])
        for result in results:
            names = result.contestants()[1:]
            sizes = [int(name.rpartition(" ")[2]) for name in names]
            for plot, key in zip(axes, ("rate", "over_loaded_gib"), strict=True):
                ratios = [result.ratio(name, PROMPT_TUNING, key) for name in names]
                plot.plot(sizes, [ratio.median if ratio else float("nan") for ratio in ratios], "o-", label=result.name)
            for name, m in zip(names, sizes, strict=True):
                speed, memory = result.ratio(name, PROMPT_TUNING), result.ratio(name, PROMPT_TUNING, "over_loaded_gib")
                cells = [f"{one.median:.3f}" if one else "" for one in (speed, memory)]
                writer.writerow([result.name, m, *cells, paper.get(m, "")])
    if paper:
        axes[0].plot(list(paper), list(paper.values()), "s--", label="the paper, Figure 4 (inference)")
    for plot, title in zip(axes, ("training speed", "memory over the loaded model"), strict=True):
        plot.set_title(f"{title}, relative to prompt tuning (l = 100)", fontsize=9)
        plot.set_xlabel("m, virtual tokens (r follows from the budget)", fontsize=8)
        plot.legend(fontsize=6)
    figure.tight_layout()
    figure.savefig(folder / "paper-efficiency.png", dpi=120)
    pyplot.close(figure)
