"""Three made-up rows of each task of the paper, in its data set's raw columns: they show a format and are not data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import cast

from dept_vl.tasks.base import Row

_FILE = Path(__file__).resolve().parent.parent / "assets" / "task_examples.json"


def example_rows(task: str) -> list[Row]:
    """Returns the made-up raw rows of a task; none where nobody has made any up."""
    return cast(dict[str, list[Row]], json.loads(_FILE.read_text(encoding="utf-8"))).get(task, [])
