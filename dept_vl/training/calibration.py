"""First values that depend on the training data: squared gradients of the frozen backbone, for a method that asks."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from types import TracebackType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dept_vl.data.dataset import TaskDataset
from dept_vl.data.mixture import MixDataset
from dept_vl.data.sampler import BatchRequest
from dept_vl.errors import ConfigError
from dept_vl.models.adapted_model import AdaptedModel
from dept_vl.models.language.base import Backbone
from dept_vl.models.loss import loss_per_example
from dept_vl.system.processes import process_state, sum_tensors_over_processes
from dept_vl.system.progress import Meter

logger = logging.getLogger(__name__)


def calibrate(model: AdaptedModel, dataset: TaskDataset | MixDataset, *, seed: int, device: torch.device) -> None:
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
    state = process_state()
    label = f"squared gradients of the frozen {backbone.family} on rows of the training split"
    if state.is_main_process:
        logger.info("before the first step: %s, %d of them", label, len(rows))
    meter = Meter(len(rows), label, "rows", is_shown=state.is_main_process)
    with SquaredGradients(backbone, tuner.calibrated_parameters(context)) as found, meter:
        for row in rows[state.process_index :: state.num_processes].tolist():
            _, batch = dataset[BatchRequest(0, (row,), is_last_of_step=True, global_rows=1)]
            batch = batch.to(device)
            found.add(batch.input_ids, batch.attention_mask, batch.labels)
            meter.add(state.num_processes)
    sum_tensors_over_processes(found.sums.values())
    tuner.calibrate(context, found.sums)


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


class SquaredGradients:
    """Adds up squared gradients of a frozen backbone's parameters, without dropout; a context manager.

    Inside its block the parameters take gradients, each of which is given up as soon as it is added: beside the
    backbone itself there is one more number for each of theirs. Afterwards they are as they were.

    Attributes:
        sums: Parameter by name to the sum so far, float32.
    """

    def __init__(self, backbone: Backbone[Any], names: Collection[str]) -> None:
        """Takes the backbone and the names of its parameters."""
        self._backbone = backbone
        chosen = set(names)
        self._parameters = {name: p for name, p in backbone.model.named_parameters() if name in chosen}
        self.sums = {name: torch.zeros_like(p, dtype=torch.float32) for name, p in self._parameters.items()}

    def add(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor) -> None:
        """Adds the squares of one loss's gradients.

        Args:
            input_ids: (1, text) token ids of one row: the gradient of several rows together would be another.
            attention_mask: (1, text).
            labels: (1, target) ids; the loss is the mean over them.
        """
        backbone = self._backbone
        text = backbone.join(backbone.embed_tokens(input_ids).float(), None, attention_mask)
        loss_per_example(backbone.logits(text, labels), labels).sum().backward()

    def __enter__(self) -> SquaredGradients:
        """Lets the parameters take gradients."""
        self._was_training = self._backbone.training
        self._backbone.eval()
        self._handles = []
        self._took_gradients = [parameter.requires_grad for parameter in self._parameters.values()]
        for name, parameter in self._parameters.items():
            parameter.requires_grad_(True)
            self._handles.append(parameter.register_post_accumulate_grad_hook(self._adder(name)))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leaves them as they were."""
        for handle in self._handles:
            handle.remove()
        for parameter, took_gradients in zip(self._parameters.values(), self._took_gradients, strict=True):
            parameter.requires_grad_(took_gradients)
        self._backbone.train(self._was_training)

    def _adder(self, name: str) -> Callable[[Tensor], None]:
        def add(parameter: Tensor) -> None:
            assert parameter.grad is not None
            gradient = parameter.grad.float()
            self.sums[name].addcmul_(gradient, gradient)
            parameter.grad = None

        return add
