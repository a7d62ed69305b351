"""Single training steps of a described model on texts of one length, in a `benchmarks.speed.worker` process."""

from __future__ import annotations

import json
import time

import torch

from dept_vl.models.adapted_model import AdaptedModel
from dept_vl.models.build import build_model
from dept_vl.models.config import ModelConfig
from dept_vl.models.language.load import open_backbone
from dept_vl.settings.load import config_from_tree
from dept_vl.settings.schema import OptimConfig
from dept_vl.training.optim import build_optimizer

_ANSWER_TOKENS = 2
"""Of a GLUE label and the end of sequence."""


class Steps:
    """Forward, backward and optimiser; a workload is JSON: ``tuner``, ``length`` (tokens), ``batch``, ``answers``.

    With ``answers`` it also answers the batch, greedily, two tokens each: ``answers_per_s``.
    """

    def __init__(self, backbone: str) -> None:
        """Loads the backbone from its folder."""
        self._settings = ModelConfig(backbone=backbone)
        self._backbone = open_backbone(self._settings)
        for weight in self._backbone[0].parameters():
            weight.sum()  # weights are mapped from their file; read, they count as loaded and not as a step's memory

    def run(self, workload: str) -> dict[str, float]:
        """Does one step to warm up on a quarter of the batch, and one that is timed."""
        asked = json.loads(workload)
        config = config_from_tree({"tuner": asked["tuner"]})
        model, _ = build_model(
            self._settings, config.tuner, max_source_length=256, feature_dim=None, seed=0, backbone=self._backbone
        )
        optimizer = build_optimizer(model.train(), model.param_groups(), OptimConfig())
        for batch in (max(1, asked["batch"] // 4), asked["batch"]):
            started = time.perf_counter()
            _step(model, optimizer, batch, asked["length"])
        seconds = time.perf_counter() - started
        values = {"rate": asked["batch"] / seconds, "step_s": seconds}
        if asked.get("answers"):
            values["answers_per_s"] = _answers_per_s(model, asked["batch"], asked["length"])
        return values


def _answers_per_s(model: AdaptedModel, batch: int, length: int) -> float:
    for rows in (max(1, batch // 4), batch):
        ids = torch.randint(3, 2_000, (rows, length))
        started = time.perf_counter()
        model.generate(ids, torch.ones_like(ids), max_new_tokens=_ANSWER_TOKENS)
    return batch / (time.perf_counter() - started)


def _step(model: AdaptedModel, optimizer: torch.optim.Optimizer, batch: int, length: int) -> None:
    ids = torch.randint(3, 2_000, (batch, length))
    labels = torch.randint(3, 2_000, (batch, 2))
    model(ids, torch.ones_like(ids), labels).loss_per_example.mean().backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
