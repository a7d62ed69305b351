"""The table of faults: how a row is added, and what its outcome is compared with."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from benchmarks.faults.world import Ended, World, tree_hash

Row = Callable[[World, int], str]
"""Does fault number N and returns what was lost, "" for nothing."""

ROWS: dict[str, tuple[int, Row]] = {}


def row(name: str, times: int) -> Callable[[Row], Row]:
    """Adds a row of the table: its name, and how often it is done."""

    def add(function: Row) -> Row:
        ROWS[name] = (times, function)
        return function

    return add


def differs(given: dict, wanted: dict) -> str:
    """Returns which entries of two mappings differ."""
    keys = sorted(key for key in given.keys() | wanted.keys() if given.get(key) != wanted.get(key))
    return f"differs: {', '.join(keys)}" if keys else ""


def one_message(ended: Ended, code: int = 2) -> str:
    """Returns what is wrong with how a command refused: it is to print one message, no traceback."""
    messages = ended.text.count("dept-vl: error: ")
    if ended.code != code or messages != 1 or "Traceback" in ended.text:
        return f"exit {ended.code}, {messages} messages: {ended.text[-600:]}"
    return ""


def copy_of_prepared(world: World) -> Path:
    """Returns a new folder with the prepared splits, and no features."""
    data = world.new("data")
    shutil.copytree(world.data / "vqa", data / "vqa")
    return data


def store_hashes(data: Path) -> dict[str, str]:
    """Returns the hash of every file of the one feature store."""
    (store,) = (data / "features").iterdir()
    return tree_hash(store)


def reference(world: World, kind: str, work: Callable[[Path], list[str]]) -> Path:
    """Returns what an unbroken command wrote, made once."""
    path = world.root / f"reference-{kind}"
    if not path.exists():
        world.must(work(path))
    return path
