"""First values that depend on the training data: squared gradients of the frozen backbone, for a method that asks."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from dept_vl.data.dataset import TaskDataset
from dept_vl.data.sampler import BatchRequest
from dept_vl.errors import ConfigError
from dept_vl.models.adapted_model import AdaptedModel
from dept_vl.models.loss import loss_per_example
from dept_vl.system.processes import process_state, sum_tensors_over_processes
from dept_vl.system.progress import Meter

logger = logging.getLogger(__name__)


def calibrate(model: AdaptedModel, dataset: TaskDataset, *, seed: int, device: torch.device) -> None:
    """Lets the model's method set the first values that depend on the training data; see `Tuner.calibrate`.

    The rows are drawn by `seed` without replacement, and shared out over the processes; every process gets the same
    sums. Their texts alone are read, without dropout, and the loss is a row's mean over its target's tokens.

    Args:
        model: At its first values.
        dataset: The training split.
        seed: The run's.
        device: The model's.

    Raises:
        ConfigError: The method asks for gradients of weights of which each process has a share only (FSDP).
    """
    tuner, backbone = model.tuner, model.backbone
    if not tuner.calibration_rows:
        return
    check_calibration(model)
    context = backbone.tuner_context(tuner.max_source_length, seed=seed, tasks=model.tasks)
    rows = np.random.default_rng([seed, 3]).permutation(dataset.indices)[: tuner.calibration_rows]
    names = tuner.calibrated_parameters(context)
    state = process_state()
    label = f"squared gradients of the frozen {backbone.family} on rows of {dataset.task.name}"
    if state.is_main_process:
        logger.info("before the first step: %s, %d of them", label, len(rows))
    with (
        _squaring(backbone.model, names) as sums,
        Meter(len(rows), label, "rows", is_shown=state.is_main_process) as meter,
    ):
        was_training = model.training
        model.eval()
        for row in rows[state.process_index :: state.num_processes].tolist():
            batch = dataset.batch(BatchRequest(0, (row,), is_last_of_step=True, global_rows=1)).to(device)
            text = backbone.join(backbone.embed_tokens(batch.input_ids).float(), None, batch.attention_mask)
            loss_per_example(backbone.logits(text, batch.labels), batch.labels).sum().backward()
            meter.add(state.num_processes)
        model.train(was_training)
    sum_tensors_over_processes(sums.values())
    tuner.calibrate(context, sums)


def check_calibration(model: AdaptedModel) -> None:
    """Refuses a calibration that cannot be had.

    Raises:
        ConfigError: As `calibrate`.
    """
    if model.tuner.calibration_rows and model.backbone.is_sharded:
        raise ConfigError(
            f"tuner: the start of {model.tuner.config.label!r} needs gradients of the whole backbone, and FSDP leaves "
            "each process a share of it; launch without FSDP, or choose a start that needs no training data "
            "(tuner.init=magnitude)"
        )


@contextmanager
def _squaring(model: nn.Module, names: Collection[str]) -> Iterator[dict[str, Tensor]]:
    """Adds up squared gradients of some parameters for the block; each gradient is given up as soon as it is there.

    Yields:
        Name to the sum so far, float32. Parameters are as they were after the block.
    """
    chosen = {name: parameter for name, parameter in model.named_parameters() if name in set(names)}
    before = {name: parameter.requires_grad for name, parameter in chosen.items()}
    sums = {name: torch.zeros_like(parameter, dtype=torch.float32) for name, parameter in chosen.items()}

    def add(name: str) -> Callable[[Tensor], None]:
        def hook(parameter: Tensor) -> None:
            assert parameter.grad is not None
            sums[name].addcmul_(parameter.grad.float(), parameter.grad.float())
            parameter.grad = None

        return hook

    handles = []
    try:
        for name, parameter in chosen.items():
            parameter.requires_grad_(True)
            handles.append(parameter.register_post_accumulate_grad_hook(add(name)))
        yield sums
    finally:
        for handle in handles:
            handle.remove()
        for name, parameter in chosen.items():
            parameter.requires_grad_(before[name])
