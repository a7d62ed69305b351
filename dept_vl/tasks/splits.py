"""The split policies of Shi & Lipani 2024, Table 9, as the released code makes them (``AbstractTask.get``)."""

from __future__ import annotations

from collections.abc import Mapping

from dept_vl.tasks.base import SplitRule, SplitSize

SPLITS = ("train", "val", "test")
SPLIT_SEED = 42
"""Of the permutation that cuts a split in two."""

HELD_OUT_ROWS = 1_000
"""Rows of the permuted training split that validate where the data set is large."""

Splits = Mapping[str, SplitRule]

HALVED: Splits = {
    "train": SplitRule("train"),
    "val": SplitRule("validation", "first"),
    "test": SplitRule("validation", "rest"),
}
"""Small data sets: the validation split halved."""

HALVED_BY_GROUP: Splits = {
    "train": SplitRule("train"),
    "val": SplitRule("validation", "first", by_group=True),
    "test": SplitRule("validation", "rest", by_group=True),
}
"""The validation split halved by whole groups."""


def held_out(test: str = "validation", limit: int | None = None) -> Splits:
    """Large data sets: 1,000 training rows validate, `test` tests; training is cut to `limit` rows."""
    return {
        "train": SplitRule("train", "rest", HELD_OUT_ROWS, limit),
        "val": SplitRule("train", "first", HELD_OUT_ROWS),
        "test": SplitRule(test),
    }


def own(val: str = "validation", test: str = "test") -> Splits:
    """The data set's own splits."""
    return {"train": SplitRule("train"), "val": SplitRule(val), "test": SplitRule(test)}


def sizes(train: int, val: int, test: int) -> Mapping[str, SplitSize]:
    """Returns split sizes in rows."""
    return {split: SplitSize(rows) for split, rows in zip(SPLITS, (train, val, test), strict=True)}
