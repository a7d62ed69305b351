"""What a form of official files is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from data_prep.raw.json_files import Place, RawFile, Record, take
from data_prep.raw.text_files import Placed


@dataclass(frozen=True)
class OfficialFormat:
    """One form of files.

    Attributes:
        read: Yields the rows of a split from its files, in the order they are named in; ``answers``, ``caption`` or
            ``label`` are empty where the authors keep them. Raises `DataError` where a file is not of the form.
        columns: What rows may have: ``id``, ``image`` (a path or name) and ``image_id`` where images have numbers of
            their own, the texts, the answers, and what scores are broken down by.
        files: What a split's files are, for messages.
        least: How many they are at least.
        most: And at most.
        is_lines: Whether they are JSON lines, whatever their names say; their content is then the list of objects.
    """

    read: Callable[[Sequence[RawFile], str], Iterator[Placed]]
    columns: tuple[str, ...]
    files: str
    least: int = 1
    most: int = 1
    is_lines: bool = False


def optional_text(record: Record, name: str, place: Place) -> str:
    """Returns a text of a record; "" where it is absent or null.

    Raises:
        DataError: It is something else.
    """
    return "" if record.get(name) is None else take(record, name, str, place)
