"""Small adapted models of every family, and batches for them, for the tests of tuners."""

from pathlib import Path

import torch
from torch import Tensor

from dept_vl.models.adapted_model import AdaptedModel, build_model
from dept_vl.models.config import ModelConfig
from dept_vl.settings.load import load_config
from dept_vl.tuners import TunerConfig

FAMILIES = ("t5", "t5-v1.1", "gpt2", "llama")
DECODER_ONLY = ("gpt2", "llama")
TASKS = ("rte", "cola", "sst2")
S, FEATURE_DIM, VISUAL = 12, 6, 3


def fits(tuner: TunerConfig, family: str) -> bool:
    """Whether a method has a place in a family."""
    return family not in DECODER_ONLY or not tuner.needs_encoder


def settings(name: str, **own) -> TunerConfig:
    """Returns the settings of a method, or of several as ``dept+lora``, as the command line gives them."""
    return load_config(None, {"tuner.name": name, **{f"tuner.{key}": value for key, value in own.items()}}).tuner


def make(folder: Path, tuner: TunerConfig, *, feature_dim: int | None = FEATURE_DIM, seed=0, moved=0.0, **options):
    """A model, every tensor of its tuner moved from the start by noise of the given size."""
    config = ModelConfig(backbone=str(folder), **options)
    tasks = TASKS if tuner.needs_tasks else ()
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
