"""The training rows of several tasks as batches: which task and rows a step gets is a function of (seed, step) alone.

A row's number counts the rows of all splits, those of the first task first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch

from dept_vl.data.collator import Batch, join_batches
from dept_vl.data.dataset import TaskDataset
from dept_vl.data.sampler import BatchRequest, ImageGrouping, StepBatches, Steps

MixBatches = Literal["mixed", "one-task", "shuffled"]
"""How tasks share steps."""

_BLOCK_STEPS = 1024
"""Steps whose tasks are drawn together."""


class OneTaskBatches:
    """Every step is one task's.

    Drawn anew with the tasks' rates, as in HyperFormer (``hyperformer/data/multitask_sampler.py``), or as they come in
    an epoch of steps in which each task has its share, by its rate, and which is shuffled (``roundrobin`` of the
    ``MultitaskLoader`` of VL-T5 and Sung et al. 2022). A task's rows come in shuffled passes, every row once a pass;
    HyperFormer's sampler draws rows with replacement.
    """

    def __init__(
        self, tasks: Sequence[StepBatches], rates: Sequence[float], seed: int, *, epoch_steps: int | None = None
    ) -> None:
        """Takes the steps of each task alone.

        Args:
            tasks: They.
            rates: How often each task is drawn, summing to 1.
            seed: Decides the draws.
            epoch_steps: Steps of an epoch in which each task has its share; None to draw each step's anew.
        """
        self._tasks = tuple(tasks)
        self._rates = np.asarray(rates, dtype=np.float64)
        self._seed = seed
        self._quotas = None if epoch_steps is None else _share_out(max(epoch_steps, len(tasks)), rates)
        self._block_steps = _BLOCK_STEPS if self._quotas is None else sum(self._quotas)
        self._drawn_before = [np.zeros(len(self._tasks), dtype=np.int64)]
        self._block: tuple[int, np.ndarray] | None = None

    def task(self, step: int) -> int:
        """Returns the task of optimiser step `step` (from 0), by its place."""
        block, place = divmod(step, self._block_steps)
        return int(self._draws(block)[place])

    def rows(self, step: int) -> list[int]:
        """Returns the row numbers of optimiser step `step` (from 0)."""
        block, place = divmod(step, self._block_steps)
        while len(self._drawn_before) <= block:
            counts = np.bincount(self._draws(len(self._drawn_before) - 1), minlength=len(self._tasks))
            self._drawn_before.append(self._drawn_before[-1] + counts)
        draws = self._draws(block)
        task = int(draws[place])
        visit = self._drawn_before[block][task] + np.count_nonzero(draws[:place] == task)
        return self._tasks[task].rows(int(visit))

    def _draws(self, block: int) -> np.ndarray:
        """Returns the tasks of a block of steps, (steps,)."""
        if self._block is None or self._block[0] != block:
            rng, count = np.random.default_rng([self._seed, 3, block]), len(self._tasks)
            if self._quotas is None:
                drawn = rng.choice(count, size=self._block_steps, p=self._rates / self._rates.sum())
            else:
                drawn = rng.permutation(np.repeat(np.arange(count), self._quotas))
            self._block = (block, drawn)
        return self._block[1]


class MixedBatches(StepBatches):
    """Every step has rows of all tasks, as they come in an epoch that is shuffled as a whole.

    An epoch is as many rows as all tasks have. Each task has its share of it, by its rate, and at least one; its rows
    follow each other from epoch to epoch in shuffled passes. In proportion to size, an epoch is every row of every task
    once: the concatenated and shuffled data sets of ATTEMPT and MPT.
    """

    def __init__(
        self,
        tasks: Sequence[np.ndarray],
        rates: Sequence[float],
        batch_size: int,
        seed: int,
        lengths: Callable[[Sequence[int]], Sequence[float]] | None = None,
        images: ImageGrouping | None = None,
    ) -> None:
        """Takes the rows of each task.

        Args:
            tasks: Row numbers of each, (rows,) int64, at least one.
            rates: How often each is drawn, summing to 1.
            batch_size: As `StepBatches`.
            seed: As `StepBatches`.
            lengths: As `StepBatches`.
            images: As `StepBatches`.
        """
        super().__init__(np.concatenate(tasks), batch_size, seed, lengths, images)
        self._of_task = tuple(tasks)
        self.quotas = _share_out(len(self._rows), rates)

    def _permutation(self, epoch: int) -> np.ndarray:
        rows = np.concatenate([self._stream(task, epoch) for task in range(len(self._of_task))])
        return np.random.default_rng([self._seed, 0, epoch]).permutation(rows)

    def _stream(self, task: int, epoch: int) -> np.ndarray:
        """Returns a task's rows in an epoch: the next ones of its endless row of shuffled passes."""
        rows, quota = self._of_task[task], self.quotas[task]
        first, last = divmod(epoch * quota, len(rows)), divmod((epoch + 1) * quota - 1, len(rows))
        passes = [
            np.random.default_rng([self._seed, 4, task, number]).permutation(rows)
            for number in range(first[0], last[0] + 1)
        ]
        return np.concatenate(passes)[first[1] : first[1] + quota]


def _share_out(total: int, rates: Sequence[float]) -> list[int]:
    """Returns whole shares of `total` by rates: the largest remainders are rounded up, and none is empty."""
    exact = total * np.asarray(rates, dtype=np.float64)
    shares = np.floor(exact).astype(np.int64)
    for place in np.argsort(shares - exact, kind="stable")[: total - int(shares.sum())]:
        shares[place] += 1
    for place in np.flatnonzero(shares == 0):
        shares[int(np.argmax(shares))] -= 1
        shares[place] = 1
    return [int(share) for share in shares]


class MixDataset(torch.utils.data.Dataset[tuple[BatchRequest, Batch]]):
    """The training splits of several tasks as batches with task ids; used as `TaskDataset`.

    Attributes:
        indices: Numbers of the rows that batches are made of, (rows,) int64.
        few_shot: The choice that left them in each task, or None.
    """

    def __init__(
        self, datasets: Sequence[TaskDataset], rates: Sequence[float], pad_token_id: int, *, batches: MixBatches
    ) -> None:
        """Takes the training split of each task.

        Args:
            datasets: In the order of their task ids.
            rates: How often each is drawn, summing to 1.
            pad_token_id: Fills ``input_ids``.
            batches: ``"mixed"``: `MixedBatches`; else `OneTaskBatches`, each step's task drawn anew (``"one-task"``),
                or in epochs that are shuffled (``"shuffled"``).
        """
        self.few_shot = datasets[0].few_shot
        self._datasets = tuple(datasets)
        self._rates = tuple(rates)
        self._pad_token_id = pad_token_id
        self._batches = batches
        self._first = np.cumsum([0, *(len(one) for one in datasets)])
        self.indices = np.concatenate(self._rows())

    def __len__(self) -> int:
        return int(self._first[-1])

    def _rows(self) -> list[np.ndarray]:
        """Returns the numbers of each task's rows."""
        return [one.indices + first for one, first in zip(self._datasets, self._first, strict=False)]

    @property
    def fewest_rows(self) -> int:
        """Rows that a step is made of at least, if a batch is no smaller."""
        return len(self.indices) if self._batches == "mixed" else min(len(one.indices) for one in self._datasets)

    def train_batches(self, batch_size: int, seed: int, *, by_length: bool) -> Steps:
        """Returns which rows make up which step.

        By length: in steps of one task, texts of like length together; in mixed ones, of each task the texts that are
        as long among its own, so that its share of a step stays.
        """
        most = self._datasets[0].rows_per_image
        images = None if most is None else ImageGrouping(self.image_keys, most)
        if self._batches == "mixed":
            ranks = self.length_ranks if by_length else None
            return MixedBatches(self._rows(), self._rates, batch_size, seed, ranks, images)
        lengths = self.source_lengths if by_length else None
        seeds = np.random.SeedSequence([seed, 3]).generate_state(len(self._datasets), dtype=np.uint32)
        alone = [
            StepBatches(rows, batch_size, int(own), lengths, images)
            for rows, own in zip(self._rows(), seeds, strict=True)
        ]
        epoch_steps = len(self.indices) // batch_size if self._batches == "shuffled" else None
        return OneTaskBatches(alone, self._rates, seed, epoch_steps=epoch_steps)

    def describe_few_shot(self) -> dict[str, Any]:
        """Returns `TaskDataset.describe_few_shot` of each task, by its name."""
        return {one.task.name: one.describe_few_shot() for one in self._datasets}

    def source_lengths(self, rows: Sequence[int]) -> list[int]:
        """Returns the source lengths of some rows in tokens, by their numbers."""
        lengths = np.zeros(len(rows), dtype=np.int64)
        for task, places, own in self._by_task(rows):
            lengths[places] = self._datasets[task].source_lengths(own)
        return [int(length) for length in lengths]

    def image_keys(self, rows: Sequence[int]) -> np.ndarray:
        """Returns `TaskDataset.image_keys` of some rows, by their numbers; tasks have no images in common."""
        keys = np.zeros(len(rows), dtype=np.int64)
        for task, places, own in self._by_task(rows):
            keys[places] = self._first[task] + self._datasets[task].image_keys(own)
        return keys

    def length_ranks(self, rows: Sequence[int]) -> list[float]:
        """Returns where each row's source length stands among those of its own task here, between 0 and 1."""
        ranks = np.zeros(len(rows))
        for task, places, own in self._by_task(rows):
            lengths = np.asarray(self._datasets[task].source_lengths(own))
            order = places[np.argsort(lengths, kind="stable")]
            ranks[order] = (np.arange(len(order)) + 0.5) / len(order)
        return [float(rank) for rank in ranks]

    def _by_task(self, rows: Sequence[int]) -> list[tuple[int, np.ndarray, list[int]]]:
        """Returns of each task among some rows: its place, where its rows stand, and their numbers in its split."""
        numbers = np.asarray(rows, dtype=np.int64)
        tasks = np.searchsorted(self._first, numbers, side="right") - 1
        found = ((int(task), np.flatnonzero(tasks == task)) for task in np.unique(tasks))
        return [(task, places, (numbers[places] - self._first[task]).tolist()) for task, places in found]

    def __getitem__(self, request: BatchRequest) -> tuple[BatchRequest, Batch]:
        """Returns a request with its batch, for a ``DataLoader``."""
        return request, self.batch(request)

    def batch(self, request: BatchRequest) -> Batch:
        """Returns the batch of one request, the rows of each task together.

        Raises:
            DataError: As `join_batches`.
        """
        parts = []
        for task, _, own in self._by_task(request.indices):
            part = self._datasets[task].batch(replace(request, indices=tuple(own)))
            parts.append(replace(part, task_ids=torch.full((len(own),), task)))
        return join_batches(parts, self._pad_token_id)
