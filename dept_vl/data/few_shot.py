"""Which training rows a few-shot run sees: a function of (seed, k, rule) and the split alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from dept_vl.errors import ConfigError

FewShotRule = Literal["balanced", "released"]

_STREAM = 3
"""Tells this draw from the others that start from the run's seed (`sampler` has 0 and 1, `dataset` has 2)."""


@dataclass(frozen=True)
class FewShot:
    """A few-shot choice: k examples in all, by a rule, from a seed."""

    k: int
    rule: FewShotRule
    seed: int


def choose_rows(
    few_shot: FewShot, num_rows: int, classes: Sequence[str] | None, class_names: Sequence[str] = (), *, where: str = ""
) -> np.ndarray:
    """Returns the positions of the chosen rows, (chosen,) int64.

    ``"balanced"``: k // classes of every class, and one more of each of the first k % classes, the classes in an order
    drawn from the seed. A smaller k of the same seed chooses among the rows of a larger one's classes in one order.

    ``"released"``: the sampler of the released code (ZhengxiangShi/DePT ``train.py``, ``k_shot_example``): rows in the
    order of ``datasets.Dataset.shuffle(seed)``, k // classes of every class, and a row of whichever class once k - 1
    are chosen. So three classes and k = 32 give 30 rows, and two classes and k = 4 may give 3 + 1.

    Args:
        few_shot: k, rule and seed.
        num_rows: Rows to choose among.
        classes: The class of each row; None for a task without label set, which is sampled without classes.
        class_names: Every class there is, one without rows too.
        where: What is sampled, for messages.

    Raises:
        ConfigError: A class has fewer rows than its share (the message names class and count), k rows are more than
            there are, ``"released"`` is asked of a task without label set, or the rule chooses nothing.
    """
    if classes is None:
        return _without_classes(few_shot, num_rows, where)
    chosen = (_released if few_shot.rule == "released" else _balanced)(few_shot, list(classes), class_names, where)
    if not chosen:
        raise ConfigError(
            f"data.few_shot: {few_shot.k} over {len(class_names)} classes gives no row of any by the rule "
            f"{few_shot.rule!r}{where}; take at least {len(class_names)}"
        )
    return np.asarray(chosen, dtype=np.int64)


def _without_classes(few_shot: FewShot, num_rows: int, where: str) -> np.ndarray:
    if few_shot.rule == "released":
        raise ConfigError(
            f"data.few_shot_rule: 'released' counts rows per class, and there is no label set{where}; use 'balanced'"
        )
    if few_shot.k > num_rows:
        raise ConfigError(f"data.few_shot: {few_shot.k} is more than the {num_rows} rows there are{where}")
    order = np.random.default_rng([few_shot.seed, _STREAM]).permutation(num_rows)
    return order[: few_shot.k]


def _balanced(few_shot: FewShot, classes: list[str], class_names: Sequence[str], where: str) -> list[int]:
    rng = np.random.default_rng([few_shot.seed, _STREAM])
    order = rng.permutation(len(classes)).tolist()
    share, remainder = divmod(few_shot.k, len(class_names))
    names = [class_names[index] for index in rng.permutation(len(class_names))]
    shares = {name: share + (place < remainder) for place, name in enumerate(names)}
    _check_shares(few_shot.k, shares, classes, where)
    taken: Counter[str] = Counter()
    chosen = []
    for row in order:
        if taken[classes[row]] < shares[classes[row]]:
            taken[classes[row]] += 1
            chosen.append(row)
    return chosen


def _released(few_shot: FewShot, classes: list[str], class_names: Sequence[str], where: str) -> list[int]:
    share = few_shot.k // len(class_names)
    _check_shares(few_shot.k, dict.fromkeys(class_names, share), classes, where)
    taken: Counter[str] = Counter()
    chosen: list[int] = []
    for row in np.random.default_rng(few_shot.seed).permutation(len(classes)).tolist():
        if len(chosen) == few_shot.k:
            break
        if taken[classes[row]] < share or len(chosen) == few_shot.k - 1:
            taken[classes[row]] += 1
            chosen.append(row)
    return chosen


def _check_shares(k: int, shares: dict[str, int], classes: list[str], where: str) -> None:
    there = Counter(classes)
    unknown = sorted(set(there) - set(shares))
    if unknown:
        raise ConfigError(f"data.few_shot: class {unknown[0]!r} is not among {', '.join(sorted(shares))}{where}")
    short = [f"{name!r} has {there[name]} rows" for name, share in sorted(shares.items()) if there[name] < share]
    if short:
        raise ConfigError(
            f"data.few_shot: {k} over {len(shares)} classes takes {max(shares.values())} rows of a class{where}, but "
            f"class {', '.join(short)}; take a smaller k"
        )
