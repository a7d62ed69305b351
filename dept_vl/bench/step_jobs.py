"""Single training steps of a described model on texts of one length, in a `dept_vl.bench.worker` process."""

from __future__ import annotations

import json
import time

import torch

from dept_vl.config import config_from_tree
from dept_vl.models.backbone import LoadedBackbone, open_backbone
from dept_vl.models.clip_t5 import CLIPT5, build_model
from dept_vl.models.config import ModelConfig
from dept_vl.optim import build_optimizer


class Steps:
    """Forward, backward and optimiser; a workload is JSON: ``shape``, ``tuner``, ``length`` (tokens), ``batch``."""

    def __init__(self, backbones: dict[str, str]) -> None:
        """Takes the folder of every shape; one is loaded at a time."""
        self._folders = backbones
        self._loaded: tuple[str, LoadedBackbone] | None = None

    def run(self, workload: str) -> dict[str, float]:
        """Does one step to warm up on a quarter of the batch, and one that is timed."""
        asked = json.loads(workload)
        model = self._model(asked["shape"], asked["tuner"])
        groups = model.param_groups()
        optimizer = build_optimizer(model, groups, config_from_tree({}).optim)
        for batch in (max(1, asked["batch"] // 4), asked["batch"]):
            started = time.perf_counter()
            _step(model, optimizer, batch, asked["length"])
        seconds = time.perf_counter() - started
        return {"rate": asked["batch"] / seconds, "step_s": seconds}

    def _model(self, shape_name: str, tuner: dict[str, object]) -> CLIPT5:
        settings = ModelConfig(backbone=self._folders[shape_name])
        if self._loaded is None or self._loaded[0] != shape_name:
            self._loaded = None
            self._loaded = (shape_name, open_backbone(settings))
        config = config_from_tree({"tuner": tuner})
        model, _ = build_model(
            settings, config.tuner, max_source_length=256, feature_dim=None, seed=0, backbone=self._loaded[1]
        )
        return model.train()


def _step(model: CLIPT5, optimizer: torch.optim.Optimizer, batch: int, length: int) -> None:
    ids = torch.randint(3, 2_000, (batch, length))
    labels = torch.randint(3, 2_000, (batch, 2))
    model(ids, torch.ones_like(ids), labels).loss_per_example.mean().backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
