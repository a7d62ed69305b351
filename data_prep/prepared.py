"""Writing a prepared task: its splits and ``stats.json``, all or nothing, with counts against the expected ones."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from data_prep.raw.json_files import RawFile
from dept_vl.data.manifest import OWN_ID, STATS, SplitInfo, read_references, task_folder, write_split
from dept_vl.errors import DataError
from dept_vl.evaluators import Reference, concerns, warn_of
from dept_vl.system.atomic import atomic_folder, remove_leftovers, write_json
from dept_vl.system.bounded_reading import hash_file
from dept_vl.system.locks import folder_lock, hold
from dept_vl.system.version import __version__
from dept_vl.tasks import Row, SplitSize, Task

logger = logging.getLogger(__name__)

IMAGES = "images"
"""Folder of a prepared task for the pictures that came in its rows."""


@dataclass(frozen=True)
class SplitCount:
    """How much of one split the raw files hold.

    Attributes:
        examples: Examples the raw files hold; what is compared with the expected number.
        images: Distinct images of those examples; None for text.
        rows: Rows written: `examples` without those that cannot be trained on.
        words: For each text column, lengths in whitespace-separated words: ``max``, ``p99`` and ``mean``.
    """

    examples: int
    images: int | None
    rows: int
    words: dict[str, dict[str, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class PreparedStats:
    """What `prepare` did; also the content of ``stats.json``.

    Attributes:
        task: Task name.
        folder: Where the splits were written.
        image_root: Folder that image paths are relative to; None for text.
        is_subset: Whether the raw files are not the complete ones, so that no counts are expected.
        splits: Counts by split; a split that could not be made is not in it.
        expected: Expected ``examples`` and ``images`` by split, of the complete data.
        left_out: What was not used, in words, to how many.
        inputs: Raw files by path relative to the raw folder, with size and sha256.
        protocol: The protocol of a text task.
        source: The hub's data set, where the rows came from there.
        files: sha256 of each split's Parquet file, which whoever opens it compares.
        rows_key: sha256 of what the rows depend on in the declaration of a task that has one.
    """

    task: str
    folder: Path
    image_root: str | None
    is_subset: bool
    splits: dict[str, SplitCount]
    expected: dict[str, dict[str, int | None]]
    left_out: dict[str, int]
    inputs: dict[str, dict[str, Any]]
    protocol: str | None = None
    source: str | None = None
    files: dict[str, str] = field(default_factory=dict)
    rows_key: str | None = None

    def lines(self) -> list[str]:
        """Returns the counts in words, a line a split and a line for each kind of row left out."""
        name = f"{self.task} ({self.protocol})" if self.protocol else self.task
        lines = []
        for split in dict.fromkeys((*self.expected, *self.splits)):
            note = target = ""
            if complete := self.expected.get(split):
                target = f"{complete['examples']:,}{_on_images(complete['images'])}"
                note = f" (a subset; complete: {target})" if self.is_subset else f" (expected {target})"
            if split in self.splits:
                count = self.splits[split]
                lines.append(f"{name} {split}: {count.examples:,} examples{_on_images(count.images)}{note}")
            else:
                lines.append(f"{name} {split}: not made, its raw rows are not there (complete: {target})")
        lines += [f"{name}: {number:,} {what}" for what, number in self.left_out.items() if number]
        return lines


@dataclass
class Preparation:
    """One task on its way from raw files to a prepared folder.

    Attributes:
        task: The task, a text task under its protocol.
        schema: Columns of its rows.
        rows: For each split, its rows; read once.
        examples: For each split, the examples the raw files hold and the images those are on.
        inputs: The raw files read.
        is_subset: Whether the raw files are not the complete ones.
        complete: Why they are thought complete if they are, for the message about wrong counts.
        left_out: What was not used, in words, to how many.
        source: The hub's data set, where the rows come from there; or what else they are that is no file.
        images: Writes pictures that come in the rows into the folder it is given, which is then the image root.
    """

    task: Task
    schema: pa.Schema
    rows: Mapping[str, Iterable[Row]]
    examples: Mapping[str, SplitSize]
    inputs: Sequence[RawFile]
    is_subset: bool = False
    complete: str = "the raw files are taken for the complete ones"
    left_out: dict[str, int] = field(default_factory=dict)
    source: str | None = None
    images: Callable[[Path], None] | None = None

    def check_counts(self) -> None:
        """Compares counts with the task's expected ones unless the raw files are a subset.

        Raises:
            DataError: A count of complete data differs.
        """
        if self.is_subset:
            return
        wrong = [
            f"{split}: {found.rows:,} examples{_on_images(found.images)}, "
            f"expected {size.rows:,}{_on_images(size.images).removesuffix(' images')}"
            for split, size in self.task.split_sizes.items()
            if (found := self.examples.get(split, SplitSize(0))).rows != size.rows
            or (size.images is not None and found.images != size.images)
        ]
        if wrong:
            raise DataError(
                f"task {self.task.name!r}: {self.complete}, but the counts are not those of the complete data "
                f"({'; '.join(wrong)}); a raw file is cut or of another version"
            )

    def _check_rows(self, splits: Mapping[str, SplitCount]) -> None:
        """Refuses splits of no rows that training needs, and warns of a test split without any."""
        empty = {split: count for split, count in splits.items() if count.rows == 0}
        for split, count in empty.items():
            reasons = [f"{number:,} {what}" for what, number in self.left_out.items() if number]
            why = f" ({', '.join(reasons)})" if reasons else ""
            found = (
                f"task {self.task.name!r}: {split} would have no rows: the raw files hold {count.examples:,} examples "
                f"of it{why}"
            )
            if split != "test":
                use = {"train": "to train on", "val": "to choose the best checkpoint by"}.get(split, "in it")
                raise DataError(f"{found}, and there would be nothing {use}; add raw files that have some")
            logger.warning("%s; `dept-vl eval` will need another --split", found)

    def write(self, out: Path, raw: Path | None, image_root: Path | None = None) -> PreparedStats:
        """Writes the task's folder in `out` in one step: splits, their Arrow copies, statistics.

        Raises:
            DataError: Counts are wrong, the folder is not empty, a row breaks a rule of the manifest, or there would be
                no rows to train on or to choose by.
        """
        self.check_counts()
        folder = task_folder(out, self.task)
        if self.images is not None:
            image_root = folder / IMAGES
        root = None if image_root is None else str(image_root.resolve())
        splits = {}
        with hold(folder_lock(folder, f"prepared data {folder}")):
            remove_leftovers(folder.parent, folder)
            with atomic_folder(folder) as temporary:
                for split, found in self.examples.items():
                    counter = _WordCounter([f.name for f in self.schema if not pa.types.is_int64(f.type)])
                    info = SplitInfo.of(self.task, split, root)
                    rows = write_split(temporary, info, self.schema, counter.watch(self.rows[split]))
                    splits[split] = SplitCount(found.rows, found.images, rows, counter.summaries())
                self._check_rows(splits)
                if self.images is not None:
                    self.images(temporary / IMAGES)
                stats = PreparedStats(
                    task=self.task.name,
                    folder=folder,
                    image_root=root,
                    is_subset=self.is_subset,
                    splits=splits,
                    expected={
                        split: {"examples": size.rows, "images": size.images}
                        for split, size in self.task.split_sizes.items()
                    },
                    left_out=self.left_out,
                    inputs={
                        _relative(file.path, raw): {"bytes": file.size_bytes, "sha256": file.sha256}
                        for file in self.inputs
                    },
                    protocol=self.task.protocol,
                    source=self.source,
                    files={split: hash_file(temporary / f"{split}.parquet") for split in splits},
                    rows_key=self.task.declaration.rows_key() if self.task.declaration else None,
                )
                content = {key: value for key, value in asdict(stats).items() if key != "folder"}
                write_json(temporary / STATS, {**content, "dept_vl": __version__})
        for line in stats.lines():
            logger.info("%s", line)
        self._warn_of_scores(out, [split for split, count in splits.items() if split != "train" and count.rows])
        return stats

    def _warn_of_scores(self, out: Path, splits: Iterable[str]) -> None:
        """Warns where the task's scores will say less of some written splits than they seem to."""
        for split in splits:
            rows = read_references(out, self.task, split)
            try:
                found = concerns(self.task.evaluators, [Reference(**row) for row in rows])
            except DataError as error:  # the data may still be answered; training and eval refuse
                logger.warning("%s %s: cannot be scored: %s", self.task.name, split, error)
            else:
                warn_of(found, f"{self.task.name} {split}")


_NO_WORDS = ("image_id", "image", "target_weights", "group", OWN_ID)


class _WordCounter:
    """Counts words of text columns while rows pass by."""

    def __init__(self, columns: Sequence[str]) -> None:
        self._lengths: dict[str, Counter[int]] = {name: Counter() for name in columns if name not in _NO_WORDS}

    def watch(self, rows: Iterable[Row]) -> Iterator[Row]:
        """Yields the rows unchanged."""
        for row in rows:
            for name, lengths in self._lengths.items():
                texts = row[name]
                for text in [texts] if isinstance(texts, str) else texts:
                    lengths[len(text.split())] += 1
            yield row

    def summaries(self) -> dict[str, dict[str, float]]:
        """Returns maximum, 99th percentile (the smallest length 99 % do not exceed) and mean by column."""
        return {name: self._summary(lengths) for name, lengths in self._lengths.items() if lengths}

    @staticmethod
    def _summary(lengths: Counter[int]) -> dict[str, float]:
        total = lengths.total()
        seen = 0
        p99 = 0
        for length in sorted(lengths):
            seen += lengths[length]
            p99 = length
            if seen >= 0.99 * total:
                break
        mean = sum(length * number for length, number in lengths.items()) / total
        return {"max": max(lengths), "p99": p99, "mean": round(mean, 4)}


def _relative(path: Path, folder: Path | None) -> str:
    return path.relative_to(folder).as_posix() if folder and path.is_relative_to(folder) else path.name


def _on_images(images: int | None) -> str:
    return "" if images is None else f" on {images:,} images"
