"""Settings laid over others: one file over those it extends, the command line over a file, a file over a recipe."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from dept_vl.errors import ConfigError, SettingsError
from dept_vl.settings.choices import Tree, check_same_kinds
from dept_vl.settings.renamed import with_new_groups
from dept_vl.settings.schema import STEPS_OR_EPOCHS
from dept_vl.settings.shipped import find_config
from dept_vl.settings.yaml_files import read_yaml
from dept_vl.tuners.stack.config import collapse_name, expand_name

MAX_FILES = 100
"""Files that one may be laid over: each may extend several, which may be the same."""

EXTENDS = "extends"
"""Key of a file of settings: the file, or files, that it is laid over. It is no setting."""


def read_settings(path: Path) -> Tree:
    """Reads nested settings of a file, laid over those of the files it extends; nothing is checked but their form.

    ``extends`` is a path relative to the file, or a name as `shipped_configs` has it, or a list of them, each laid over
    those before it.

    Args:
        path: A YAML file, or the name of a shipped one.

    Raises:
        ConfigError: A file is missing or no YAML mapping, what it extends is no path or list of paths, or leads back to
            the file; or a file has another method, or another kind of a group, than the settings it is laid over.
    """
    return _read(find_config(path), (), [])


def _read(path: Path, above: Sequence[Path], read: list[Path]) -> Tree:
    """Reads a file.

    Args:
        path: The file.
        above: Those that extend it, the first one first.
        read: All that were read before it, which grows.
    """
    own = Path(os.path.realpath(path))
    read.append(own)
    if len(read) > MAX_FILES:
        raise ConfigError(f"{read[0]}: {EXTENDS}: leads to more than {MAX_FILES} files")
    if own in above:
        way = " -> ".join(str(one) for one in (*above[above.index(own) :], own))
        raise ConfigError(f"{path}: {EXTENDS}: leads back to itself: {way}")
    tree = with_new_groups(read_yaml(path))
    given = tree.pop(EXTENDS, [])
    names = [given] if isinstance(given, str) else given
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise ConfigError(f"{path}: {EXTENDS}: expected a file, or a list of files, got {given!r:.80}")
    below: Tree = {}
    for name in names:
        below = _over(below, _read(_find(path, name), (*above, own), read), path)
    return _over(below, tree, path)


def _find(path: Path, name: str) -> Path:
    """Returns the file that another one extends."""
    beside = path.parent / name
    try:
        return find_config(beside if beside.exists() or beside.is_symlink() else Path(name))
    except ConfigError:
        raise ConfigError(
            f"{path}: {EXTENDS}: {name!r}: no such file beside it ({beside}), and no name that `dept-vl configs` lists"
        ) from None


def _over(below: Tree, above: Tree, path: Path) -> Tree:
    try:
        return lay_over(below, above, {})
    except SettingsError as error:
        raise SettingsError([replace(one, given_as=None) for one in error.problems], str(path)) from None


def lay_over(below: Tree, above: Tree, given: Mapping[str, str]) -> Tree:
    """Returns nested settings laid over others, those of several methods at once by part.

    Args:
        below: What they are laid over.
        above: What wins.
        given: Dotted key of `above` -> the one it was given under, for messages.

    Raises:
        SettingsError: `above` has another kind of a group whose fields `below` sets.
        ConfigError: It has settings of a part that a stack has not.
    """
    of_file, of_line = below.get("tuner"), above.get("tuner")
    if isinstance(of_file, dict) and isinstance(of_line, dict):
        named = {**below, "tuner": collapse_name(of_file)}
        check_same_kinds(named, {**above, "tuner": collapse_name(of_line, of_file)}, given)
        of_file = expand_name(of_file)
        below, above = {**below, "tuner": of_file}, {**above, "tuner": expand_name(of_line, of_file)}
    else:
        check_same_kinds(below, above, given)
    return merge(without_replaced(below, above), above)


def without_replaced(below: Tree, above: Tree) -> Tree:
    """Returns settings without the steps or epochs that are given in the other way in those to lay over them."""
    loop, over = below.get("loop"), above.get("loop")
    if not isinstance(loop, dict) or not isinstance(over, dict):
        return below
    replaced = {key for pair in STEPS_OR_EPOCHS if any(over.get(key) is not None for key in pair) for key in pair}
    return {**below, "loop": {key: value for key, value in loop.items() if key not in replaced}}


def with_nulls(tree: Tree) -> Tree:
    """Returns settings with null for steps that are given in epochs, in place of a default."""
    loop = tree.get("loop")
    if not isinstance(loop, dict):
        return tree
    nulls = {steps: None for steps, epochs in STEPS_OR_EPOCHS if loop.get(epochs) is not None}
    return {**tree, "loop": {**nulls, **loop}}


def merge(below: Tree, above: Tree) -> Tree:
    """Returns nested settings with others over them, group by group."""
    merged: dict[str, Any] = dict(below)
    for key, value in above.items():
        under = merged.get(key)
        merged[key] = merge(under, value) if isinstance(under, dict) and isinstance(value, dict) else value
    return merged
