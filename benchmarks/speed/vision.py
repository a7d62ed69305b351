"""VQA training with cached features beside CLIP on the fly, and how long training waits for data."""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.speed.harness import Contestant, Floor, Result, run_rounds
from benchmarks.speed.settings import BenchSettings
from benchmarks.speed.visual_work import write_clip, write_visual_work
from benchmarks.speed.workload import shape, write_backbone
from data_prep.cache_features import cache_features
from dept_vl.models.vision.open_clip.config import OpenClipConfig
from dept_vl.runs.session import Session
from dept_vl.settings.load import config_from_tree
from dept_vl.settings.schema import TrainConfig
from dept_vl.tasks import get_task
from dept_vl.training.trainer import train

CACHED = "cached features"
ENCODED = "CLIP RN101 on the fly"


def measure_vision(settings: BenchSettings) -> list[Result]:
    """Measures real runs of ``dept-vl train`` in one process, one frozen backbone between them."""
    torch.set_num_threads(settings.threads)
    tower = "tiny" if settings.shape == "tiny" else "RN101"
    backbone = write_backbone(settings.work_dir / "backbone", shape(settings.shape))
    clip = write_clip(settings.work_dir / "clip", tower)
    data_dir = settings.work_dir / "data"
    write_visual_work(data_dir, num_images=settings.batch_size, rows=settings.steps * settings.batch_size)
    cache_features(clip, data_dir, get_task("vqa"), num_workers=0, device="cpu")
    session = Session()
    configs = {
        name: _config(settings, backbone, clip, data_dir, source)
        for name, source in ((CACHED, "cache"), (ENCODED, "encode"))
    }
    contestants = [Contestant(name, partial(_train, config, data_dir, session)) for name, config in configs.items()]
    for one in contestants:
        one.measure()
    rounds = run_rounds(contestants, settings.rounds, settings.report_round)
    floors = [
        Floor("samples/s over CLIP on the fly, decoding included", CACHED, ENCODED, 1.2),
        Floor("share of training time waiting for data", CACHED, None, 0.02, "data_wait_share", "at most"),
    ]
    notes = [
        f"batch {settings.batch_size}, {settings.steps} steps a round, float32; {settings.batch_size} JPEGs "
        f"of 640 x 480; CLIP {tower} with random weights; no loader processes",
        "GPU: none was lent, CPU only" if not settings.has_gpu else "on a GPU",
    ]
    return [Result(f"VQA training, T5-{settings.shape}", "samples", rounds, floors, notes)]


def _config(
    settings: BenchSettings, backbone: Path, encoder: OpenClipConfig, data_dir: Path, source: str
) -> TrainConfig:
    kind = shape(settings.shape)
    every = dict.fromkeys(("max_steps", "eval_every_steps", "save_every_steps", "log_every_steps"), settings.steps)
    dept = {"name": "dept", "num_virtual_tokens": kind.num_virtual_tokens, "rank": kind.rank}
    data: dict[str, Any] = {"batch_size": settings.batch_size, "visual_features": source, "dir": str(data_dir)}
    return config_from_tree(
        {
            "task": "vqa",
            "output_dir": str(settings.work_dir / f"run-{source}"),
            "tuner": dept,
            "model": {"backbone": str(backbone), "image_encoder": asdict(encoder)},
            "data": {**data, "max_source_length": kind.max_source_length},
            "loop": every,
        }
    )


def _train(config: TrainConfig, data_dir: Path, session: Session) -> dict[str, float]:
    result = train(config, data_dir, overwrite=True, session=session)
    lines = (result.run_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    record = next(row for row in map(json.loads, lines) if "samples_per_s" in row)
    return {"rate": record["samples_per_s"], "data_wait_share": record["data_wait_share"]}
