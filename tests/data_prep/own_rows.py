"""Declarations, images and tables of rows of one's own, for the tests of what prepares them."""

import csv
import json
import random
from pathlib import Path
from typing import Any

from PIL import Image

from data_prep.prepare import prepare
from data_prep.prepared import PreparedStats
from dept_vl.data.manifest import open_split, split_path
from dept_vl.tasks.declaration import TaskDeclaration
from dept_vl.tasks.declared import make_task

QUESTION = {"kind": "question", "template": "question: {question}", "image": "image", "target": ["answer"]}


def declare(**changes: Any) -> TaskDeclaration:
    """Returns a task of questions about images, with some fields changed."""
    return TaskDeclaration(**{"name": "mine", **QUESTION, **changes})


def declare_text(**changes: Any) -> TaskDeclaration:
    """Returns a task of text to text."""
    fields = {"name": "mine", "kind": "text", "template": "say: {question}", "target": ["answer"], **changes}
    return TaskDeclaration(**fields)


def draw(folder: Path, *names: str) -> Path:
    """Draws noise, of each name another."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = random.Random(name).randbytes(3 * 12 * 8)
        Image.frombytes("RGB", (12, 8), noise).save(path, "PNG" if name.lower().endswith("png") else "JPEG")
    return folder


def some_rows(count: int, images: int = 10, **columns: Any) -> list[dict[str, Any]]:
    """Returns rows about images that `draw_some` draws."""
    return [
        {"image": f"{n % images}.jpg", "question": f"what {n}?", "answer": f"answer {n % 3}", **columns}
        for n in range(count)
    ]


def draw_some(folder: Path, images: int = 10) -> Path:
    """Draws the images of `some_rows`."""
    return draw(folder, *(f"{n}.jpg" for n in range(images)))


def write_csv(path: Path, rows: list[dict[str, Any]], encoding: str = "utf-8", **options: Any) -> Path:
    """Writes a table as Python's own writer does: CRLF, quotes where they are needed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding=encoding) as file:
        writer = csv.DictWriter(file, list(rows[0]), **options)
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def prepared(declaration: TaskDeclaration, out: Path, **options: Any) -> PreparedStats:
    """Prepares rows with the converter that the declaration stands for."""
    return prepare(make_task(declaration), None, out, **options)


def read(declaration: TaskDeclaration, out: Path, split: str) -> list[dict[str, Any]]:
    """Returns the rows of a prepared split."""
    return list(open_split(out, make_task(declaration), split))


def read_all(declaration: TaskDeclaration, out: Path) -> list[dict[str, Any]]:
    """Returns the rows of all splits that are there, in order of their ids."""
    task = make_task(declaration)
    there = [split for split in ("train", "val", "test") if split_path(out, task, split).is_file()]
    return sorted((row for split in there for row in open_split(out, task, split)), key=lambda row: row["example_id"])
