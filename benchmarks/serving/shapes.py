"""Runs of drawn adapters on frozen models of two shapes: how fast they answer does not depend on what they learnt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch

from benchmarks.speed.visual_work import write_clip
from benchmarks.speed.workload import shape as t5_shape
from benchmarks.speed.workload import write_backbone
from dept_vl.models.build import build_model
from dept_vl.models.vision.settings import ImageEncoderSettings
from dept_vl.runs.folder import RUN_CONFIG_FILE
from dept_vl.runs.session import Session
from dept_vl.settings.demo import choose_settings
from dept_vl.settings.load import dump_config
from dept_vl.settings.schema import TrainConfig

SHAPES = ("demo", "t5-base")

_PIECES = 2_000
"""Tokens that T5-base's random weights choose from: all are in the demo's vocabulary."""


@dataclass(frozen=True)
class Shape:
    """Frozen models, and settings of runs on them.

    Attributes:
        name: One of `SHAPES`.
        base: The settings file that runs begin with; None for the demo's.
        settings: Dotted settings laid over it.
    """

    name: str
    base: Path | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    def config(self, folder: Path, seed: int, **more: Any) -> TrainConfig:
        """Returns the settings of a run of DePT on VQA."""
        own = {"task": "vqa", "output_dir": str(folder), "seed": seed}
        return choose_settings(self.base, {**own, **self.settings, **more}, is_own_data=self.base is not None)


def make_shape(name: str, work: Path, *, tower: str | None = None) -> Shape:
    """Returns a shape, its frozen models written where they are not the packaged ones.

    Args:
        name: ``"demo"``: the packaged T5, CLIP and frozen projection. ``"t5-base"``: random weights of T5-base's
            shape, 32,128 embeddings with the demo's tokenizer, DePT as ``configs/vqa/dept.yaml`` has it, in float32.
        work: Where they are written.
        tower: Of `write_clip`, a CLIP of random weights: T5-base has RN101 if none is named, the demo its own.
    """
    settings: dict[str, Any] = {}
    if tower or name == "t5-base":
        clip = write_clip(work / "clip", tower or "RN101")
        settings = {f"model.image_encoder.{key}": value for key, value in asdict(clip).items()}
    if name == "demo":
        # The packaged projection is of the packaged encoder's features.
        return Shape(name, None, settings | ({"model.frozen_projection": None} if tower else {}))
    backbone = write_backbone(work / "t5-base", t5_shape("base"))
    _keep_to_pieces(backbone)
    settings |= {"model.backbone": str(backbone), "loop.precision": "float32", "data.dir": str(work)}
    return Shape(name, Path("configs/vqa/dept.yaml"), settings)


def _keep_to_pieces(backbone: Path) -> None:
    """Zeroes the embeddings beyond the vocabulary, whose logits are 0 then and never the highest of thousands."""
    from transformers import T5ForConditionalGeneration

    model = T5ForConditionalGeneration.from_pretrained(backbone)
    with torch.no_grad():
        model.shared.weight[_PIECES:] = 0
    model.save_pretrained(backbone)


def make_runs(
    shape: Shape, work: Path, count: int, *, owns_projection: bool = False, moved: float = 0.01
) -> list[Path]:
    """Writes runs, their tensors drawn; returns their folders.

    Args:
        shape: Of their frozen models.
        work: Where they are written.
        count: How many.
        owns_projection: Whether each has a projection of its own, as runs that train it have; else all have one.
        moved: Standard deviation of what is added to the first values: with more, adapters answer more differently.
    """
    session = Session()
    more: dict[str, Any] = {}
    if owns_projection:
        more = {"model.frozen_projection": None}
    elif shape.config(work, 0).model.frozen_projection is None:
        more = {"model.frozen_projection": str(_make_run(shape, work / "projection", 0, moved, session))}
    return [_make_run(shape, work / f"adapter-{number:03d}", number, moved, session, **more) for number in range(count)]


def _make_run(shape: Shape, folder: Path, seed: int, moved: float, session: Session, **more: Any) -> Path:
    config = shape.config(folder, seed, **more)
    encoder = config.model.image_encoder
    model, _ = build_model(
        config.model, config.tuner,
        max_source_length=config.data.max_source_length, feature_dim=encoder.feature_dim(), seed=seed,
        backbone=session.backbone(config.model),
    )  # fmt: skip
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in model.trainable_state().values():
            tensor.add_(torch.randn(tensor.shape, generator=generator) * moved)
    model.save_pretrained(folder, task=config.resolve_task(), features=_fingerprint(encoder))
    (folder / RUN_CONFIG_FILE).write_text(dump_config(config))
    return folder


@cache
def _fingerprint(encoder: ImageEncoderSettings) -> dict[str, Any]:
    return encoder.load().fingerprint
