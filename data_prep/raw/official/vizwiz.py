"""VizWiz's form: a list of images with a question and ten answers each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from data_prep.raw.json_files import Place, RawFile, Record, records, take
from data_prep.raw.official.base import OfficialFormat, optional_text
from data_prep.raw.text_files import Placed


def _read(files: Sequence[RawFile], split: str) -> Iterator[Placed]:
    (file,) = files
    for number, record in enumerate(records(file, "")):
        place = Place(file.path, "", number)
        image = take(record, "image", str, place)
        yield (
            str(place),
            {
                "id": image,
                "image": image,
                "question": take(record, "question", str, place),
                "answers": _answers(record, place),
                "answer_type": optional_text(record, "answer_type", place),
                "answerable": record.get("answerable"),
            },
        )


def _answers(record: Record, place: Place) -> list[str]:
    """Returns what people answered; nothing of a test split, whose answers the authors keep."""
    if "answers" not in record:
        return []
    listed = take(record, "answers", list, place)
    answers = [one["answer"] for one in listed if isinstance(one, dict) and isinstance(one.get("answer"), str)]
    if not answers or len(answers) < len(listed):
        raise place.error('"answers" should be a list of objects with a text "answer" each')
    return answers


FORMAT = OfficialFormat(
    _read,
    ("id", "image", "question", "answers", "answer_type", "answerable"),
    "one file of questions, such as val.json",
)
