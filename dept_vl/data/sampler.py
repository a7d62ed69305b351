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


def whole_batches(num_rows: int, batch_size: int) -> int:
    """Returns the steps of one pass over rows: whole batches, or one of all rows where there are fewer."""
    return num_rows // min(batch_size, num_rows)


class Steps(Protocol):
    """Says which rows make up a step."""

    def rows(self, step: int) -> list[int]:
        """Returns the row numbers of optimiser step `step` (from 0)."""
        ...


@dataclass(frozen=True)
class ImageGrouping:
    """Says which rows have the same images, and how many of those stand together.

    Attributes:
        keys: Row numbers to one number a row, (rows,) int64, the same for rows of the same images.
        most: Rows that stand together at most.
    """

    keys: Callable[[Sequence[int]], np.ndarray]
    most: int


class StepBatches:
    """Deterministic training batches, grouped by length within shuffled pools.

    Every epoch is a fresh permutation of the rows; the rows left over after the last whole batch are dropped (another
    permutation takes them up). A split smaller than a batch is one batch.

    Grouped by image, rows of one image come one after the other, where the first of them stands in the permutation; a
    batch that ends among them leaves the others to the next. By length too, such groups are sorted by their longest.
    """

    def __init__(
        self,
        rows: np.ndarray,
        batch_size: int,
        seed: int,
        lengths: Callable[[Sequence[int]], Sequence[float]] | None = None,
        images: ImageGrouping | None = None,
    ) -> None:
        """Takes the rows to train on.

        Args:
            rows: Row numbers, (rows,) int64, at least one.
            batch_size: Rows a step.
            seed: Decides every order.
            lengths: Row numbers to source lengths in tokens, called for one pool at a time; None for no grouping.
            images: Which rows stand together; None for each by itself.
        """
        self.batch_size = min(batch_size, len(rows))
        self.steps_per_epoch = whole_batches(len(rows), batch_size)
        self._rows = rows
        self._seed = seed
        self._lengths = lengths
        self._images = images
        self._epoch: tuple[int, np.ndarray, np.ndarray] | None = None
        self._pool: tuple[tuple[int, int], np.ndarray] | None = None

    def rows(self, step: int) -> list[int]:
        """Returns the row numbers of optimiser step `step` (from 0)."""
        epoch, step_in_epoch = divmod(step, self.steps_per_epoch)
        if self._lengths is None:
            start = step_in_epoch * self.batch_size
            return list(self._order(epoch)[0][start : start + self.batch_size].tolist())
        pool, step_in_pool = divmod(step_in_epoch, POOL_BATCHES)
        return list(self._grouped(epoch, pool)[step_in_pool].tolist())

    def _order(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the rows of an epoch in their order, and which group each is of, counted up, both (rows,)."""
        if self._epoch is None or self._epoch[0] != epoch:
            order = self._permutation(epoch)
            groups = np.arange(len(order))
            if self._images is not None:
                groups = group_by_image(self._images.keys(order.tolist()), self._images.most)
                together = np.argsort(groups, kind="stable")
                order, groups = order[together], groups[together]
            self._epoch = (epoch, order, groups)
        return self._epoch[1:]

    def _permutation(self, epoch: int) -> np.ndarray:
        """Returns the rows of an epoch, each by itself."""
        return np.random.default_rng([self._seed, 0, epoch]).permutation(self._rows)

    def _grouped(self, epoch: int, pool: int) -> np.ndarray:
        """Returns the rows of one pool, shape (batches, batch_size): like lengths together, batches shuffled."""
        if self._pool is None or self._pool[0] != (epoch, pool):
            assert self._lengths is not None
            end, span = self.steps_per_epoch * self.batch_size, POOL_BATCHES * self.batch_size
            here = slice(pool * span, min((pool + 1) * span, end))
            rows, groups = (one[here] for one in self._order(epoch))
            lengths = longest_of_group(np.asarray(self._lengths(rows.tolist())), groups)
            by_length = rows[np.argsort(lengths, kind="stable")]
            batches = by_length.reshape(-1, self.batch_size)
            np.random.default_rng([self._seed, 1, epoch, pool]).shuffle(batches, axis=0)
            self._pool = ((epoch, pool), batches)
        return self._pool[1]


def group_by_image(keys: np.ndarray, most: int | None = None) -> np.ndarray:
    """Returns which group each row is of, (rows,), groups counted in the order of their first rows.

    Args:
        keys: (rows,), the same for rows of the same images.
        most: Rows of a group at most; None for all of an image.
    """
    if len(keys) == 0:
        return np.zeros(0, dtype=np.int64)
    by_key = np.argsort(keys, kind="stable")
    is_new = np.diff(keys[by_key], prepend=keys[by_key[0]] - 1) != 0
    starts = np.flatnonzero(is_new)
    rank = np.arange(len(keys)) - starts[is_new.cumsum() - 1]  # of a row among those of its image
    if most is not None:
        is_new |= rank % most == 0
    first = by_key[np.flatnonzero(is_new)]  # the place of each group's first row: sorting left those in their order
    groups = np.empty(len(keys), dtype=np.int64)
    groups[by_key] = np.argsort(np.argsort(first))[is_new.cumsum() - 1]
    return groups


def longest_of_group(lengths: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Returns for each row the length of the longest of its group, both (rows,)."""
    _, number = np.unique(groups, return_inverse=True)
    longest = np.zeros(number.max(initial=-1) + 1, dtype=lengths.dtype)
    np.maximum.at(longest, number, lengths)
    return longest[number]


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
        keeps_neighbours: bool = False,
    ) -> None:
        """Takes the batches and this process's place among its fellows.

        Args:
            batches: Which rows make up a step.
            first_step: From 0.
            max_steps: The step after the last.
            process_index: This process.
            num_processes: How many share a step.
            accumulation_steps: Passes of each in a step.
            keeps_neighbours: Whether each pass has rows that follow each other; else they are dealt out one by one.
        """
        self._batches = batches
        self._steps = range(first_step, max_steps)
        self._place = (process_index, num_processes)
        self._accumulation_steps = accumulation_steps
        self._keeps_neighbours = keeps_neighbours

    def __len__(self) -> int:
        return len(self._steps) * self._accumulation_steps

    def __iter__(self) -> Iterator[BatchRequest]:
        """Yields `accumulation_steps` requests a step; the shares of all processes make up the step's batch."""
        process_index, num_processes = self._place
        passes = self._accumulation_steps
        for step in self._steps:
            rows = self._batches.rows(step)
            mine = rows[process_index::num_processes]
            for part in range(passes):
                share = mine[part::passes]
                if self._keeps_neighbours:
                    place, places = process_index * passes + part, num_processes * passes
                    share = rows[len(rows) * place // places : len(rows) * (place + 1) // places]
                yield BatchRequest(
                    step=step,
                    indices=tuple(share),
                    is_last_of_step=part == self._accumulation_steps - 1,
                    global_rows=len(rows),
                )


def evaluation_requests(
    rows: np.ndarray,
    lengths: Sequence[int],
    batch_size: int,
    *,
    images: np.ndarray | None = None,
    process_index: int = 0,
    num_processes: int = 1,
) -> list[BatchRequest]:
    """Cuts rows into batches of like length, longest first, one process's share of them.

    With images, rows of one image follow each other, sorted by the longest of them, and processes share whole batches.

    Args:
        rows: Row numbers to evaluate, (rows,) int64.
        lengths: Source length of each of them, in tokens.
        batch_size: Rows a batch.
        images: As `ImageGrouping.keys` gives them, of each row; None where it does not matter who stands beside whom.
        process_index: This process.
        num_processes: How many share the rows; each row goes to exactly one.
    """
    sizes, stride = np.asarray(lengths, dtype=np.int64), slice(process_index, None, num_processes)
    if images is None:
        order = rows[np.argsort(-sizes, kind="stable")][stride]
        parts = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    else:
        groups = group_by_image(images)
        order = rows[np.lexsort((groups, -longest_of_group(sizes, groups)))]
        parts = [order[start : start + batch_size] for start in range(0, len(order), batch_size)][stride]
    return [
        BatchRequest(step=0, indices=tuple(part.tolist()), is_last_of_step=True, global_rows=len(rows))
        for part in parts
    ]
