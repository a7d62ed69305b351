"""Which rows make up which batch: a function of (seed, step) alone, so that any step can be re-made."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

POOL_BATCHES = 20
"""Batches whose rows are sorted by length together: enough to group, few enough to keep the order random."""


@dataclass(frozen=True)
class BatchRequest:
    """One backward pass of one process: the rows to read and the step they belong to.

    Attributes:
        step: Optimiser step, counted from 0; drawn targets depend on it.
        indices: Row numbers of the split.
        is_last_of_step: Whether the optimiser steps after this one.
        global_rows: Rows of the whole step, over all processes and accumulated passes.
    """

    step: int
    indices: tuple[int, ...]
    is_last_of_step: bool
    global_rows: int


class Steps(Protocol):
    """Says which rows make up a step."""

    def rows(self, step: int) -> list[int]:
        """Returns the row numbers of optimiser step `step` (from 0)."""
        ...


class StepBatches:
    """Deterministic training batches, grouped by length within shuffled pools.

    Every epoch is a fresh permutation of the rows; the rows left over after the last whole batch are dropped (another
    permutation takes them up). A split smaller than a batch is one batch.
    """

    def __init__(
        self,
        rows: np.ndarray,
        batch_size: int,
        seed: int,
        lengths: Callable[[Sequence[int]], Sequence[float]] | None = None,
    ) -> None:
        """Takes the rows to train on.

        Args:
            rows: Row numbers, (rows,) int64, at least one.
            batch_size: Rows a step.
            seed: Decides every order.
            lengths: Row numbers to source lengths in tokens, called for one pool at a time; None for no grouping.
        """
        self.batch_size = min(batch_size, len(rows))
        self.steps_per_epoch = len(rows) // self.batch_size
        self._rows = rows
        self._seed = seed
        self._lengths = lengths
        self._epoch: tuple[int, np.ndarray] | None = None
        self._pool: tuple[tuple[int, int], np.ndarray] | None = None

    def rows(self, step: int) -> list[int]:
        """Returns the row numbers of optimiser step `step` (from 0)."""
        epoch, step_in_epoch = divmod(step, self.steps_per_epoch)
        if self._lengths is None:
            start = step_in_epoch * self.batch_size
            return list(self._permutation(epoch)[start : start + self.batch_size].tolist())
        pool, step_in_pool = divmod(step_in_epoch, POOL_BATCHES)
        return list(self._grouped(epoch, pool)[step_in_pool].tolist())

    def _permutation(self, epoch: int) -> np.ndarray:
        if self._epoch is None or self._epoch[0] != epoch:
            order = np.random.default_rng([self._seed, 0, epoch]).permutation(self._rows)
            self._epoch = (epoch, order)
        return self._epoch[1]

    def _grouped(self, epoch: int, pool: int) -> np.ndarray:
        """Returns the rows of one pool, shape (batches, batch_size): like lengths together, batches shuffled."""
        if self._pool is None or self._pool[0] != (epoch, pool):
            assert self._lengths is not None
            whole = self._permutation(epoch)[: self.steps_per_epoch * self.batch_size]
            span = POOL_BATCHES * self.batch_size
            rows = whole[pool * span : (pool + 1) * span]
            by_length = rows[np.argsort(np.asarray(self._lengths(rows.tolist())), kind="stable")]
            batches = by_length.reshape(-1, self.batch_size)
            np.random.default_rng([self._seed, 1, epoch, pool]).shuffle(batches, axis=0)
            self._pool = ((epoch, pool), batches)
        return self._pool[1]


class TrainRequests:
    """The stream of `BatchRequest` of one process, from any step on; feeds a ``DataLoader`` as its sampler."""

    def __init__(
        self,
        batches: Steps,
        first_step: int,
        max_steps: int,
        *,
        process_index: int = 0,
        num_processes: int = 1,
        accumulation_steps: int = 1,
    ) -> None:
        """Takes the batches and this process's place among its fellows."""
        self._batches = batches
        self._steps = range(first_step, max_steps)
        self._place = (process_index, num_processes)
        self._accumulation_steps = accumulation_steps

    def __len__(self) -> int:
        return len(self._steps) * self._accumulation_steps

    def __iter__(self) -> Iterator[BatchRequest]:
        """Yields `accumulation_steps` requests a step; the shares of all processes make up the step's batch."""
        process_index, num_processes = self._place
        for step in self._steps:
            rows = self._batches.rows(step)
            mine = rows[process_index::num_processes]
            for part in range(self._accumulation_steps):
                yield BatchRequest(
                    step=step,
                    indices=tuple(mine[part :: self._accumulation_steps]),
                    is_last_of_step=part == self._accumulation_steps - 1,
                    global_rows=len(rows),
                )


def evaluation_requests(
    rows: np.ndarray, lengths: Sequence[int], batch_size: int, *, process_index: int = 0, num_processes: int = 1
) -> list[BatchRequest]:
    """Cuts rows into batches of like length, longest first, one process's share of them.

    Args:
        rows: Row numbers to evaluate, (rows,) int64.
        lengths: Source length of each of them, in tokens.
        batch_size: Rows a batch.
        process_index: This process.
        num_processes: How many share the rows; each row goes to exactly one.
    """
    order = rows[np.argsort(-np.asarray(lengths, dtype=np.int64), kind="stable")][process_index::num_processes]
    return [
        BatchRequest(step=0, indices=tuple(part.tolist()), is_last_of_step=True, global_rows=len(rows))
        for part in (order[start : start + batch_size] for start in range(0, len(order), batch_size))
    ]
