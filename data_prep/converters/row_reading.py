"""Reads rows of one's own as a declaration says, each checked, into a table that a million rows fit in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_prep.raw.json_files import Record
from data_prep.raw.row_images import ImageColumn
from data_prep.raw.row_sources import RowPart, RowSource, class_name, known_names, split_of
from data_prep.raw.row_values import read_text, read_texts
from dept_vl.data.manifest import ROWS_PER_BATCH
from dept_vl.errors import DataError
from dept_vl.registry import suggest
from dept_vl.tasks.declaration import TaskDeclaration, columns_read
from dept_vl.tasks.splits import SPLITS

MAX_WORDS = 1_000
"""Most words of an answer, a label or a caption; free text may be longer."""

_OF_TARGETS = ("target", "details.")
"""Fields whose columns a test split may lack, by how they begin."""

_NOT_ASKED = (*_OF_TARGETS, "id", "split.")
"""Those whose columns rows that are only answered may lack."""

_SHOWN_COLUMNS = 20


@dataclass
class LeftOut:
    """Rows that are not used: why, how many, and where the first stands."""

    counts: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)

    def add(self, why: str, place: str, count: int = 1) -> None:
        """Counts rows."""
        self.counts[why] += count
        self.first.setdefault(why, place)

    def described(self) -> dict[str, int]:
        """Returns each reason with the place of its first row -> how many."""
        return {f"{why} (first: {self.first[why]})": count for why, count in self.counts.items()}


def check_columns(declaration: TaskDeclaration, parts: Iterable[RowPart], *, has_answers: bool = True) -> None:
    """Checks that the rows have every column that the declaration reads; a test split may have no answers.

    Args:
        declaration: What the rows are.
        parts: The rows.
        has_answers: Whether they are to train on or to score; if not, image and template's columns are enough.

    Raises:
        DataError: Columns are missing, or are there twice; the message lists all, and what there is.
    """
    for part in parts:
        if not part.columns:
            raise DataError(f"{part.name}: holds no row")
        spared = (_OF_TARGETS if part.split == "test" else ()) if has_answers else _NOT_ASKED
        missing = [
            f"{field}: {name}{suggest(name, part.columns).replace('; ', ', ')}"
            for field, name in columns_read(declaration)
            if name not in part.columns and not field.startswith(spared)
        ]
        if missing:
            listed = ", ".join(map(repr, part.columns[:_SHOWN_COLUMNS])) or "no column"
            more = f" and {len(part.columns) - _SHOWN_COLUMNS} more" if len(part.columns) > _SHOWN_COLUMNS else ""
            raise DataError(
                f"{part.name}: lacks columns that task {declaration.name!r} reads: {'; '.join(missing)} "
                f"(it has {listed}{more}); name its columns in the task's file"
            )
        twice = [name for _, name in columns_read(declaration) if part.columns.count(name) > 1]
        if twice:
            raise DataError(f"{part.name}: column {twice[0]!r} is there twice; rename one")


def text_key(name: str) -> str:
    """Returns what a column that is kept as it is is called in the table of `read_table`, so that it is no other's."""
    return f"text:{name}"


def read_table(declaration: TaskDeclaration, source: RowSource, images: ImageColumn, left_out: LeftOut) -> pa.Table:
    """Reads and checks every row.

    Args:
        declaration: What the rows are.
        source: Where they come from.
        images: Gets the rows' images.
        left_out: Gets what is not used.

    Returns:
        ``number`` (of the row in the source, from 0), ``place``, ``split`` (its number in `SPLITS`, -1 where none is
        given), ``id``, ``by``, ``images`` (their numbers in `images`, as many in each), ``answers``; the template's
        columns and the details under `text_key`.

    Raises:
        DataError: A value is none, or not of the declared ones; the message names the place.
    """
    check_columns(declaration, source.parts)
    reader = _RowReader(declaration, images, left_out)
    rows, schema = reader.read(source), _schema(declaration)
    batches = []
    while chunk := list(islice(rows, ROWS_PER_BATCH)):
        batches.append(pa.RecordBatch.from_pylist(chunk, schema=schema))
    reader.refuse_unknown_labels()
    return pa.Table.from_batches(batches, schema=schema)


def _schema(declaration: TaskDeclaration) -> pa.Schema:
    texts = ["place", "id", "by", *map(text_key, (*declaration.details, *declaration.columns))]
    return pa.schema(
        [
            pa.field("number", pa.int64()),
            pa.field("split", pa.int8()),
            pa.field("images", pa.list_(pa.int64())),
            pa.field("answers", pa.list_(pa.string())),
            *(pa.field(name, pa.string()) for name in texts),
        ]
    )


def image_numbers(table: pa.Table, declaration: TaskDeclaration) -> np.ndarray:
    """Returns the numbers of every row's images in a table of `read_table`, (rows, images) int64."""
    numbers: np.ndarray = pc.list_flatten(table["images"]).to_numpy()
    return numbers.reshape(table.num_rows, len(declaration.images))


@dataclass
class _RowReader:
    """Reads rows one by one, and keeps what can be said only at the end."""

    declaration: TaskDeclaration
    images: ImageColumn
    left_out: LeftOut
    _unknown: dict[str, tuple[str, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Looks the declared columns up once, not for every row: what each is called in the table -> its name."""
        self._columns = {text_key(name): name for name in self.declaration.columns}
        self._details = {text_key(key): name for key, name in self.declaration.details.items()}

    def read(self, source: RowSource) -> Iterator[dict[str, Any]]:
        """Yields every row that can be used."""
        number = 0
        wanted = [name for _, name in columns_read(self.declaration)]
        wanted += ["image_id"] * (self.declaration.format is not None)
        for part in source.parts:
            for place, record in part.read(wanted):
                if any(not _is_empty(record.get(name)) for name in wanted):
                    named = _named_classes(record, part.classes) if part.classes else record
                    row = self._row(place, named, part.split)
                    if row is not None:
                        yield {"number": number, **row}
                number += 1

    def _row(self, place: str, record: Record, split: str | None) -> dict[str, Any] | None:
        """Returns a row; None for one that is left out."""
        declared = self.declaration
        row: dict[str, Any] = {"place": place, "split": -1, "images": [], "id": "", "by": ""}
        for key, name in self._columns.items():
            row[key] = _text(record, name, place)
        for key, name in self._details.items():
            row[key] = _text(record, name, place)
        if declared.id is not None:
            row["id"] = _required(record, declared.id, place)
        if declared.split.by is not None:
            row["by"] = _required(record, declared.split.by, place)
        split = self._split(record, place) if declared.split.column is not None else split
        if split is not None:
            row["split"] = SPLITS.index(split)
        row["answers"] = self._answers(record, place)
        if self._columns and not any(row[key] for key in self._columns):
            self.left_out.add(f"rows left out: {', '.join(map(repr, self._columns.values()))} is empty", place)
            return None
        if declared.uses_images:
            row["images"] = self._images(record, place)
            if not row["images"]:
                self.left_out.add("rows left out: they name no image", place)
                return None
        return row

    def _split(self, record: Record, place: str) -> str:
        column, names = self.declaration.split.column, self.declaration.split.names
        assert column is not None
        split = split_of(record.get(column), names)
        if split is None:
            raise DataError(
                f"{place}: split {record.get(column)!r} in column {column!r} is none of those known "
                f"({known_names(names)}); split.names says what yours are called"
            )
        return split

    def _images(self, record: Record, place: str) -> list[int]:
        """Returns the numbers of a row's images, in their order; none where it names none."""
        image_id = record.get("image_id") if self.declaration.format is not None else None
        names = self.declaration.images
        try:
            numbers = [self.images.add(record.get(name), place, image_id) for name in names]
        except DataError as error:
            raise DataError(f"{place}: {error}") from None
        found = [number for number in numbers if number is not None]
        if found and len(found) < len(names):
            empty = [repr(name) for name, number in zip(names, numbers, strict=True) if number is None]
            raise DataError(
                f"{place}: has {len(found)} of {len(names)} images ({', '.join(empty)} is empty), and every row of the "
                "task has as many; give the others, or leave the row out"
            )
        return found

    def _answers(self, record: Record, place: str) -> list[str]:
        """Returns the answers of a row; a label's word, of label kinds."""
        declared = self.declaration
        answers: list[str] = []
        for name in declared.target or ("answers",):
            try:
                answers += read_texts(record.get(name))
            except DataError as error:
                raise DataError(f"{place}: {name!r} {error}") from None
        if declared.kind != "text":
            for answer in answers:
                if len(answer) > MAX_WORDS and (words := len(answer.split())) > MAX_WORDS:
                    raise DataError(
                        f"{place}: an answer of {words:,} words, {answer[:40]!r}...; at most {MAX_WORDS:,} are taken: "
                        "is another column meant, or a quote not closed?"
                    )
        if declared.labels is None:
            return answers
        if len(answers) > 1:
            raise DataError(f"{place}: {len(answers)} labels, {', '.join(answers[:5])}; a row has one")
        return [word for answer in answers if (word := self._label(answer, place)) is not None]

    def _label(self, value: str, place: str) -> str | None:
        """Returns the word of a label; None for one that is not declared, which is refused at the end."""
        labels = self.declaration.labels
        assert labels is not None
        if value not in labels:
            first, count = self._unknown.get(value, (place, 0))
            self._unknown[value] = (first, count + 1)
            return None
        return labels[value]

    def refuse_unknown_labels(self) -> None:
        """Refuses labels that are not declared.

        Raises:
            DataError: There are some; the message names them, how often each is there, and the declared ones.
        """
        if not self._unknown:
            return
        labels = list(self.declaration.labels or ())
        found = [
            f"{place}: label {value!r} is not declared{suggest(value, labels)} ({count:,} row{'s' * (count > 1)})"
            for value, (place, count) in list(self._unknown.items())[:5]
        ]
        more = f"\nand {len(self._unknown) - 5:,} others" if len(self._unknown) > 5 else ""
        raise DataError(
            "\n".join(found) + more + f"\ndeclared: {', '.join(labels[:20])}{', ...' if len(labels) > 20 else ''}; add "
            "them to labels, or mend the rows (labels are compared to the letter)"
        )


def _named_classes(record: Record, classes: Mapping[str, Sequence[str]]) -> Record:
    """Returns a row with the names of its classes in place of their numbers."""
    return {**record, **{name: class_name(record.get(name), names) for name, names in classes.items()}}


def _is_empty(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def _text(record: Record, name: str, place: str) -> str:
    try:
        return read_text(record.get(name))
    except DataError as error:
        raise DataError(f"{place}: {name!r} {error}") from None


def _required(record: Record, name: str, place: str) -> str:
    text = _text(record, name, place)
    if not text:
        raise DataError(f"{place}: {name!r} is empty")
    return text
