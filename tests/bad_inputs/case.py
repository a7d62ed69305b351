"""A bad input: how its files are made, the command that meets them, and what the message must say."""

import gzip
import json
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Base:
    """What is made once for all cases; a case copies what it spoils.

    Attributes:
        raw: Official raw files of VQA and COCO with their images.
        data: A prepared VQA task with a feature store, `data/features/random`.
        t5: The tiny T5's folder.
        vqa_run: A run trained on `data`, of 2 steps, with checkpoints.
        cola: Raw CoLA files.
        text_data: CoLA prepared from them.
        text_run: A text-only run trained on `text_data`.
    """

    raw: Path
    data: Path
    t5: Path
    vqa_run: Path
    cola: Path
    text_data: Path
    text_run: Path


Make = Callable[[Path, Base], list[Any]]


@dataclass(frozen=True)
class Case:
    """One bad input.

    Attributes:
        name: ``<kind>/<what is wrong>``.
        make: Writes files into an empty folder, which is also the working directory; returns the command line.
        says: What the one message must contain: the file, the place, the value.
        may_leave: Names of files or folders the command may leave behind, by design (a lock, a cache).
    """

    name: str
    make: Make
    says: tuple[str, ...]
    may_leave: tuple[str, ...] = ()


def copied(source: Path, folder: Path, name: str) -> Path:
    """Copies a file or folder of the base into a case's folder."""
    target = folder / name
    shutil.copytree(source, target, symlinks=True) if source.is_dir() else shutil.copy(source, target)
    return target


def edited(path: Path, change: Callable[[Any], Any]) -> Path:
    """Changes a JSON file; what `change` returns replaces the content, unless it is None."""
    content = json.loads(path.read_text())
    result = change(content)
    path.write_text(json.dumps(content if result is None else result))
    return path


def cut(path: Path, share: float) -> Path:
    """Cuts a file to a share of its bytes."""
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    return path


def flipped(path: Path, seed: int, start: int = 0) -> tuple[Path, int]:
    """Flips one bit behind `start`; returns the file and the byte's place."""
    content = bytearray(path.read_bytes())
    rng = random.Random(seed)
    place = rng.randrange(start, len(content))
    content[place] ^= 1 << rng.randrange(8)
    path.write_bytes(bytes(content))
    return path, place


def gzip_bomb(path: Path, unpacked: int) -> Path:
    """Writes a small gzip file of many spaces."""
    path.write_bytes(gzip.compress(b" " * unpacked, mtime=0))
    return path
