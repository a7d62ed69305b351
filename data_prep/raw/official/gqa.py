"""GQA's form: an object of questions by id."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from data_prep.raw.json_files import Place, RawFile, items, take
from data_prep.raw.official.base import OfficialFormat, optional_text
from data_prep.raw.text_files import Placed


def _read(files: Sequence[RawFile], split: str) -> Iterator[Placed]:
    (file,) = files
    for name, record in items(file).items():
        place = Place(file.path, "", name)
        types = take(record, "types", dict, place) if record.get("types") is not None else {}
        answer = optional_text(record, "answer", place)
        yield (
            str(place),
            {
                "id": name,
                "image": f"{take(record, 'imageId', str, place)}.jpg",
                "question": take(record, "question", str, place),
                "answers": [answer] if answer else [],
                **{key: optional_text(types, key, place) for key in ("structural", "semantic", "detailed")},
            },
        )


FORMAT = OfficialFormat(
    _read,
    ("id", "image", "question", "answers", "structural", "semantic", "detailed"),
    "one file of questions, such as val_balanced_questions.json",
)
