"""Rows of a prepared split to tokenised batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from datasets import Dataset

from dept_vl.data.collator import IGNORE_INDEX, Batch, Example, VisualTensors, by_rows, collate
from dept_vl.data.few_shot import FewShot, choose_rows
from dept_vl.data.manifest import OWN_ID, REFERENCE_COLUMNS, as_list
from dept_vl.data.sampler import BatchRequest, ImageGrouping, StepBatches
from dept_vl.data.text_codec import TextCodec
from dept_vl.data.visual import VisualSource
from dept_vl.errors import DataError
from dept_vl.tasks import Row, Task

_READ_ROWS = 4096


class TaskDataset(torch.utils.data.Dataset[tuple[BatchRequest, Batch]]):
    """One split of one task as batches. Templates and tokens are made here, so changing a prompt needs no `prepare`.

    ``dataset[request]`` is the request and its `Batch`: give it to a ``DataLoader`` with ``batch_size=None`` and a
    sampler of `BatchRequest`. What it returns depends on the request and the constructor's arguments alone.

    Attributes:
        task: As given.
        indices: Positions of the rows that batches are made of, (rows,) int64.
        few_shot: The choice that left them, or None.
        rows_per_image: As given.
    """

    def __init__(
        self,
        rows: Dataset,
        task: Task,
        codec: TextCodec,
        *,
        max_source_length: int,
        max_target_length: int,
        seed: int,
        visual: VisualSource | None = None,
        labels: Literal["none", "drawn", "heaviest"] = "none",
        padding: Literal["longest", "max_length"] = "longest",
        target_sampling: Literal["weighted", "best"] = "weighted",
        loss_weighting: Literal["none", "score"] = "none",
        words_before: Sequence[str] = (),
        rows_per_image: int | None = None,
    ) -> None:
        """Checks that every image of the split has its visual input.

        Args:
            rows: A prepared split, as ``manifest.open_split`` returns it.
            task: Makes the source text; a text task under its protocol.
            codec: Makes token ids from text, the backbone's way.
            max_source_length: Source tokens kept (s), special tokens and answer cue included; the rest is cut off.
            max_target_length: Target tokens kept, end-of-sequence included.
            seed: Decides the drawn targets, together with the step.
            visual: Visual input, or None for text only. Rows of which it skipped an image are left out of `indices`.
            labels: What targets batches carry: none; for training, one that `target_sampling` picks; for the validation
                loss, the heaviest (the first of equals), and a row without targets none.
            padding: To the batch's longest text or to `max_source_length`.
            target_sampling: Draw a target in proportion to its weight, or take the heaviest.
            loss_weighting: ``"score"`` multiplies an example's loss by its drawn target's weight.
            words_before: For training: one of them, or none, is put before the first text of a row's columns, drawn
                anew each step, so that what is trained does not learn where a text begins.
            rows_per_image: Training rows of one image that stand together, at most; None for each by itself.

        Raises:
            DataError: The split is empty, or images have no visual input; or its rows have no text to put words before,
                or no images by which they are to be grouped.
        """
        self.task = task
        self.few_shot: FewShot | None = None
        self.rows_per_image = rows_per_image
        self._rows = rows
        self._codec = codec
        self._max_source_length = max_source_length
        self._max_target_length = max_target_length
        self._seed = seed
        self._visual = visual
        self._labels = labels
        self._pad_to_length = max_source_length if padding == "max_length" else None
        self._target_sampling = target_sampling
        self._loss_weighting = loss_weighting
        self._words_before = ("", *words_before) if labels == "drawn" else ("",)
        if len(self._words_before) > 1 and not task.input_columns:
            raise DataError(f"data.words_before: rows of task {task.name!r} have no text of their own; leave it out")
        if rows_per_image is not None and visual is None:
            raise DataError(f"data.rows_per_image: rows of task {task.name!r} have no images; leave it out")
        if len(rows) == 0:
            raise DataError(f"task {task.name!r}: the split has no rows; check what `dept-vl prepare` reported")
        self.indices = self._readable()

    def __len__(self) -> int:
        return len(self._rows)

    def _readable(self) -> np.ndarray:
        """Returns the row numbers whose visual input can be read, (rows,) int64."""
        every = np.arange(len(self._rows))
        if self._visual is None:
            return every
        image_ids = _column(self._rows, "image_id")
        missing = self._visual.missing(set(np.unique(image_ids).tolist()))
        if missing:
            raise DataError(
                f"the feature store has no features for {len(missing)} of the split's images "
                f"({', '.join(map(str, missing[:5]))}{', ...' if len(missing) > 5 else ''}); "
                f"add them: dept-vl cache-features --task {self.task.name}{'.yaml' * self.task.is_own} --data-dir DIR"
            )
        if not self._visual.skipped:
            return every
        is_skipped = np.isin(image_ids, list(self._visual.skipped)).reshape(len(every), -1)  # (rows, images)
        kept = every[~is_skipped.any(axis=1)]
        if len(kept) == 0:
            raise DataError(
                "every image of the split was skipped: none could be read (skipped.jsonl of its features says why)"
            )
        return kept

    @property
    def fewest_rows(self) -> int:
        """Rows that a step is made of at least, if a batch is no smaller."""
        return len(self.indices)

    def train_batches(self, batch_size: int, seed: int, *, by_length: bool) -> StepBatches:
        """Returns which rows make up which step; by length: texts of like length together."""
        images = None if self.rows_per_image is None else ImageGrouping(self.image_keys, self.rows_per_image)
        return StepBatches(self.indices, batch_size, seed, self.source_lengths if by_length else None, images)

    def keep_few(self, few_shot: FewShot, class_names: Sequence[str]) -> None:
        """Leaves the rows of a few-shot choice in `indices` and no others.

        Args:
            few_shot: How many, by which rule, from which seed.
            class_names: Every class, empty for a task that has none; `Task.few_shot_class` sorts targets into them.

        Raises:
            ConfigError: The choice cannot be made; the message names task, class and count.
        """
        classes = None
        if class_names:
            targets = self._rows.select_columns(["targets"])[self.indices.tolist()]["targets"]
            classes = [self.task.few_shot_class(target[0]) for target in targets]
        where = f" in task {self.task.name!r}"
        self.indices = self.indices[choose_rows(few_shot, len(self.indices), classes, class_names, where=where)]
        self.few_shot = few_shot

    def describe_few_shot(self) -> dict[str, Any]:
        """Returns which rows the few-shot choice left, and what it was a function of."""
        assert self.few_shot is not None
        rows = {"rows": self.indices.tolist(), "example_ids": self.example_ids(self.indices)}
        return {**asdict(self.few_shot), **rows}

    def has_targets(self, limit: int | None = None) -> bool:
        """Returns whether any row that batches are made of, among the split's first `limit`, has a target."""
        rows = self.indices if limit is None else self.indices[self.indices < limit]
        parts = (rows[start : start + _READ_ROWS].tolist() for start in range(0, len(rows), _READ_ROWS))
        targets = self._rows.select_columns(["targets"])
        return any(any(targets[part]["targets"]) for part in parts)

    def sources(self, indices: Sequence[int]) -> list[str]:
        """Returns the source texts of some rows."""
        return [self.task.source_text(row) for row in self._read(indices)]

    def source_lengths(self, indices: Sequence[int]) -> list[int]:
        """Returns the source lengths of some rows in tokens, cut to `max_source_length`."""
        return [len(ids) for ids in self._source_ids(self.sources(indices))]

    def image_keys(self, indices: Sequence[int]) -> np.ndarray:
        """Returns a number for each of some rows, below the split's length, the same for rows of the same images."""
        return self._image_keys[list(indices)]

    @cached_property
    def _image_keys(self) -> np.ndarray:
        if self._visual is None:
            return np.arange(len(self._rows))
        image_ids = _column(self._rows, "image_id").reshape(len(self._rows), -1)  # (rows, images)
        keys: np.ndarray = np.unique(image_ids, axis=0, return_inverse=True)[1]
        return keys.reshape(-1)

    def count_long(self) -> int:
        """Returns how many sources of `indices` have more than `max_source_length` tokens."""
        starts = range(0, len(self.indices), _READ_ROWS)
        parts = (self.indices[start : start + _READ_ROWS].tolist() for start in starts)
        return sum(self._codec.count_longer(self.sources(part), self._max_source_length) for part in parts)

    def example_ids(self, rows: Sequence[int] | np.ndarray | None = None) -> list[int]:
        """Returns the ids of some rows, by their numbers in the split; of every row without any."""
        ids = _column(self._rows, "example_id")
        return [int(number) for number in (ids if rows is None else ids[list(rows)])]

    def result_ids(self) -> list[int] | list[str]:
        """Returns what results call every row: the ids of the user's rows where those are texts, else `example_ids`."""
        return list(self._rows[OWN_ID][:]) if OWN_ID in self._rows.column_names else self.example_ids()

    def references(self) -> list[Row]:
        """Returns every row with what evaluators need: id, references and, where there are, types and group."""
        return self._columns(REFERENCE_COLUMNS)

    def inputs(self) -> list[Row]:
        """Returns every row with what people need to judge an answer: paths of images, and the template's columns."""
        return self._columns(("image", *self.task.input_columns))

    def _columns(self, names: Sequence[str]) -> list[Row]:
        known = [name for name in names if name in self._rows.column_names]
        return list(self._rows.select_columns(known)) if known else [{} for _ in range(len(self._rows))]

    def __getitem__(self, request: BatchRequest) -> tuple[BatchRequest, Batch]:
        """Returns a request with its batch, for a ``DataLoader``."""
        return request, self.batch(request)

    def batch(self, request: BatchRequest) -> Batch:
        """Returns the batch of one request."""
        rows = self._read(request.indices)
        source_ids = self._source_ids([self.task.source_text(self._begun(row, request.step)) for row in rows])
        labels, weights = self._targets(rows, request.step)
        examples = [
            Example(example_id=row["example_id"], input_ids=ids, labels=label, loss_weight=weight)
            for row, ids, label, weight in zip(rows, source_ids, labels, weights, strict=True)
        ]
        return collate(
            examples,
            self._codec.pad_token_id,
            pad_to_length=self._pad_to_length,
            **self._visual_input(rows),
        )

    def _begun(self, row: Row, step: int) -> Row:
        """Returns a row whose text begins with drawn words, or with none; a function of (seed, step, example)."""
        if len(self._words_before) == 1:
            return row
        rng = np.random.default_rng([self._seed, 3, step, row["example_id"]])
        words = self._words_before[rng.integers(len(self._words_before))]
        column = next(name for name in self.task.input_columns if isinstance(row[name], str))
        return {**row, column: f"{words} {row[column]}"} if words else row

    def _visual_input(self, rows: Sequence[Row]) -> VisualTensors:
        if self._visual is None:
            return {}
        image_ids = [image_id for row in rows for image_id in as_list(row["image_id"])]
        read = self._visual.read(image_ids, [image for row in rows for image in as_list(row["image"])])
        if self.task.num_images == 1:
            return read
        return by_rows(read, len(rows))

    def _targets(self, rows: Sequence[Row], step: int) -> tuple[list[list[int]], list[float]]:
        """Returns each row's label ids and the weight of its loss."""
        ones = [1.0] * len(rows)
        if self._labels == "none":
            return [[] for _ in rows], ones
        if self._labels == "heaviest":
            texts = [row["targets"][int(np.argmax(row["target_weights"]))] if row["targets"] else "" for row in rows]
            ids = self._codec.target_ids(texts, self._max_target_length)
            return [own if row["targets"] else [IGNORE_INDEX] for row, own in zip(rows, ids, strict=True)], ones
        drawn = [self._draw_target(row, step) for row in rows]
        weights = [weight if self._loss_weighting == "score" else 1.0 for _, weight in drawn]
        return self._codec.target_ids([text for text, _ in drawn], self._max_target_length), weights

    def _draw_target(self, row: Row, step: int) -> tuple[str, float]:
        """Returns one target of a row and its weight; the draw depends on (seed, step, example) alone."""
        targets, weights = row["targets"], row["target_weights"]
        if len(targets) == 1:
            return targets[0], weights[0]
        if self._target_sampling == "best":
            pick = int(np.argmax(weights))
        else:
            shares = np.asarray(weights, dtype=np.float64)
            rng = np.random.default_rng([self._seed, 2, step, row["example_id"]])
            pick = int(rng.choice(len(shares), p=shares / shares.sum()))
        return targets[pick], weights[pick]

    def _read(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        columns = self._rows[list(indices)]
        return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]

    def _source_ids(self, texts: Sequence[str]) -> list[list[int]]:
        return self._codec.source_ids(texts, self._max_source_length)


def _column(rows: Dataset, name: str) -> np.ndarray:
    return np.asarray(rows.with_format("numpy")[name][:])
