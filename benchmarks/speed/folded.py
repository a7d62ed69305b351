"""Answers a second of a run, of the same run folded into plain weights, and of the frozen model without a method."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from benchmarks.speed.competition import Entry, compete
from benchmarks.speed.harness import Floor, Result
from benchmarks.speed.settings import BenchSettings
from benchmarks.speed.workload import TextWork, glue_lengths, shape, train_config, write_backbone, write_text_work
from dept_vl.models.build import build_model
from dept_vl.runs.fold import fold_run
from dept_vl.runs.folder import RUN_CONFIG_FILE
from dept_vl.settings.load import dump_config

METHODS: dict[str, dict[str, Any]] = {
    "lora": {"rank": 8},
    "dora": {"rank": 8},
    "vera": {"rank": 256},
    "prompt-tuning+lora": {"parts": {"prompt-tuning": {"num_virtual_tokens": 20}, "lora": {"rank": 8}}},
}
"""Method to its settings; LoRA and those of peft act at q and v of every attention."""

PLAIN, RUN, FOLDED = "plain model, no method", "run as it was", "run, folded"

_MODULE = "benchmarks.speed.folded_jobs"
_MOVED = 0.02
"""Size of the noise that stands for what training leaves: no update is zero."""


def measure_folded(settings: BenchSettings) -> list[Result]:
    """Measures labels scored and answers generated, on the lengths of the first data set, one method after another."""
    backbone = write_backbone(settings.work_dir / "backbone", shape(settings.shape))
    name = settings.data_sets[0]
    lengths = glue_lengths(name)
    work = write_text_work(settings.work_dir / name, backbone, lengths, batch_size=settings.batch_size, steps=1)
    results = []
    for method, own in METHODS.items():
        if settings.wants(method):
            results += _measure(settings, method, own, str(backbone), work)
    return results


def _measure(settings: BenchSettings, method: str, own: dict[str, Any], backbone: str, work: TextWork) -> list[Result]:
    run = _write_run(settings, method, own, backbone, work)
    folded = fold_run(run, settings.work_dir / f"{method}-folded")
    shared: dict[str, Any] = {"work": work.save(), "backbone": backbone, "shape_name": settings.shape}
    folders = {PLAIN: None, RUN: str(run), FOLDED: str(folded.folder)}
    entries = [Entry(kind, f"{_MODULE}:Answers", {**shared, "run": folder}) for kind, folder in folders.items()]
    floors = [Floor("answers/s over the run as it was", FOLDED, RUN, 1.0)]
    if "prompt" not in method:  # a prompt is read whatever becomes of the rest
        floors.append(Floor("against the plain model", FOLDED, PLAIN, 0.95))
    notes = [
        f"batch {settings.batch_size}, float32, {settings.data_sets[0]} lengths, T5-{settings.shape}, {own}",
        f"logits differ by {folded.difference:.1e}, the largest is {folded.largest:.3g}",
    ]
    rounds = compete(entries, ("scored", "generated"), settings)
    return [Result(f"folded {method}, labels {kind}", "samples", rounds[kind], floors, notes) for kind in rounds]


def _write_run(settings: BenchSettings, method: str, own: dict[str, Any], backbone: str, work: TextWork) -> Path:
    """Writes a run whose tensors are moved from their start, and no training."""
    folder = settings.work_dir / method
    config = train_config(backbone, work, shape(settings.shape), str(folder), 1, tuner={"name": method, **own})
    model, _ = build_model(
        config.model, config.tuner, max_source_length=config.data.max_source_length, feature_dim=None, seed=0
    )
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for tensor in model.trainable_state().values():
            tensor.add_(torch.randn(tensor.shape, generator=generator) * _MOVED)
    model.save_pretrained(folder)
    (folder / RUN_CONFIG_FILE).write_text(dump_config(config))
    return folder
