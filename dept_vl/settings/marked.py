"""The settings that are marked at their fields (`dept_vl.strict`): paths, and what a resumed run may change."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Any, TypeVar

from dept_vl.settings.choices import Tree
from dept_vl.settings.help import fields_of
from dept_vl.settings.renamed import new_key
from dept_vl.settings.schema import TrainConfig
from dept_vl.strict import LocalPath, MayDiffer, map_paths

M = TypeVar("M")

_OF_A_PART = re.compile(r"^tuner\.parts\.[^.]+\.")
"""What stands before a setting of one of several methods at once."""


def _marked(mark: type[M]) -> dict[str, M]:
    return {key: found for key, info in fields_of(TrainConfig) for found in info.metadata if isinstance(found, mark)}


@cache
def path_settings() -> Mapping[str, LocalPath]:
    """Returns every setting that is a path, by its dotted key."""
    return _marked(LocalPath)


@cache
def path_setting(key: str) -> LocalPath | None:
    """Returns the mark of a path, by its dotted key; None for other settings.

    The key may be that of an earlier version, or have names before it, as in a record of several settings.
    """
    return _lookup(path_settings(), key)


@cache
def changes_no_number(key: str) -> bool:
    """Returns whether a setting, by its dotted key as `path_setting` takes it, may differ in a resumed run."""
    return _lookup(_marked(MayDiffer), key) is not None


def _lookup(marks: Mapping[str, M], key: str) -> M | None:
    parts = key.split(".")
    names = [new_key(".".join(parts[at:])) for at in range(len(parts))]
    names += [f"tuner.{name.split('.', 3)[3]}" for name in names if _OF_A_PART.match(name)]
    return next((marks[name] for name in names if name in marks), None)


def with_absolute_paths(tree: Mapping[str, Any]) -> Tree:
    """Returns settings, nested or dotted, with their paths from the root on, as they are recorded."""
    return _with_paths(tree, LocalPath.absolute)


def with_real_paths(tree: Mapping[str, Any]) -> Tree:
    """Returns settings, nested or dotted, with equal values for one path however it was written."""
    return _with_paths(tree, LocalPath.real)


def _with_paths(tree: Mapping[str, Any], change: Callable[[LocalPath, str], str], prefix: str = "") -> Tree:
    changed: Tree = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            changed[key] = _with_paths(value, change, f"{prefix}{key}.")
        else:
            path = path_setting(f"{prefix}{key}") if isinstance(value, str | list | tuple) else None
            changed[key] = value if path is None else map_paths(value, partial(change, path))
    return changed
