"""What the columns of a table look like, and what they are likely to be: by their names, and by their values."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from data_prep.raw.image_names import ImageNames
from data_prep.raw.row_sources import RowSource, class_name, split_of
from data_prep.raw.row_values import read_texts
from dept_vl.data.image_files import IMAGE_SUFFIXES
from dept_vl.errors import DataError
from dept_vl.tasks.declaration import SplitDeclaration

Role = Literal["image", "question", "caption", "label", "answer", "split", "id", "answer_type", "question_type"]

LOOKED_AT_ROWS = 2_000
FEW_VALUES = 100
"""Most distinct values of a column that is taken for labels by its values alone."""

_NAMES: Mapping[Role, tuple[str, ...]] = {
    "image": ("image", "images", "img", "picture", "photo", "image_path", "image_file", "image_name", "img_path",
              "file_name", "filename", "filepath", "file_path", "file", "path", "image_id", "img_id"),
    "question": ("question", "query", "questions", "question_text", "prompt", "instruction"),
    "caption": ("caption", "captions", "description", "sentence", "sentences", "raw"),
    "label": ("label", "labels", "class", "classes", "category", "class_name", "sentiment", "species", "type"),
    "answer": ("answer", "answers", "target", "targets", "output", "response", "completion", "reply", "summary",
               "translation", "multiple_choice_answer"),
    "split": ("split", "set", "subset", "partition", "fold"),
    "id": ("id", "question_id", "example_id", "sample_id", "row_id", "uid", "key", "qid", "guid"),
    "answer_type": ("answer_type",),
    "question_type": ("question_type",),
}  # fmt: skip
_NUMBERED = re.compile(r"^(answer|label|caption|a|target)_?\d+$")
_IMAGE_WORDS = ("image", "img", "photo", "picture", "file", "path")  # of a column that may name images by numbers
_SUFFIXES = (*IMAGE_SUFFIXES, ".gif", ".bmp", ".tif", ".tiff")
_LONG_NAME = 500  # characters that no name of a file has
_SHARE = 0.5  # of the values that must look like images


@dataclass(eq=False)
class Column:
    """What was seen of one column.

    Attributes:
        name: As it stands in the rows.
        values: Its texts -> how often, over the rows looked at; those of lists each.
        rows: Rows that have something in it.
        images: Rows in which that is a picture, or looks like the name of one.
        found: Rows in which that names a file that is there.
        lists: Rows in which it holds several texts.
        odd: Rows in which it is neither text nor picture.
        words: Number of words of each text.
    """

    name: str
    values: Counter[str] = field(default_factory=Counter)
    rows: int = 0
    images: int = 0
    found: int = 0
    lists: int = 0
    odd: int = 0
    words: list[int] = field(default_factory=list)

    @property
    def called(self) -> str:
        """The name in lower case, with ``_`` between its words."""
        return re.sub(r"[^a-z0-9]+", "_", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", self.name).lower()).strip("_")

    @property
    def is_image(self) -> bool:
        """Whether it holds images or names of them."""
        return self.images > _SHARE * max(1, self.rows)

    @property
    def is_text(self) -> bool:
        """Whether it holds texts or numbers, one a row."""
        return self.rows > 0 and not (self.is_image or self.lists or self.odd)

    @property
    def has_few_values(self) -> bool:
        """Whether its values come again and again, as those of a label do."""
        return 2 <= len(self.values) <= FEW_VALUES and self.values.total() >= 2 * len(self.values)

    @property
    def is_numeric(self) -> bool:
        """Whether every value is a number."""
        return bool(self.values) and all(re.fullmatch(r"-?\d+(\.\d+)?", value) for value in self.values)

    def long_words(self) -> int:
        """Returns the length in words that 99 of 100 texts do not exceed."""
        return sorted(self.words)[int(0.99 * (len(self.words) - 1))] if self.words else 0

    def add(self, value: Any, names: ImageNames | None) -> None:
        """Counts a value."""
        if value is None or (isinstance(value, str) and not value.strip()):
            return
        self.rows += 1
        if isinstance(value, bytes | Image.Image) or (isinstance(value, Mapping) and "bytes" in value):
            self.images += 1
            return
        try:
            texts = read_texts(value)
        except DataError:
            self.odd += 1
            return
        self.lists += isinstance(value, list) or len(texts) > 1
        self.values.update(texts)
        self.words += [len(text.split()) for text in texts]
        says_so = any(word in self.called for word in _IMAGE_WORDS)
        is_named = len(texts) == 1 and texts[0].lower().endswith(_SUFFIXES) and len(texts[0]) < _LONG_NAME
        is_found = len(texts) == 1 and (is_named or says_so) and _is_found(texts[0], names)
        self.images += is_named or is_found
        self.found += is_found


def _is_found(text: str, names: ImageNames | None) -> bool:
    if names is None or len(text) > _LONG_NAME or "\n" in text:
        return False
    try:
        return names.find(text) is not None
    except DataError:
        return False


def look_at(source: RowSource, images: Path | None) -> list[Column]:
    """Returns what the columns of the first rows look like, in their order.

    Args:
        source: The rows; some of every part are looked at.
        images: Folder of the images, where one is given: what names a file in it is an image.

    Raises:
        DataError: The rows cannot be read.
    """
    names = None if images is None else ImageNames(images)
    columns: dict[str, Column] = {}
    for part in source.parts:
        for number, (_, record) in enumerate(part.read(part.columns)):
            if number >= LOOKED_AT_ROWS // len(source.parts):
                break
            for name, value in record.items():
                columns.setdefault(name, Column(name)).add(class_name(value, part.classes.get(name)), names)
    return [column for column in columns.values() if column.name]


def by_name(columns: Iterable[Column], role: Role) -> list[Column]:
    """Returns the columns whose name is one of a role's, the likeliest first."""
    found = {column.called: column for column in reversed(list(columns))}
    return [found[name] for name in _NAMES[role] if name in found]


def numbered(columns: Sequence[Column]) -> list[Column]:
    """Returns columns such as ``answer_1``, ``answer_2`` that hold one thing several times; none or several."""
    found = [column for column in columns if _NUMBERED.match(column.called)]
    return found if len(found) > 1 else []


def find_split(columns: Iterable[Column]) -> Column | None:
    """Returns the column whose values are all names of splits, where there is one."""
    names = SplitDeclaration().names
    for column in by_name(columns, "split"):
        splits = {split_of(value, names) for value in column.values}
        if splits and None not in splits and "train" in splits:
            return column
    return None


def find_id(columns: Iterable[Column]) -> Column | None:
    """Returns the column that tells rows apart, where there is one."""
    for column in by_name(columns, "id"):
        if column.is_text and max(column.values.values(), default=0) == 1:
            return column
    return None
