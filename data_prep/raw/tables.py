"""Rows of tables as text: CSV, whose fields may be quoted, and TSV, whose fields are not unless one says so.

A CSV's header says what separates its fields: spreadsheets write semicolons where a comma is part of numbers.

GLUE's own TSV files have no quoting: a field may begin with a quote that is part of the sentence. Read as a quoted
table such a file breaks off, or rows are swallowed up to the next quote without a word.
"""

from __future__ import annotations

import csv
import logging
import re
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

from data_prep.raw.json_files import Record
from dept_vl.errors import DataError
from dept_vl.system.text_files import open_text, text_lines

logger = logging.getLogger(__name__)

_MAX_FIELD_CHARACTERS = 1 << 24  # of a CSV field; the module's own limit of 128 Ki is less than a long web page
_QUOTE = '"'
_LINE_END = re.compile(r"\r\n|\r|\n")
_DELIMITERS = ",;\t|"
_SAID_DELIMITER = re.compile(r"^sep=(.)\r?\n?$", re.IGNORECASE)  # Excel's own first line


def check_columns(found: Sequence[str], expected: Sequence[str], place: str) -> None:
    """Checks that all expected columns are there, each once.

    Raises:
        DataError: One is missing or there twice; the message names the place and both lists.
    """
    missing = [name for name in expected if name not in found]
    if missing:
        raise DataError(
            f"{place}: missing column {', '.join(map(repr, missing))}; it has {', '.join(found) or 'none'}; expected "
            f"{', '.join(expected)}: is this another data set, or not its Hugging Face columns?"
        )
    twice = [name for name in expected if found.count(name) > 1]
    if twice:
        raise DataError(f"{place}: column {twice[0]!r} is there twice")


def read_csv(path: Path, columns: Sequence[str] | None) -> Iterator[tuple[str, Record]]:
    """Yields the rows of a table whose fields may be quoted, each with its place; see `_rows` for the columns."""
    return _rows(_quoted_fields(path, None), path, columns)


def read_tsv(path: Path, columns: Sequence[str] | None, *, is_quoted: bool = False) -> Iterator[tuple[str, Record]]:
    """Yields the rows of a table of tabs, each with its place.

    Args:
        path: The file.
        columns: The columns that must be there; see `_rows`.
        is_quoted: Whether fields may be quoted, as in CSV; if not, a quote is a character like any other.
    """
    return _rows(_quoted_fields(path, "\t") if is_quoted else _plain_fields(path), path, columns)


def read_header(path: Path, *, is_tsv: bool, is_quoted: bool = False) -> list[str]:
    """Returns the names in a table's header, without blanks around them; none where the file is empty.

    Raises:
        DataError: The file is damaged in its first lines.
    """
    lines = _plain_fields(path) if is_tsv and not is_quoted else _quoted_fields(path, "\t" if is_tsv else None)
    return [name.strip() for name in next(lines, (1, []))[1]]


def _rows(
    lines: Iterator[tuple[int, list[str]]], path: Path, columns: Sequence[str] | None
) -> Iterator[tuple[str, Record]]:
    """Yields rows by the names in the header line; lists and objects in their fields are JSON.

    Args:
        lines: Number and fields of every line.
        path: The file, for messages.
        columns: The columns that must be there; None: none must, and blanks around the names are taken off.
    """
    header: list[str] | None = None
    for number, fields in lines:
        place = f"{path}, line {number}"
        if header is None:
            header = fields if columns is not None else [name.strip() for name in fields]
            check_columns(header, columns or (), place)
        elif fields:
            if "\0" in "".join(fields):
                raise DataError(f"{place}: holds a NUL character; the file is damaged, or no text")
            if len(fields) != len(header):
                raise DataError(
                    f"{place}: {len(fields)} fields, the header has {len(header)}; write the table again with quotes "
                    "around texts, or as JSON lines"
                )
            yield place, dict(zip(header, fields, strict=True))
    if header is None:
        expected = f" with {', '.join(columns)}" if columns else ""
        raise DataError(f"{path}: the file is empty; expected a header{expected}")


def _plain_fields(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yields line number and fields of a table of tabs without quoting; a line feed alone ends a line.

    Says at the end if fields look quoted, as a spreadsheet writes them: begun, ended, and the quotes inside doubled.
    """
    quoted = 0
    with open_text(path, newline="\n") as file:
        for number, line in enumerate(text_lines(file, path), start=1):
            fields = line.removesuffix("\n").removesuffix("\r").split("\t")
            quoted += any(_looks_quoted(field) for field in fields)
            yield number, [] if fields == [""] else fields
    if quoted:
        logger.warning(
            "%s: %d rows have a field that looks quoted; their quotes are taken as part of the text, as in GLUE's own "
            "files (--tsv-quotes reads fields that a spreadsheet quoted)",
            path,
            quoted,
        )


def _looks_quoted(field: str) -> bool:
    inside = field[1:-1]
    is_wrapped = len(field) > 1 and field[0] == field[-1] == _QUOTE
    return is_wrapped and _QUOTE * 2 in inside and _QUOTE not in inside.replace(_QUOTE * 2, "")


def _quoted_fields(path: Path, delimiter: str | None) -> Iterator[tuple[int, list[str]]]:
    """Yields the number of the first line and the fields of every record of a table with quoting.

    Args:
        path: The file.
        delimiter: What separates fields; None: what the first line says.
    """
    csv.field_size_limit(_MAX_FIELD_CHARACTERS)
    first = 1
    columns = 0
    with open_text(path, newline="") as file:
        lines = text_lines(file, path)
        if delimiter is None:
            head = next(lines, "")
            said = _SAID_DELIMITER.match(head)
            delimiter = said[1] if said else _delimiter(head)
            lines, first = (lines, 2) if said or not head else (chain([head], lines), 1)
        skipped = first - 1
        reader = csv.reader(lines, delimiter=delimiter, strict=True)
        try:
            for fields in reader:
                columns = columns or len(fields)
                if reader.line_num + skipped > first and len(fields) == columns:
                    _refuse_swallowed(fields, delimiter, f"{path}, line {first}")
                yield first, fields
                first = reader.line_num + skipped + 1
        except csv.Error as error:
            raise DataError(
                f"{path}, line {first}: {error}; a quote that is not closed? Quotes inside a quoted field are doubled; "
                "write the table again with quoting, or as JSON lines"
            ) from error


def _delimiter(header: str) -> str:
    """Returns what separates the most names in a header line; a comma where nothing does so better."""

    def count(delimiter: str) -> int:
        try:
            return len(next(csv.reader([header], delimiter=delimiter), []))
        except csv.Error:
            return 0

    return max(_DELIMITERS, key=count)


def _refuse_swallowed(fields: Sequence[str], delimiter: str, place: str) -> None:
    """Refuses a record in which one field holds whole records: a quote that no one closed ran on to a later one.

    A text of several lines is right where it is quoted, and may hold delimiters. It is refused where its lines are
    records: as many fields as this one, and a number wherever this one has a number.
    """
    if len(fields) < 2:
        return
    for index, field in enumerate(fields):
        lines = _LINE_END.split(field)
        if len(lines) < 2:
            continue
        first = [*fields[:index], *lines[0].split(delimiter)]
        last = [*lines[-1].split(delimiter), *fields[index + 1 :]]
        inside = [line.split(delimiter) for line in lines[1:-1]]
        like = [value if position != index else None for position, value in enumerate(fields)]
        if (_is_record(first, like) and _is_record(last, like)) or any(_is_record(row, like) for row in inside):
            raise DataError(
                f"{place}: field {index + 1} begins with a quote and holds {len(lines)} lines that are records "
                f"themselves, such as {delimiter.join((inside or [last])[0])[:80]!r}: its quote is closed by that of a "
                "later record. Double the quotes inside quoted fields, or write the table as JSON lines"
            )


def _is_record(fields: Sequence[str], like: Sequence[str | None]) -> bool:
    """Returns whether fields are as many as another record's, and numbers where it has numbers (None: anything)."""
    return len(fields) == len(like) and all(
        other is None or _is_number(field) == _is_number(other) for field, other in zip(fields, like, strict=True)
    )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
