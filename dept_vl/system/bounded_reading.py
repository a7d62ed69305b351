"""Reading small files and JSON from strangers: whatever they hold, the time and memory are bounded and errors are few.

Python's own JSON and YAML readers are safe from code, not from size: JSON nested a hundred thousand deep raises
RecursionError, a whole number of five thousand digits a bare ValueError, nine lines of YAML with aliases stand for a
billion words, and a pipe in a file's place is waited on for ever.
"""

from __future__ import annotations

import errno
import hashlib
import json
import stat
import zlib
from collections.abc import Hashable
from pathlib import Path
from typing import Any, cast

import yaml

MAX_SETTINGS_BYTES = 1 << 20
"""Largest settings file read; the longest configuration of this package has 4 KiB."""

MAX_YAML_NODES = 100_000
"""Values a YAML text may stand for, aliases written out."""

_UNPACKED_ALWAYS = 64 << 20
_UNPACKED_TIMES = 100  # JSON of captions and answers packs 4 to 15 times; a bomb of zeros 1,000 times


def check_regular(path: Path) -> None:
    """Checks that `path` is an ordinary file, so that reading it ends.

    Raises:
        OSError: It is missing, a folder, a pipe, a device or a loop of links; `strerror` says which.
    """
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "is a folder, expected a file", str(path))
    if not stat.S_ISREG(mode):
        raise OSError(
            errno.EINVAL, "is a pipe, a socket or a device, expected a file (- reads standard input)", str(path)
        )


def read_file(path: Path, max_bytes: int | None = None) -> bytes:
    """Returns the content of an ordinary file of at most `max_bytes`.

    Raises:
        OSError: As `check_regular`; it is larger; or it cannot be read.
    """
    check_regular(path)
    if max_bytes is None:
        return path.read_bytes()
    with open(path, "rb") as file:
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise OSError(errno.EFBIG, f"is larger than {max_bytes:,} bytes", str(path))
    return content


def hash_file(path: Path) -> str:
    """Returns the sha256 of a file's content, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def parse_json(text: str | bytes) -> Any:
    """Returns the value of a JSON text; every way it can be bad is a ValueError.

    Raises:
        ValueError: It is not JSON (`json.JSONDecodeError`), not UTF-8 (`UnicodeDecodeError`), nested too deeply, or
            holds a number too long to read or text that is not Unicode (half a surrogate pair).
    """
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if b"\\ud" in text.lower() if isinstance(text, bytes) else "\\ud" in text.lower():
        _refuse_half_characters(value)
    return value


def _refuse_half_characters(value: Any) -> None:
    """Refuses text with half a surrogate pair, which cannot be written to any file."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, str):
            try:
                item.encode()
            except UnicodeEncodeError as error:
                raise ValueError(f"holds half a character (\\u{ord(item[error.start]):04x}) in {item[:40]!a}") from None
        elif isinstance(item, dict):
            waiting += [*item.keys(), *item.values()]
        elif isinstance(item, list):
            waiting += item


def parse_yaml(text: str) -> Any:
    """Returns the value of a YAML text of plain types, aliases allowed as long as they stay small.

    Raises:
        yaml.YAMLError: It is not YAML, names types to build, gives a key twice, refers to itself, or stands for too
            much.
    """
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _count_nodes(node, {}, frozenset())
        return cast(Any, loader).construct_document(node)
    except (RecursionError, ValueError, OverflowError) as error:  # a date of month 13, 5,000 digits, 20,000 brackets
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise yaml.YAMLError(reason) from None
    finally:
        cast(Any, loader).dispose()


def _count_nodes(node: yaml.Node, counted: dict[Hashable, int], above: frozenset[int]) -> int:
    """Returns how many values a node stands for, aliases written out."""
    if id(node) in above:
        raise yaml.YAMLError("an alias refers to what contains it")
    if id(node) not in counted:
        parts: list[yaml.Node] = []
        if isinstance(node, yaml.SequenceNode):
            parts = node.value
        elif isinstance(node, yaml.MappingNode):
            parts = [part for pair in node.value for part in pair]
            _refuse_twice(node)
        counted[id(node)] = 1 + sum(_count_nodes(part, counted, above | {id(node)}) for part in parts)
    if counted[id(node)] > MAX_YAML_NODES:
        raise yaml.YAMLError(f"stands for more than {MAX_YAML_NODES:,} values once its aliases are written out")
    return counted[id(node)]


def _refuse_twice(node: yaml.MappingNode) -> None:
    """Refuses a key that is given twice: YAML readers take the last one without a word."""
    seen: set[str] = set()
    for key, _ in node.value:
        if isinstance(key, yaml.ScalarNode) and key.value != "<<":
            if key.value in seen:
                raise yaml.YAMLError(f"{key.value!r} is given twice, again in line {key.start_mark.line + 1}")
            seen.add(key.value)


def unpack_gzip(content: bytes) -> bytes:
    """Returns what a gzip file unpacks to.

    Raises:
        EOFError: It is cut short.
        zlib.error: It is damaged.
        OSError: It unpacks to far more than text of its size would.
    """
    limit = max(_UNPACKED_ALWAYS, _UNPACKED_TIMES * len(content))
    parts: list[bytes] = []
    room = limit
    rest = content
    while rest:
        unpacker = zlib.decompressobj(wbits=31)  # 31: a gzip header, and no other
        parts.append(unpacker.decompress(rest, room + 1))
        room -= len(parts[-1])
        if room < 0:
            raise OSError(errno.EFBIG, f"unpacks to more than {limit:,} bytes; unpack it yourself if that is right")
        if not unpacker.eof:
            raise EOFError("the compressed file is cut short")
        rest = unpacker.unused_data.lstrip(b"\0")  # a file may be padded, or hold several parts
    return b"".join(parts)
