"""Small adapted models of every family, and batches for them, for the tests of tuners."""

from dataclasses import replace
from pathlib import Path
from typing import get_args

import torch
from torch import Tensor

from dept_vl.models.adapted_model import AdaptedModel
from dept_vl.models.build import build_model
from dept_vl.models.config import ModelConfig
from dept_vl.settings.load import load_config
from dept_vl.system import extras
from dept_vl.tuners import Method, TunerConfig
from dept_vl.tuners.settings import TunerSettings

FAMILIES = ("t5", "t5-v1.1", "gpt2", "llama")
DECODER_ONLY = ("gpt2", "llama")
LIKE_LLAMA = ("qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "smollm3", "mistral")
"""Families whose modules lie as Llama's, and differ in what transformers does inside them."""
TASKS = ("rte", "cola", "sst2")
S, FEATURE_DIM, VISUAL = 12, 6, 3


def registered(*, is_installed: bool = True) -> list[TunerSettings]:
    """Default settings of every method whose package is installed, or of every other."""
    methods = [member() for member in get_args(get_args(Method)[0])]
    return [method for method in methods if (method.extra is None or extras.is_installed(method.extra)) == is_installed]


def fits(tuner: TunerConfig, family: str) -> bool:
    """Whether a method has a place in a family."""
    return family.startswith("t5") or not tuner.needs_encoder


def settings(name: str, **own) -> TunerConfig:
    """Returns the settings of a method, or of several as ``dept+lora``, as the command line gives them."""
    return load_config(None, {"tuner.name": name, **{f"tuner.{key}": value for key, value in own.items()}}).tuner


def trained_sources(folder: Path, num_virtual_tokens: int) -> tuple[str, ...]:
    """Returns two adapters of prompt tuning on a backbone, made once, for methods that build on other runs."""
    root = folder.parent / f"{folder.name}-sources-{num_virtual_tokens}"
    runs = [root / name for name in ("mnli", "qqp")]
    for seed, run in enumerate(runs):
        if not run.is_dir():
            tuner = settings("prompt-tuning", num_virtual_tokens=num_virtual_tokens)
            make(folder, tuner, feature_dim=None, seed=seed, moved=1.0).save_pretrained(run)
    return tuple(str(run) for run in runs)


def with_sources(folder: Path, tuner: TunerConfig) -> TunerConfig:
    """Returns the settings with such runs, where a method takes some and they name none."""
    if getattr(tuner, "sources", None) != ():
        return tuner
    return replace(tuner, sources=trained_sources(folder, tuner.num_virtual_tokens))


def make(
    folder: Path, tuner: TunerConfig, *, feature_dim: int | None = FEATURE_DIM, seed=0, moved=0.0, tasks=(), **options
):
    """A model, every tensor of its tuner moved from the start by noise of the given size."""
    config = ModelConfig(backbone=str(folder), **options)
    tasks = TASKS if tuner.needs_tasks else tasks
    tuner = with_sources(folder, tuner)
    model, _ = build_model(config, tuner, max_source_length=S, feature_dim=feature_dim, seed=seed, tasks=tasks)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for group in model.param_groups():
            for parameter in group.parameters if group.name != "visual_projection" else ():
                parameter.add_(torch.randn(parameter.shape, generator=generator) * moved)
    return model.eval()


def batch(lengths=(6, 3, 1), targets=(4, 2, 3)) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Padded ids, mask, labels and features."""
    generator = torch.Generator().manual_seed(4)
    ids = torch.zeros(len(lengths), max(lengths), dtype=torch.long)
    mask = torch.zeros_like(ids)
    labels = torch.full((len(targets), max(targets)), -100)
    for row, (length, target) in enumerate(zip(lengths, targets, strict=True)):
        ids[row, :length] = torch.randint(2, 32, (length,), generator=generator)
        mask[row, :length] = 1
        labels[row, :target] = torch.randint(2, 32, (target,), generator=generator)
    return ids, mask, labels, torch.randn(len(lengths), VISUAL, FEATURE_DIM, generator=generator)


def logits(model: AdaptedModel, arguments=None) -> Tensor:
    with torch.no_grad():
        return model(*(arguments or batch())).logits
