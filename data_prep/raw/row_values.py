"""Values of rows of one's own, brought to texts whatever file they came from."""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import numpy as np

from dept_vl.errors import DataError, shown
from dept_vl.system.bounded_reading import parse_json

_ARRAY = re.compile(r"""['"]\s+['"]""")


def read_text(value: Any) -> str:
    """Returns a value as text without blanks around it; "" where there is none (null, or a float that is no number).

    A whole number is written as one, also where a table holds it as a float, as tables with gaps do.

    Raises:
        DataError: It is a list, an object or something else that is no text.
    """
    if isinstance(value, str):
        return _whole(value.strip())
    if isinstance(value, np.generic):
        value = value.item()
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return "" if math.isnan(value) else str(int(value)) if value.is_integer() else repr(value)
    if isinstance(value, Decimal):
        return str(value)
    raise DataError(f"should be a text or a number, found {shown(value)}")


def _whole(text: str) -> str:
    """Returns a text without half characters, which no file can hold."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"holds half a character (\\u{ord(text[error.start]):04x}) in {text[:40]!a}") from None
    return text


def read_texts(value: Any) -> list[str]:
    """Returns the texts of a value: one, or those of a list; empty ones are left out.

    A cell of a table may hold a list as JSON, or as Python prints it. Objects in a list are taken for their ``answer``,
    as VQA's official files have them.

    Raises:
        DataError: The list holds something else than texts, or is printed in a form that cannot be read back.
    """
    if isinstance(value, str) and value.lstrip().startswith("[") and value.rstrip().endswith("]"):
        value = _listed(value.strip())
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if not isinstance(value, list | tuple):
        return [text for text in [read_text(value)] if text]
    items = [one["answer"] if isinstance(one, Mapping) and "answer" in one else one for one in value]
    return [text for text in map(read_text, items) if text]


def _listed(text: str) -> Any:
    """Returns the list that a cell holds; the text itself where it is none."""
    try:
        return parse_json(text)
    except ValueError:
        pass
    try:
        listed = ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return text
    if _ARRAY.search(text):
        raise DataError(f"holds a list without commas, as NumPy prints it, {shown(text)}; write lists as JSON")
    return listed
