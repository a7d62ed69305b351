"""Rows of a run's prepared splits to ask about: those that are there, drawn at random. No Gradio."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dept_vl.data.image_files import image_below
from dept_vl.data.manifest import as_list, open_split, split_info, split_path
from dept_vl.errors import DataError
from dept_vl.serving.startup import ServedRun

if TYPE_CHECKING:
    from datasets import Dataset

SPLITS = ("test", "val", "train")
"""In the order in which they are offered."""


@dataclass(frozen=True)
class DrawnRow:
    """A row of a split.

    Attributes:
        place: Which it is, in words.
        columns: What the task's template reads.
        images: Its image files, as many as the task has.
        references: What people answered.
    """

    place: str
    columns: dict[str, Any]
    images: tuple[Path, ...]
    references: tuple[str, ...]


class SplitRows:
    """The splits of one run.

    Attributes:
        splits: Those that are there.
        why_none: Why there is none; "" where there is.
    """

    def __init__(self, run: ServedRun, data_dir: Path | str) -> None:
        """Looks which splits are there, and opens none.

        Args:
            run: The run.
            data_dir: Its prepared data; or why there are none.
        """
        self._task = run.config.resolve_task()
        self._image_dir = run.config.data.image_dir
        self._data_dir = data_dir
        self._open: dict[str, Dataset] = {}
        self.splits: tuple[str, ...] = ()
        self.why_none = data_dir if isinstance(data_dir, str) else ""
        if isinstance(data_dir, Path):
            self.splits = tuple(one for one in SPLITS if split_path(data_dir, self._task, one).is_file())
            if not self.splits:
                self.why_none = f"{split_path(data_dir, self._task, SPLITS[0]).parent}: no prepared splits there"

    def draw(self, split: str, number: int) -> list[DrawnRow]:
        """Returns rows, drawn anew each time, no row twice; all where there are fewer.

        Raises:
            DataError: There is no such split, or it is damaged; or a row's images are not there.
        """
        if isinstance(self._data_dir, str) or split not in self.splits:
            raise DataError(self.why_none or f"{split!r:.40}: expected one of {', '.join(self.splits)}")
        if split not in self._open:
            self._open[split] = open_split(self._data_dir, self._task, split)
        rows = self._open[split]
        info = split_info(self._data_dir, self._task, split)
        root = self._image_dir or info.image_root
        drawn = random.sample(range(len(rows)), min(number, len(rows)))
        return [self._row(rows[place], f"row {place:,} of {self._task.name} {split}", root) for place in drawn]

    def _row(self, row: dict[str, Any], place: str, root: str | None) -> DrawnRow:
        names = as_list(row["image"]) if self._task.uses_images else []
        images = tuple(image_below(None if root is None else Path(root), name) for name in names)
        for path in images:
            if not path.is_file():
                raise DataError(f"{place}: {path}: no such image file; if the images have moved, give --images PATH")
        columns = {name: row[name] for name in self._task.input_columns}
        return DrawnRow(place, columns, images, tuple(row["references"]))
