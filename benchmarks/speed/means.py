"""What each means to speed is worth on this machine: one training step with it and without, in turns."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from benchmarks.speed.harness import Contestant, Result, run_rounds
from benchmarks.speed.settings import BenchSettings
from benchmarks.speed.workload import (
    TextWork,
    glue_lengths,
    pad_rows,
    shape,
    train_config,
    write_backbone,
    write_text_work,
)
from dept_vl.data.collator import IGNORE_INDEX
from dept_vl.models.adapted_model import AdaptedModel
from dept_vl.models.build import build_model
from dept_vl.models.language import cross_attention
from dept_vl.settings.schema import OptimConfig
from dept_vl.training.optim import build_optimizer
from dept_vl.tuners.layers import dropout

SHIPPED = "as shipped"

Around = Callable[[AdaptedModel], AbstractContextManager[Any]]


@contextmanager
def _eager(model: AdaptedModel) -> Iterator[None]:
    t5 = model.backbone.model
    t5.set_attn_implementation("eager")
    try:
        yield
    finally:
        t5.set_attn_implementation("sdpa")


def _keys_and_values(model: AdaptedModel) -> AbstractContextManager[Any]:
    return patch.object(cross_attention, "is_absorbed_cheaper", lambda *_: False)


@contextmanager
def _torch_dropout(model: AdaptedModel) -> Iterator[None]:
    def rectified(module: nn.Dropout, inputs: Tensor) -> Tensor:
        return nn.functional.dropout(nn.functional.relu(inputs), module.p, module.training)

    with (
        patch.object(dropout.Dropout, "forward", nn.Dropout.forward),
        patch.object(dropout.RectifiedDropout, "forward", rectified),
        patch.object(cross_attention, "dropout", nn.functional.dropout),
    ):
        yield


def _autocast(model: AdaptedModel) -> AbstractContextManager[Any]:
    return torch.autocast(model.backbone.word_embeddings.device.type, torch.bfloat16)


def _plain(model: AdaptedModel) -> AbstractContextManager[Any]:
    return nullcontext()


MEANS: dict[str, tuple[dict[str, Any], Around]] = {
    SHIPPED: ({}, _plain),
    "eager attention": ({}, _eager),
    "cross-attention with keys and values of the source": ({}, _keys_and_values),
    "dropout of torch": ({}, _torch_dropout),
    "loop.precision: bf16 (autocast)": ({}, _autocast),
    "model.dtype: bfloat16": ({"dtype": "bfloat16"}, _plain),
    "model.gradient_checkpointing": ({"gradient_checkpointing": True}, _plain),
    "torch.compile of the encoder's blocks": ({}, _plain),
    "model.dropout_rate: 0 (what dropout costs)": ({"dropout_rate": 0.0}, _plain),
}
"""Name to the settings of the model, and what is put around a step."""


def measure_means(settings: BenchSettings) -> list[Result]:
    """Measures every data set's lengths; a batch is the same for all."""
    torch.set_num_threads(settings.threads)
    device = torch.device("cuda" if settings.has_gpu else "cpu")
    backbone = write_backbone(settings.work_dir / "backbone", shape(settings.shape))
    results, models = [], {}
    for data_set in settings.data_sets:
        folder = settings.work_dir / data_set
        work = write_text_work(folder, backbone, glue_lengths(data_set), batch_size=settings.batch_size, steps=1)
        contestants = []
        for name, (model_settings, around) in MEANS.items():
            if not settings.wants(name):
                continue
            if name not in models:
                models[name] = _build(str(backbone), work, settings, name, model_settings).to(device)
            step = _stepper(models[name], work, around, device)
            step()
            contestants.append(Contestant(name, step))
        rounds = run_rounds(contestants, settings.rounds, settings.report_round)
        result = Result(f"means, {data_set} lengths, T5-{settings.shape}", "samples", rounds, (), ())
        notes = [*_ratios(result), _padding_note(work, settings)]
        results.append(Result(result.name, "samples", rounds, (), notes))
    return results


def _build(backbone: str, work: TextWork, settings: BenchSettings, name: str, model: dict[str, Any]) -> AdaptedModel:
    config = train_config(backbone, work, shape(settings.shape), "unused", 1, model=model)
    length = config.data.max_source_length
    built, _ = build_model(config.model, config.tuner, max_source_length=length, feature_dim=None, seed=0)
    if "compile" in name:
        for block in built.backbone.model.encoder.block:
            block.compile(dynamic=True)
    return built.train()


def _stepper(
    model: AdaptedModel, work: TextWork, around: Around, device: torch.device
) -> Callable[[], dict[str, float]]:
    optimizer = build_optimizer(model, model.param_groups(), OptimConfig())
    batch = work.batches[0]
    ids, labels = pad_rows(batch["input_ids"], 0).to(device), pad_rows(batch["labels"], IGNORE_INDEX).to(device)
    return partial(_step, model, optimizer, ids, labels, around)


def _step(
    model: AdaptedModel, optimizer: torch.optim.Optimizer, ids: Tensor, labels: Tensor, around: Around
) -> dict[str, float]:
    _wait(ids.device)
    started = time.perf_counter()
    with around(model):
        loss = model(ids, (ids != 0).long(), labels).loss_per_example.mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    _wait(ids.device)
    return {"rate": len(ids) / (time.perf_counter() - started)}


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def _ratios(result: Result) -> list[str]:
    notes = []
    for name in result.contestants()[1:]:
        ratio = result.ratio(name, SHIPPED)
        if ratio is not None:
            notes.append(f"{name}: {ratio.median:.2f} [{ratio.least:.2f} .. {ratio.most:.2f}] times {SHIPPED}")
    return notes


def _padding_note(work: TextWork, settings: BenchSettings) -> str:
    """Returns what no padding at all could save."""
    prompt = shape(settings.shape).num_virtual_tokens
    lengths = [len(ids) + prompt for ids in work.batches[0]["input_ids"]]
    share = 1 - sum(lengths) / (max(lengths) * len(lengths))
    return (
        f"packed sequences could save at most the padding, {100 * share:.1f} % of this batch's tokens: batches hold "
        "texts of like length"
    )
