"""Rows of one's own that can be used, to the rows of prepared splits."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_prep.converters.row_reading import image_numbers, text_key
from data_prep.converters.row_splits import Groups, assign_splits, refuse_shared
from data_prep.raw.row_images import ImageColumn, RowImage
from dept_vl.data.manifest import OWN_ID, ROWS_PER_BATCH, manifest_schema
from dept_vl.errors import DataError
from dept_vl.tasks import Row, SplitSize
from dept_vl.tasks.declaration import TaskDeclaration
from dept_vl.tasks.kinds import TaskKind
from dept_vl.tasks.splits import SPLITS
from dept_vl.tasks.vqa_answers import normalise_answer, relative_scores


@dataclass(frozen=True)
class OwnRows:
    """Rows that can be used, in splits.

    Attributes:
        declaration: What they are.
        table: From `read_table`, without those that are left out.
        images: Every image by its number.
        splits: Number of each row's split in `SPLITS`, (rows,) int8.
        has_number_ids: Whether the ids are whole numbers, which rows are then called by.
    """

    declaration: TaskDeclaration
    table: pa.Table
    images: Sequence[RowImage | None]
    splits: np.ndarray
    has_number_ids: bool

    @classmethod
    def sorted(
        cls, declaration: TaskDeclaration, table: pa.Table, images: Sequence[RowImage | None], column: ImageColumn
    ) -> OwnRows:
        """Returns rows in the splits that are given or drawn.

        Raises:
            DataError: An id is there twice, rows are too few, or an image is in two splits.
        """
        given = table["split"].to_numpy()
        image_ids = _image_ids(declaration, table, images) if declaration.uses_images else None
        splits = assign_splits(given, _groups(declaration, table, image_ids), declaration.split)
        if image_ids is not None and not declaration.split.shared_images:
            names, per_row = column.names(), len(declaration.images)
            numbers = image_numbers(table, declaration).ravel()
            refuse_shared(
                np.repeat(splits, per_row),
                image_ids.ravel(),
                lambda one: str(table["place"][one // per_row]),
                lambda one: names[numbers[one]],
            )
        if declaration.id is not None:
            _refuse_same_ids(
                table, given, None if image_ids is None or declaration.kind != "caption" else image_ids[:, 0]
            )
        return cls(declaration, table, images, splits, declaration.id is not None and _are_numbers(table["id"]))

    @property
    def present(self) -> list[str]:
        """The splits that have rows."""
        return [SPLITS[number] for number in np.unique(self.splits)]

    def schema(self) -> pa.Schema:
        """Returns the columns of the prepared rows."""
        own_ids = [OWN_ID] if self.declaration.id is not None and not self.has_number_ids else []
        return manifest_schema(
            images=self.declaration.uses_images,
            num_images=max(1, len(self.declaration.images)),
            text_columns=[*self._texts, *own_ids],
        )

    @cached_property
    def _texts(self) -> dict[str, str]:
        """The columns that are kept as they are -> what each is called in the table."""
        return {name: text_key(name) for name in (*self.declaration.columns, *self.declaration.details)}

    def size(self, split: str, unanswered: dict[int, int]) -> SplitSize:
        """Returns how many examples, and images, the source holds of a split, those without an answer among them."""
        number = SPLITS.index(split)
        rows = self._rows_of(split)
        images = None
        if self.declaration.uses_images:
            images = len(np.unique(_image_ids(self.declaration, self.table, self.images)[rows]))
        count = len(rows)
        if self.declaration.kind == "caption":
            lengths = pc.list_value_length(self.table["answers"]).to_numpy()[rows]
            count = int(lengths.sum()) if split == "train" else images or 0
        return SplitSize(count + unanswered.get(number, 0), images)

    def convert(self, split: str) -> Iterator[Row]:
        """Yields the manifest rows of a split, in the order of the source."""
        rows = self._rows_of(split)
        if self.declaration.kind != "caption":
            return self._per_row(rows)
        return self._per_caption(rows) if split == "train" else self._per_image(rows)

    def _rows_of(self, split: str) -> np.ndarray:
        return np.flatnonzero(self.splits == SPLITS.index(split))

    def _per_row(self, rows: np.ndarray) -> Iterator[Row]:
        for row in self._read(rows):
            weights = _weighted_targets(self.declaration.kind, row["answers"])
            yield {
                **self._common(row),
                "targets": list(weights),
                "target_weights": list(weights.values()),
                "references": row["answers"],
            }

    def _per_caption(self, rows: np.ndarray) -> Iterator[Row]:
        """Yields a row a caption, numbered from 0, each with all captions of its image as references."""
        references = self._captions(rows)
        number = 0
        for row in self._read(rows):
            for caption in row["answers"]:
                common = {**self._common(row), "example_id": number}
                texts = {"targets": [" ".join(caption.split())], "target_weights": [1.0]}
                yield {**common, **texts, "references": references[common["image_id"]]}
                number += 1

    def _per_image(self, rows: np.ndarray) -> Iterator[Row]:
        """Yields a row an image, called as the first of its rows, with all captions as references."""
        references = self._captions(rows)
        seen = set()
        for row in self._read(rows):
            common = self._common(row)
            if common["image_id"] not in seen:
                seen.add(common["image_id"])
                yield {**common, "targets": [], "target_weights": [], "references": references[common["image_id"]]}

    def _captions(self, rows: np.ndarray) -> dict[int, list[str]]:
        captions: dict[int, list[str]] = defaultdict(list)
        for row in self._read(rows):
            captions[self._images_of(row)[0].image_id] += row["answers"]
        return captions

    def _common(self, row: Row) -> dict[str, Any]:
        """Returns the columns that do not depend on the answers."""
        common = {name: row[key] for name, key in self._texts.items()}
        if self.declaration.uses_images:
            images = self._images_of(row)
            ids, paths = [image.image_id for image in images], [image.path for image in images]
            common |= {"image_id": ids, "image": paths} if len(ids) > 1 else {"image_id": ids[0], "image": paths[0]}
        if self.has_number_ids:
            return {**common, "example_id": int(row["id"])}
        return {**common, "example_id": row["number"], **({OWN_ID: row["id"]} if self.declaration.id else {})}

    def _images_of(self, row: Row) -> list[RowImage]:
        images = [self.images[number] for number in row["images"]]
        return [image for image in images if image is not None]  # all: rows that lack one are left out

    def _read(self, rows: np.ndarray) -> Iterator[Row]:
        for start in range(0, len(rows), ROWS_PER_BATCH):
            yield from self.table.take(pa.array(rows[start : start + ROWS_PER_BATCH])).to_pylist()


def _weighted_targets(kind: TaskKind, answers: Sequence[str]) -> dict[str, float]:
    """Returns the texts that training draws from, and the weight in (0, 1] of each.

    Answers to a question that are the same once normalised are one target, spelled as most people did (the first of
    equals), with its soft score relative to the most frequent answer (`relative_scores`). Of other kinds every distinct
    text counts alike.
    """
    if kind != "question" or len(answers) == 1:
        return dict.fromkeys(answers, 1.0)
    spellings: dict[str, Counter[str]] = defaultdict(Counter)
    for answer in answers:
        spellings[normalise_answer(answer)][answer] += 1
    return {spellings[form].most_common(1)[0][0]: score for form, score in relative_scores(answers).items()}


def _image_ids(declaration: TaskDeclaration, table: pa.Table, images: Sequence[RowImage | None]) -> np.ndarray:
    """Returns the ids of each row's images, (rows, images) int64."""
    ids = np.array([-1 if image is None else image.image_id for image in images], dtype=np.int64)
    return ids[image_numbers(table, declaration)]


def _least_linked(image_ids: np.ndarray) -> np.ndarray:
    """Returns what rows that share an image have in common, also by way of other rows: the least id of all of them.

    Args:
        image_ids: (rows, images) int64. Of one image a row, the result is that image's id.

    Returns:
        (rows,) int64.
    """
    ids, numbers = np.unique(image_ids, return_inverse=True)
    numbers = numbers.reshape(image_ids.shape)
    least = np.arange(len(ids))  # of each image, the least number that is known to be linked to it
    while True:
        of_row = least[numbers].min(axis=1)
        before = least.copy()
        np.minimum.at(least, numbers, of_row[:, None])
        least = least[least]
        if np.array_equal(least, before):
            return ids[of_row]


def _groups(declaration: TaskDeclaration, table: pa.Table, image_ids: np.ndarray | None) -> Groups:
    """Returns what stays together in a draw: a value of `by`; else what shares images; else what reads the same."""
    keys: Iterable[str]
    if declaration.split.by is not None:
        keys = chain.from_iterable(batch.to_pylist() for batch in table["by"].chunks)
        noun = f"values of column {declaration.split.by!r}"
    elif image_ids is not None:
        keys = map(str, _least_linked(image_ids).tolist())
        noun = "images" if image_ids.shape[1] == 1 else "groups of images that no row links"
    else:
        keys, noun = _digests(table.select(list(map(text_key, declaration.columns)))), "different rows"
    numbers: dict[str, int] = {}
    of_row = np.fromiter((numbers.setdefault(key, len(numbers)) for key in keys), np.int64, table.num_rows)
    return Groups(of_row, list(numbers), noun)


def _digests(table: pa.Table) -> Iterator[str]:
    """Yields the sha256 of every row, in hexadecimal."""
    for batch in table.to_batches(ROWS_PER_BATCH):
        for values in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            yield sha256("\0".join(values).encode()).hexdigest()


def _are_numbers(ids: pa.ChunkedArray) -> bool:
    """Returns whether all ids are whole numbers from 0 that 63 bits hold, written as such."""
    return bool(pc.all(pc.match_substring_regex(ids, r"^(0|[1-9][0-9]{0,17})$")).as_py())


def _refuse_same_ids(table: pa.Table, given: np.ndarray, image_ids: np.ndarray | None) -> None:
    """Refuses an id that two rows of a given split have; of captions, two images."""
    seen: dict[str, int] = {}
    row = 0
    for batch in table["id"].chunks:
        for one in batch.to_pylist():
            first = seen.setdefault(f"{given[row]} {one}", row)
            if first != row and (image_ids is None or image_ids[first] != image_ids[row]):
                raise DataError(f"{table['place'][row]}: id {one!r} is there twice, first at {table['place'][first]}")
            row += 1
