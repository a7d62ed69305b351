"""Which split each row goes to: as it is given, or drawn by a rule that depends on the rows' content alone."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from dept_vl.errors import DataError
from dept_vl.tasks.declaration import SplitDeclaration
from dept_vl.tasks.splits import SPLITS

NOT_GIVEN = -1
"""In place of a split's number where nothing gives one."""

_NUMBER = {split: number for number, split in enumerate(SPLITS)}


@dataclass(frozen=True)
class Groups:
    """What stays together in a draw: the rows of an image, or of one value.

    Attributes:
        of_row: Number of each row's group, (rows,) int64.
        keys: What each group is, by its number: the draw depends on it and on the seed alone.
        noun: What a group is, in the plural.
    """

    of_row: np.ndarray
    keys: Sequence[str]
    noun: str


def assign_splits(given: np.ndarray, groups: Groups, rule: SplitDeclaration) -> np.ndarray:
    """Returns the number in `SPLITS` of every row's split, (rows,) int8.

    Rows of given splits keep them; where there is a ``train`` and no ``val``, it is drawn from ``train``. Rows of no
    given split are drawn into all three.

    Args:
        given: Number of each row's split, (rows,) int8; `NOT_GIVEN` for all where none is given.
        groups: What stays together.
        rule: The shares, and the seed of the draw.

    Raises:
        DataError: There are too few groups for a draw.
    """
    found = given.copy()
    if len(given) == 0 or given[0] == NOT_GIVEN:
        shares = {"test": rule.test, "val": rule.val} if rule.test else {"val": rule.val}
        drawn = np.ones(len(given), dtype=bool)
    elif (given == _NUMBER["val"]).any() or not (given == _NUMBER["train"]).any():
        return found
    else:
        shares = {"val": rule.val}
        drawn = given == _NUMBER["train"]
    present = np.unique(groups.of_row[drawn])
    sizes = {split: max(1, round(share * len(present))) for split, share in shares.items()}
    if len(present) <= sum(sizes.values()):
        raise DataError(
            f"too few {groups.noun} for a draw: {len(present):,}, and train, {' and '.join(sizes)} need one each at "
            f"least; add rows, or give splits of your own (split.column, or files called "
            f"{' and '.join(['train', *sizes])})"
        )
    order = sorted(present.tolist(), key=lambda group: _place(rule.seed, groups.keys[group]))
    split_of_group = np.full(len(groups.keys), _NUMBER["train"], dtype=np.int8)
    start = 0
    for split, size in sizes.items():
        split_of_group[order[start : start + size]] = _NUMBER[split]
        start += size
    found[drawn] = split_of_group[groups.of_row[drawn]]
    return found


def _place(seed: int, key: str) -> bytes:
    """Returns what orders the groups of a draw."""
    return hashlib.sha256(f"{seed}\0{key}".encode()).digest()


def refuse_shared(
    splits: np.ndarray, images: np.ndarray, place: Callable[[int], str], name: Callable[[int], str]
) -> None:
    """Refuses an image that stands in two splits.

    Args:
        splits: Number of each row's split, (rows,) int8.
        images: Number of each row's image, (rows,) int64.
        place: From a row's number to where it stands.
        name: From a row's number to what it calls its image.

    Raises:
        DataError: There is one; the message names it and two of its rows.
    """
    order = np.lexsort((np.arange(len(images)), images))
    same = images[order[1:]] == images[order[:-1]]
    (at,) = np.nonzero(same & (splits[order[1:]] != splits[order[:-1]]))
    if len(at) == 0:
        return
    number = len(np.unique(images[order[at]]))
    first, second = int(order[at[0]]), int(order[at[0] + 1])
    raise DataError(
        f"{place(second)}: image {name(second)} is in split {SPLITS[splits[second]]!r} here and in "
        f"{SPLITS[splits[first]]!r} at {place(first)}"
        f"{'' if name(first) == name(second) else f' (as {name(first)}, the same picture)'}; "
        f"{number:,} image{' is' if number == 1 else 's are'} in two splits, so that scores would be of pictures "
        "trained on; give each image one split, or say split.shared_images: true"
    )
