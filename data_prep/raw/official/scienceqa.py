"""ScienceQA's form: an object of problems by id, and which of them are in each split.

Texts are those of the authors' ``models/base_prompt.py`` (format QCM): the hint is the context, ``N/A`` where there is
none, and the choices are ``(A) ... (B) ...``. Problems without an image have an empty one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from string import ascii_uppercase

from data_prep.raw.json_files import Place, RawFile, Record, items, take
from data_prep.raw.official.base import OfficialFormat, optional_text
from data_prep.raw.text_files import Placed
from dept_vl.errors import DataError

_NO_CONTEXT = "N/A"
_DETAILS = ("subject", "topic", "category", "skill", "grade")


def _read(files: Sequence[RawFile], split: str) -> Iterator[Placed]:
    problem_file, split_file = files
    problems = items(problem_file)
    for problem_id in _listed(split_file, split):
        if problem_id not in problems:
            raise DataError(
                f"{split_file.path}, {split}: problem {problem_id} is not in {problem_file.path.name}; are they of one "
                "data set?"
            )
        place = Place(problem_file.path, "", problem_id)
        yield str(place), _row(problem_id, problems[problem_id], split, place)


def _listed(file: RawFile, split: str) -> list[str]:
    """Returns the ids of a split."""
    listed = file.content.get(split) if isinstance(file.content, dict) else None
    if not isinstance(listed, list) or not all(isinstance(one, str) for one in listed):
        raise DataError(f'{file.path}: expected an object with a list of ids under "{split}"')
    return listed


def _row(problem_id: str, record: Record, split: str, place: Place) -> Record:
    choices = take(record, "choices", list, place)
    if not 1 < len(choices) <= len(ascii_uppercase) or not all(isinstance(choice, str) for choice in choices):
        raise place.error(f'"choices" should be two texts or more, found {choices!r:.60}')
    answer = take(record, "answer", int, place) if record.get("answer") is not None else None
    if answer is not None and not 0 <= answer < len(choices):
        raise place.error(f'"answer" is {answer}, and there are {len(choices)} choices, numbered from 0')
    image = optional_text(record, "image", place)
    return {
        "id": problem_id,
        "image": f"{split}/{problem_id}/{image}" if image else None,
        "question": take(record, "question", str, place),
        "context": optional_text(record, "hint", place).strip() or _NO_CONTEXT,
        "options": " ".join(f"({letter}) {choice}" for letter, choice in zip(ascii_uppercase, choices, strict=False)),
        "label": None if answer is None else ascii_uppercase[answer],
        **{name: optional_text(record, name, place) for name in _DETAILS},
    }


FORMAT = OfficialFormat(
    _read,
    ("id", "image", "question", "context", "options", "label", *_DETAILS),
    "problems.json and pid_splits.json, named for every split that is to be made",
    least=2,
    most=2,
)
