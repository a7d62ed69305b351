"""Reading raw files from somewhere else: every defect is reported with file, place and what was expected."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from dept_vl.errors import DataError, shown
from dept_vl.system.text_files import decode_json, decode_text, parse_lines, read_content

T = TypeVar("T")
Record = Mapping[str, Any]

_NAMES = {int: "a whole number", str: "a text", list: "a list", dict: "an object"}


@dataclass(frozen=True)
class RawFile:
    """A JSON file that was read.

    Attributes:
        path: Where it lies.
        content: Its decoded content.
        sha256: Of its bytes, hexadecimal.
        size_bytes: Of its bytes.
    """

    path: Path
    content: Any
    sha256: str
    size_bytes: int

    def without_content(self) -> RawFile:
        """Returns the same without the content, which may be gigabytes."""
        return replace(self, content=None)


def find_raw(raw: Path, name: str, *subfolders: str) -> Path:
    """Returns where the raw file `name` lies, or its copy packed with gzip: in `raw` or one of its `subfolders`.

    Raises:
        DataError: It is in none of them.
    """
    if not raw.is_dir():
        raise DataError(f"{raw}: no such folder of raw files")
    places = [raw / name, *(raw / folder / name for folder in subfolders)]
    for place in places:
        for path in (place, place.with_name(f"{name}.gz")):
            if path.is_file():
                return path
    others = "".join(f" or {place}" for place in places[1:])
    raise DataError(f"{places[0]}{others}: no such raw file; docs/data.md says where to download it (unpacked)")


def read_json(path: Path) -> RawFile:
    """Reads a whole JSON file, packed with gzip or not.

    Raises:
        DataError: It is missing, cut short or otherwise no JSON; the message says where it breaks off.
    """
    data = read_content(path)
    return RawFile(path, decode_json(data, path), hashlib.sha256(data).hexdigest(), len(data))


def read_json_lines(path: Path) -> RawFile:
    """Reads a whole file of an object a line, packed with gzip or not; its content is the list of them.

    Raises:
        DataError: It is missing or cut short, or a line is no object; the message names it.
    """
    data = read_content(path)
    content = [record for _, record in parse_lines(decode_text(data, path), path)]
    return RawFile(path, content, hashlib.sha256(data).hexdigest(), len(data))


def records(file: RawFile, key: str) -> list[Record]:
    """Returns the list of objects under `key` at the top of a file; the file's own list where `key` is "".

    Raises:
        DataError: The file is not an object, has no such key, or the value is not a list of objects.
    """
    if not key:
        return _objects(file.content, f"{file.path}", f"{file.path}")
    if not isinstance(file.content, dict):
        raise DataError(
            f'{file.path}: expected an object with "{key}" at the top, found {shown(file.content, json.dumps)}'
        )
    if key not in file.content:
        keys = ", ".join(f'"{k}"' for k in list(file.content)[:8]) or "nothing"
        raise DataError(f'{file.path}: missing "{key}" at the top; it has {keys}; is this another file, renamed?')
    return _objects(file.content[key], f'{file.path}: "{key}"', f"{file.path}, {key}")


def _objects(listed: Any, what: str, where: str) -> list[Record]:
    if not isinstance(listed, list):
        raise DataError(f"{what} should be a list, found {shown(listed, json.dumps)}")
    for number, record in enumerate(listed):
        if not isinstance(record, dict):
            raise DataError(f"{where}, record {number}: expected an object, found {shown(record, json.dumps)}")
    return listed


def items(file: RawFile) -> Mapping[str, Record]:
    """Returns the records of a file that is an object of records, by their ids.

    Raises:
        DataError: It is something else.
    """
    if not isinstance(file.content, dict):
        raise DataError(f"{file.path}: expected an object of records by id, found {shown(file.content, json.dumps)}")
    for name, record in file.content.items():
        if not isinstance(record, dict):
            raise DataError(f"{file.path}, record {name}: expected an object, found {shown(record, json.dumps)}")
    return file.content


@dataclass(frozen=True)
class Place:
    """Where a record stands, for messages: file, list ("" where the file is one), and number from 0 or id."""

    path: Path
    key: str
    number: int | str

    def __str__(self) -> str:
        return f"{self.path}, {self.key and f'{self.key}, '}record {self.number}"

    def error(self, problem: str) -> DataError:
        """Returns an error that names this place."""
        return DataError(f"{self}: {problem}")


def take(record: Record, name: str, kind: type[T], place: Place) -> T:
    """Returns ``record[name]`` after checking that it is there and of the right kind.

    Raises:
        DataError: It is missing or of another kind; the message names the place.
    """
    if name not in record:
        raise place.error(f'missing "{name}"; it has {", ".join(map(repr, record)) or "nothing"}')
    value = record[name]
    if not isinstance(value, kind) or isinstance(value, bool):
        raise place.error(f'"{name}" should be {_NAMES[kind]}, found {shown(value, json.dumps)}')
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise place.error(f'"{name}" should fit 64 bits, found {shown(value, json.dumps)}')
    return value
