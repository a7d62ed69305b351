"""VizWiz's form: a list of images with a question and ten answers each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from data_prep.raw.json_files import Place, RawFile, records, take
from data_prep.raw.official.base import OfficialFormat, optional_text
from data_prep.raw.text_files import Placed
from data_prep.raw.vqa_files import read_answers


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
                "answers": read_answers(record, place) if "answers" in record else [],  # the authors keep the test's
                "answer_type": optional_text(record, "answer_type", place),
                "answerable": record.get("answerable"),
            },
        )


FORMAT = OfficialFormat(
    _read,
    ("id", "image", "question", "answers", "answer_type", "answerable"),
    "one file of questions, such as val.json",
)
