"""Writing a prepared task: its splits and ``stats.json``, all or nothing, with counts against the expected ones."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from data_prep.common import RawFile
from data_prep.karpathy import SPLITS, KarpathySplits
from dept_vl import __version__
from dept_vl.atomic import atomic_folder, write_json
from dept_vl.data.manifest import SplitInfo, write_split
from dept_vl.errors import DataError
from dept_vl.tasks import Row, Task

logger = logging.getLogger(__name__)

STATS = "stats.json"


@dataclass(frozen=True)
class SplitCount:
    """How much of one split the raw files hold.

    Attributes:
        examples: Examples the raw files hold; what is compared with the expected number.
        images: Distinct images of those examples.
        rows: Rows written: `examples` without those that cannot be trained on.
        words: For each text column, lengths in whitespace-separated words: ``max``, ``p99`` and ``mean``.
    """

    examples: int
    images: int
    rows: int
    words: dict[str, dict[str, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class PreparedStats:
    """What `prepare` did; also the content of ``stats.json``.

    Attributes:
        task: Task name.
        folder: Where the splits were written.
        image_root: Folder that image paths are relative to.
        is_subset: Whether the Karpathy file is not the complete one, so that no counts are expected.
        splits: Counts by split.
        expected: Expected ``examples`` and ``images`` by split, of the complete data.
        left_out: What was not used, in words, to how many.
        inputs: Raw files by path relative to the raw folder, with size and sha256.
    """

    task: str
    folder: Path
    image_root: str
    is_subset: bool
    splits: dict[str, SplitCount]
    expected: dict[str, dict[str, int | None]]
    left_out: dict[str, int]
    inputs: dict[str, dict[str, Any]]

    def lines(self) -> list[str]:
        """Returns the counts in words, a line a split and a line for each kind of row left out."""
        lines = []
        for split, count in self.splits.items():
            expected = self.expected[split]
            target = f"{expected['examples']:,} on {expected['images']:,} images"
            note = f"a subset; complete: {target}" if self.is_subset else f"expected {target}"
            lines.append(f"{self.task} {split}: {count.examples:,} examples on {count.images:,} images ({note})")
        lines += [f"{self.task}: {number:,} {what}" for what, number in self.left_out.items() if number]
        return lines


@dataclass
class Preparation:
    """One task on its way from raw files to a prepared folder.

    Attributes:
        task: The task.
        schema: Columns of its rows.
        karpathy: The splits.
        rows: For each split, its rows; read once.
        examples: For each split, the examples the raw files hold.
        example_images: For each split, the images those are on.
        left_out: What was not used, in words, to how many.
        inputs: The raw files read.
    """

    task: Task
    schema: pa.Schema
    karpathy: KarpathySplits
    rows: Mapping[str, Iterable[Row]]
    examples: Mapping[str, int]
    example_images: Mapping[str, int]
    left_out: dict[str, int]
    inputs: Sequence[RawFile]

    def check_counts(self) -> None:
        """Compares counts with the task's expected ones if the Karpathy file is the complete one.

        Raises:
            DataError: A count of complete data differs, or there is no example at all.
        """
        if not any(self.examples.values()):
            raise DataError(
                f"task {self.task.name!r}: none of the raw files' examples is on an image that "
                f"{self.karpathy.file.path} lists"
            )
        if not self.karpathy.is_full:
            return
        wrong = [
            f"{split}: {self.examples[split]:,} examples on {self.example_images[split]:,} images, "
            f"expected {size.rows:,} on {size.images:,}"
            for split, size in self.task.split_sizes.items()
            if (self.examples[split], self.example_images[split]) != (size.rows, size.images)
        ]
        if wrong:
            raise DataError(
                f"task {self.task.name!r}: {self.karpathy.file.path} is the complete Karpathy file, but the counts are "
                f"not those of the complete data ({'; '.join(wrong)}); a raw file is cut or of another version"
            )

    def write(self, out: Path, raw: Path, image_root: Path) -> PreparedStats:
        """Writes ``out/<task>/`` in one step: splits, their Arrow copies, statistics.

        Raises:
            DataError: Counts are wrong, the folder is not empty, or a row breaks a rule of the manifest.
        """
        self.check_counts()
        folder = out / self.task.name
        root = str(image_root.resolve())
        splits = {}
        with atomic_folder(folder) as temporary:
            for split in SPLITS:
                counter = _WordCounter([f.name for f in self.schema if not pa.types.is_int64(f.type)])
                info = SplitInfo(self.task.name, split, root)
                rows = write_split(temporary, info, self.schema, counter.watch(self.rows[split]))
                splits[split] = SplitCount(self.examples[split], self.example_images[split], rows, counter.summaries())
            stats = PreparedStats(
                task=self.task.name,
                folder=folder,
                image_root=root,
                is_subset=not self.karpathy.is_full,
                splits=splits,
                expected={s: {"examples": z.rows, "images": z.images} for s, z in self.task.split_sizes.items()},
                left_out=self.left_out,
                inputs={
                    _relative(file.path, raw): {"bytes": file.size_bytes, "sha256": file.sha256} for file in self.inputs
                },
            )
            content = {key: value for key, value in asdict(stats).items() if key != "folder"}
            write_json(temporary / STATS, {**content, "dept_vl": __version__})
        for line in stats.lines():
            logger.info("%s", line)
        return stats


class _WordCounter:
    """Counts words of text columns while rows pass by."""

    def __init__(self, columns: Sequence[str]) -> None:
        self._lengths: dict[str, Counter[int]] = {
            name: Counter() for name in columns if name not in ("image", "target_weights")
        }

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


def _relative(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else path.name
