"""The one place that opens text from somewhere else: JSON, JSON lines, tables, settings.

What a file holds decides, not its name: UTF-8 with or without a byte order mark, UTF-16 and UTF-32 with one, plain or
packed with gzip. A pipe is read where the command line names an open one: ``-``, ``/dev/stdin`` and what a shell puts
for ``<(command)``. A pipe that lies in a folder under a name is refused, as nothing says that anyone writes to it.
"""

from __future__ import annotations

import codecs
import errno
import gzip
import io
import json
import os
import re
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from dept_vl.errors import DataError
from dept_vl.system.bounded_reading import check_regular, parse_json, read_file, unpack_gzip

MAX_PIPE_BYTES = 1 << 30
"""Most that is read from a pipe, which does not say how long it is."""

MAX_LINE_CHARACTERS = 1 << 24
"""Longest line read: a small packed file may hold a line of gigabytes."""

_OPEN_FILE = re.compile(r"^(?:-|/dev/stdin|/dev/fd/(\d+)|/proc/self/fd/(\d+))$")
_GZIP, _ZIP = b"\x1f\x8b", b"PK\x03\x04"
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16's, with which it begins
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)

_streams: dict[tuple[int, ...], bytes] = {}
"""What was read of an open file, by device, number, size and time: a pipe is read once, and looked at twice."""


def is_stream(path: Path) -> bool:
    """Returns whether a path names an open file of this process, such as ``-``: paths in it start nowhere else."""
    return _OPEN_FILE.match(str(path)) is not None


def read_text(path: Path, max_bytes: int | None = None) -> str:
    """Returns the text of a file or an open pipe.

    Args:
        path: The file, or what `is_stream` takes.
        max_bytes: Most that it may have, packed or not; None: as large as it is.

    Raises:
        DataError: It cannot be read, is too large, damaged, packed otherwise than with gzip, or no text; the message
            names it.
    """
    text = decode_text(read_content(path, max_bytes), path)
    if max_bytes is not None and len(text) > max_bytes:
        raise DataError(f"{path}: unpacks to more than {max_bytes:,} characters")
    return text


def read_json(path: Path) -> Any:
    """Returns the value of a JSON file.

    Raises:
        DataError: As `read_text`; or it is no JSON, and the message says where it breaks off.
    """
    return decode_json(read_content(path), path)


def read_content(path: Path, max_bytes: int | None = None) -> bytes:
    """Returns the bytes of a file or an open pipe as they are.

    Raises:
        DataError: It cannot be read, or is too large.
    """
    try:
        return _read_stream(path, max_bytes) if is_stream(path) else read_file(path, max_bytes)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {_reason(error)}") from error


def decode_text(content: bytes, path: Path) -> str:
    """Returns the text of a file's bytes; `path` is for the message.

    Raises:
        DataError: They are damaged, packed otherwise than with gzip, or no text.
    """
    with _named(path):
        if content.startswith(_GZIP):
            content = unpack_gzip(content)
        _refuse_archive(content, path)
        return content.decode(_encoding(content))


def decode_json(content: bytes, path: Path) -> Any:
    """Returns the JSON value of a file's bytes; `path` is for the message.

    Raises:
        DataError: As `decode_text`; or they are no JSON.
    """
    text = decode_text(content, path)
    try:
        return parse_json(text)
    except json.JSONDecodeError as error:
        hint = "the file ends there: cut short, get it again" if len(text) - error.pos <= 1 else "get it again"
        if error.msg == "Extra data":
            hint = "more than one value, as JSON lines have"
        offset, size = len(text[: error.pos].encode()), len(text.encode())
        raise DataError(
            f"{path}: not valid JSON at byte {offset:,} of {size:,} (line {error.lineno}, column {error.colno}): "
            f"{error.msg}; {hint}"
        ) from error
    except ValueError as error:
        raise DataError(f"{path}: JSON {error}; not one of the official files") from error


@contextmanager
def open_text(path: Path, newline: str | None = None) -> Iterator[IO[str]]:
    """Opens the text of an ordinary file that may be too long for memory, for reading line by line.

    What goes wrong while the block reads is worded as `read_text` does.

    Args:
        path: The file.
        newline: As of `open`.

    Raises:
        DataError: As `read_text`.
    """
    with _named(path):
        check_regular(path)
        with open(path, "rb") as file:
            is_packed = file.peek(2)[:2] == _GZIP
            content = io.BufferedReader(gzip.GzipFile(fileobj=file)) if is_packed else file
            head = content.peek(4)
            _refuse_archive(head, path)
            with io.TextIOWrapper(content, encoding=_encoding(head), newline=newline) as text:
                yield text


def text_lines(file: IO[str], path: Path) -> Iterator[str]:
    """Yields the lines of an open text with their ends.

    Raises:
        DataError: One is longer than `MAX_LINE_CHARACTERS`.
    """
    for number, line in enumerate(iter(lambda: file.readline(MAX_LINE_CHARACTERS), ""), start=1):
        if len(line) == MAX_LINE_CHARACTERS:
            raise DataError(
                f"{path}, line {number}: longer than {MAX_LINE_CHARACTERS:,} characters, so no row of a data set"
            )
        yield line


def parse_lines(text: str, path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields the objects of JSON lines, each with its place, such as ``in.jsonl, line 3``.

    Only a line feed ends a line: JSON may hold the other characters that Unicode counts as ends.

    Raises:
        DataError: A line is no JSON, or no object.
    """
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            place = f"{path}, line {number}"
            yield place, parse_line(line, place)


def parse_line(line: str, place: str) -> dict[str, Any]:
    """Returns the object on a line of JSON lines; `place` is for the message.

    Raises:
        DataError: It is no JSON, or no object.
    """
    try:
        row = parse_json(line)
    except ValueError as error:
        raise DataError(f"{place}: not valid JSON: {error}") from error
    if not isinstance(row, dict):
        raise DataError(f"{place}: expected an object of columns, got {line.strip()[:80]}")
    return row


def _read_stream(path: Path, max_bytes: int | None) -> bytes:
    """Returns what an open file of this process holds, read once.

    Raises:
        OSError: It is not open, is a terminal or a device, or is too long.
    """
    match = _OPEN_FILE.match(str(path))
    number = int(next((group for group in match.groups() if group), "0")) if match else 0
    status = os.fstat(number)
    is_file = stat.S_ISREG(status.st_mode)
    if not (is_file or stat.S_ISFIFO(status.st_mode) or stat.S_ISSOCK(status.st_mode)):
        raise OSError(errno.EINVAL, "is a terminal or a device; pipe a file into it: cat FILE | dept-vl ...")
    key = (status.st_dev, status.st_ino, *((status.st_size, status.st_mtime_ns) if is_file else ()))
    if key not in _streams:
        limit = MAX_PIPE_BYTES if max_bytes is None else max_bytes
        with os.fdopen(os.dup(number), "rb") as file:
            content = file.read(limit + 1)
        if len(content) > limit:
            raise OSError(errno.EFBIG, f"is longer than {limit:,} bytes; write it to a file, or in parts")
        _streams[key] = content
    return _streams[key]


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Words what unpacking and decoding raise, with the file's name.

    Raises:
        DataError: For each of them.
    """
    try:
        yield
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: not UTF-8 text at byte {error.start:,}: {error.reason}; save it as UTF-8"
            if error.encoding.startswith("utf-8")
            else f"{path}: not {error.encoding.upper()} text, as its byte order mark says: {error.reason}"
        ) from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(
            f"{path}: the compressed file is cut short or damaged, not a complete gzip file ({error}); get it again"
        ) from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {_reason(error)}") from error


def _reason(error: OSError) -> str:
    return error.strerror or str(error)


def _refuse_archive(head: bytes, path: Path) -> None:
    if head.startswith(_ZIP):
        raise DataError(f"{path}: is a packed file (a zip archive); unpack it first")


def _encoding(head: bytes) -> str:
    """Returns the encoding that a text's byte order mark says; UTF-8 without one."""
    return next((name for mark, name in _MARKS if head.startswith(mark)), "utf-8-sig")
