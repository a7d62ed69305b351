"""The batches of training: how a step is cut into parts, and reading them in step order."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

from accelerate import Accelerator
from torch import Tensor
from torch.utils.data import DataLoader

from dept_vl.data.collator import IGNORE_INDEX, Batch
from dept_vl.data.dataset import TaskDataset
from dept_vl.data.mixture import MixDataset
from dept_vl.data.sampler import BatchRequest, TrainRequests
from dept_vl.errors import ConfigError
from dept_vl.settings.schema import DataConfig, LoopConfig
from dept_vl.system import signals
from dept_vl.system.loading import read_loaded
from dept_vl.system.processes import sum_over_processes


def check_batch_size(data: DataConfig, loop: LoopConfig, num_rows: int, num_processes: int) -> None:
    """Refuses a batch that cannot be shared out evenly.

    Raises:
        ConfigError: The batch size does not divide by processes x accumulated passes, or there are fewer rows.
    """
    accumulation_steps = loop.accumulation_steps
    parts = num_processes * accumulation_steps
    if data.batch_size % parts:
        raise ConfigError(
            f"data.batch_size: {data.batch_size} must divide by processes x loop.accumulation_steps "
            f"= {num_processes} x {accumulation_steps}"
        )
    if num_rows < parts:
        raise ConfigError(
            f"loop.accumulation_steps: a split of {num_rows} rows cannot be cut into {parts} parts "
            f"({num_processes} processes x {accumulation_steps})"
        )


def read_steps(
    dataset: TaskDataset | MixDataset,
    data: DataConfig,
    loop: LoopConfig,
    accelerator: Accelerator,
    *,
    seed: int,
    first_step: int,
) -> Iterator[list[tuple[BatchRequest, Batch]]]:
    """Yields the backward passes of this process in each step from `first_step` (from 0) on.

    `loop` is in steps (`LoopConfig.in_steps`).
    """
    assert loop.max_steps is not None
    requests = TrainRequests(
        dataset.train_batches(data.batch_size, seed, by_length=data.length_grouping),
        first_step,
        loop.max_steps,
        process_index=accelerator.process_index,
        num_processes=accelerator.num_processes,
        accumulation_steps=loop.accumulation_steps,
        keeps_neighbours=data.rows_per_image is not None,
    )
    loader: Iterable[tuple[BatchRequest, Batch]] = DataLoader(
        dataset,
        batch_size=None,
        sampler=requests,
        num_workers=data.num_workers,
        pin_memory=accelerator.device.type == "cuda",
        worker_init_fn=signals.worker_init(),
    )
    parts: list[tuple[BatchRequest, Batch]] = []
    for request, batch in read_loaded(loader):
        parts.append((request, batch))
        if request.is_last_of_step:
            yield parts
            parts = []


def loss_terms(
    parts: Sequence[tuple[BatchRequest, Batch]], loss_mean: Literal["examples", "tokens"]
) -> tuple[list[Tensor], int]:
    """Returns by what each example's mean loss counts in a step, and what the sum of all is divided by.

    Whatever the processes and accumulated passes, a step's loss is the one of its whole batch.

    Args:
        parts: This process's backward passes of the step.
        loss_mean: ``data.loss_mean``.

    Returns:
        One (rows,) float32 a pass: the examples' weights, for ``"tokens"`` times their target tokens; and the rows, or
        the target tokens, of the whole step over all processes.
    """
    weights = [batch.loss_weights for _, batch in parts]
    if loss_mean == "examples":
        return weights, parts[0][0].global_rows
    tokens = [(batch.labels != IGNORE_INDEX).sum(dim=1) for _, batch in parts]
    (step_tokens,) = sum_over_processes([sum(int(counts.sum()) for counts in tokens)])
    return [weight * counts for weight, counts in zip(weights, tokens, strict=True)], step_tokens


def example_names(parts: Sequence[tuple[BatchRequest, Batch]], tasks: Sequence[str]) -> list[int | str]:
    """Returns what messages call the examples of a step: their ids, of several tasks ``task/id``."""
    names: list[int | str] = []
    for _, batch in parts:
        if batch.task_ids is None:
            names += batch.example_ids
        else:
            pairs = zip(batch.task_ids.tolist(), batch.example_ids, strict=True)
            names += [f"{tasks[task]}/{number}" for task, number in pairs]
    return names


class Timed:
    """An iterator that adds up how long it was waited for, `waited_s` seconds."""

    def __init__(self, steps: Iterator[list[tuple[BatchRequest, Batch]]]) -> None:
        self._steps = steps
        self.waited_s = 0.0

    def __iter__(self) -> Timed:
        return self

    def __next__(self) -> list[tuple[BatchRequest, Batch]]:
        started = time.perf_counter()
        try:
            return next(self._steps)
        finally:
            self.waited_s += time.perf_counter() - started
