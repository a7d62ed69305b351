"""Data sets in their authors' own files -> rows, as a task that is declared with a `format` reads them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from data_prep.raw.json_files import RawFile, find_raw, read_json, read_json_lines
from data_prep.raw.official import captions, nlvr2, questions, scienceqa
from data_prep.raw.official.base import OfficialFormat
from data_prep.raw.row_sources import RowPart, RowSource
from data_prep.raw.text_files import Placed
from dept_vl.errors import ConfigError, DataError
from dept_vl.registry import lookup
from dept_vl.tasks.declaration import TaskDeclaration
from dept_vl.tasks.splits import SPLITS

FORMATS: dict[str, OfficialFormat] = {
    "vqa": questions.VQA,
    "gqa": questions.GQA,
    "vizwiz": questions.VIZWIZ,
    "karpathy": captions.KARPATHY,
    "coco-captions": captions.COCO,
    "scienceqa": scienceqa.FORMAT,
    "nlvr2": nlvr2.FORMAT,
}

_FOLDERS = ("annotations", "questions", "karpathy", "data")


@dataclass
class _Files:
    """The raw files of a task, each read once.

    Attributes:
        raw: Their folder.
        uses: How many splits are still to be read from each: what several are read from is kept that long.
        is_lines: Whether they are JSON lines.
        found: Every file read, without its content.
    """

    raw: Path
    uses: Counter[str]
    is_lines: bool
    found: list[RawFile] = field(default_factory=list)
    _kept: dict[str, RawFile] = field(default_factory=dict)

    def read(self, name: str) -> RawFile:
        """Returns a file and its content."""
        file = self._kept.pop(name, None)
        if file is None:
            read = read_json_lines if self.is_lines else read_json
            file = read(find_raw(self.raw, name, *_FOLDERS))
            self.found.append(file.without_content())
        self.uses[name] -= 1
        if self.uses[name] > 0:
            self._kept[name] = file
        return file


def read_official(declaration: TaskDeclaration, raw: Path, *, subset: bool = False) -> RowSource:
    """Returns the rows of a task's official files, which are read when the rows are.

    Args:
        declaration: With a format and the names of each split's files.
        raw: The folder they lie in, or in its ``annotations``, ``questions``, ``karpathy`` or ``data``; packed with
            gzip or not.
        subset: Whether a split may be absent as a whole; a split whose files are not there is not made.

    Raises:
        ConfigError: There is no such format, or a split names too few files or too many.
        DataError: A file is not there; when rows are read: it is damaged, or not of the format.
    """
    form = lookup(FORMATS, declaration.format or "", "format")
    if not declaration.files:
        raise ConfigError(
            f"files: task {declaration.name!r} names none; format {declaration.format!r} needs {form.files}"
        )
    for split, names in declaration.files.items():
        if not form.least <= len(names) <= form.most:
            raise ConfigError(
                f"files.{split}: format {declaration.format!r} needs {form.files}; got {', '.join(names)}"
            )
    splits = [split for split in SPLITS if split in declaration.files]
    splits = [split for split in splits if _is_there(raw, declaration.files[split], may_miss=subset)]
    if not splits:
        raise DataError(f"{raw}: holds the files of no split of task {declaration.name!r}")
    uses = Counter(name for split in splits for name in declaration.files[split])
    files = _Files(raw, uses, form.is_lines)

    def rows(split: str, names: Sequence[str], _: Sequence[str]) -> Iterator[Placed]:
        """Yields the rows of a split; whatever columns are wanted, every row has all."""
        return form.read([files.read(name) for name in names], split)

    readers = {split: partial(rows, split, declaration.files[split]) for split in splits}
    parts = [RowPart(split, f"{raw}, {split}", form.columns, read) for split, read in readers.items()]
    return RowSource(parts, raw, files.found)


def _is_there(raw: Path, names: Sequence[str], *, may_miss: bool) -> bool:
    """Returns whether a split's files are there."""
    try:
        for name in names:
            find_raw(raw, name, *_FOLDERS)
    except DataError:
        if not may_miss or not raw.is_dir():
            raise
        return False
    return True
