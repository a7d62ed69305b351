"""Raw values of a text task's columns, checked and brought to one form whatever file they came from."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from data_prep.raw.json_files import Record
from dept_vl.errors import DataError, shown
from dept_vl.system.bounded_reading import parse_json
from dept_vl.tasks import Row
from dept_vl.tasks.base import ColumnKind


def read_row(record: Record, columns: Mapping[str, ColumnKind]) -> Row:
    """Returns the columns of a raw row that a task reads.

    Classes, numbers and groups become texts; ``answers`` and ``texts`` lists of texts; ``spans`` a dictionary of
    ``text`` and ``answer_start``, in this order.

    Raises:
        DataError: A value is of another kind, or a text is empty; the message names the column.
    """
    row = {}
    for name, kind in columns.items():
        try:
            row[name] = _READERS[kind](record[name])
        except DataError as error:
            raise DataError(f"{name!r} {error}") from None
    return row


def _text_or_empty(value: Any) -> str:
    if not isinstance(value, str):
        raise DataError(f"should be a text, found {shown(value)}")
    return value


def _text(value: Any) -> str:
    if not _text_or_empty(value).strip():
        raise DataError("is empty")
    return str(value)


def _label(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise DataError(f"should be a class, found {shown(value)}")
    return str(value)


def _number(value: Any) -> str:
    try:
        number = float("nan" if isinstance(value, bool) or value is None else value)
    except (ValueError, TypeError):
        number = math.nan
    if not math.isfinite(number):
        raise DataError(f"should be a number, found {shown(value)}")
    return repr(number)


def _integer(value: Any) -> str:
    if isinstance(value, str) and value.isdecimal():
        return value
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise DataError(f"should be a whole number from 0, found {shown(value)}")
    return str(value)


def _decoded(value: Any) -> Any:
    """Returns what a text of a CSV or TSV file stands for; other files hold lists and objects as such."""
    if not isinstance(value, str):
        return value
    try:
        return parse_json(value)
    except ValueError:
        return value


def _texts(value: Any) -> list[str]:
    texts = _decoded(value)
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise DataError(f"should be a list of texts, found {shown(value)}")
    if not all(text.strip() for text in texts):
        raise DataError("holds an empty text")
    return texts


def _spans(value: Any) -> dict[str, list[Any]]:
    spans = _decoded(value)
    if not isinstance(spans, dict) or not {"text", "answer_start"} <= spans.keys():
        raise DataError(f'should be an object of "text" and "answer_start", found {shown(value)}')
    return {"text": _texts(spans["text"]), "answer_start": [int(_integer(n)) for n in spans["answer_start"]]}


def _group(value: Any) -> str:
    group = _decoded(value)
    if not isinstance(group, dict) or not {"paragraph", "question"} <= group.keys():
        raise DataError(f'should be an object of "paragraph", "question" and "answer", found {shown(value)}')
    return f"{_integer(group['paragraph'])}-{_integer(group['question'])}"


_READERS: Mapping[ColumnKind, Callable[[Any], Any]] = {
    "text": _text,
    "text or empty": _text_or_empty,
    "label": _label,
    "number": _number,
    "integer": _integer,
    "texts": _texts,
    "answers": _texts,
    "spans": _spans,
    "group": _group,
}
