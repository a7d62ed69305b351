"""The text of a request as the columns that a task's template reads. No torch."""

from __future__ import annotations

import json
import threading

from dept_vl.serving.errors import RequestError
from dept_vl.system.bounded_reading import parse_json
from dept_vl.tasks import Task

TOKENIZING = threading.Lock()
"""A fast tokenizer fails ("Already borrowed") where two threads ask it and one changes how it cuts texts."""


def read_columns(task: Task, name: str, text: str) -> dict[str, str]:
    """Returns the task's columns: the text itself, or of several the members of the JSON object that it is.

    Args:
        task: The adapter's.
        name: The adapter's, for messages.
        text: Of the request.

    Raises:
        RequestError: The task takes no text, or others than these columns.
    """
    names = task.input_columns
    if not names and text.strip():
        raise RequestError(
            400, f"content: got a text; {what_it_takes(task, name)}", param="messages", code="text_not_read"
        )
    if len(names) < 2:
        return {column: text for column in names if text.strip()}
    try:
        given = parse_json(text)
    except ValueError:
        given = None
    if not isinstance(given, dict) or given.keys() != set(names):
        raise RequestError(400, f"content: {what_it_takes(task, name)}", param="messages")
    return given


def what_it_takes(task: Task, name: str) -> str:
    """Returns what a request to an adapter has, for messages."""
    images = f"{task.num_images} image{'s' * (task.num_images > 1)}" if task.uses_images else "no image"
    names = task.input_columns
    text = f"the {names[0]} as text" if len(names) == 1 else "no text"
    if len(names) > 1:
        text = f"as text a JSON object such as {json.dumps(dict.fromkeys(names, '...'))}"
    return f"model {name!r} (task {task.name!r}) takes {images} and {text}"
