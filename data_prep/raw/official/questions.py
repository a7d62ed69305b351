"""Questions about images in the forms of VQA, which OK-VQA has too, VizWiz and GQA."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from data_prep.raw.json_files import Place, RawFile, items, records, take
from data_prep.raw.official.base import OfficialFormat, optional_text
from data_prep.raw.text_files import Placed
from data_prep.raw.vqa_files import Question, join_questions, read_answers, read_asked

_SUBTYPE = re.compile(r"(train|val|test)\D*(20\d\d)")


def _read_vqa(files: Sequence[RawFile], split: str) -> Iterator[Placed]:
    """Reads a file of questions and one of annotations."""
    questions = files[0]
    folder = _image_folder(questions)
    if len(files) == 1:
        asked = [Question(key, image_id, text, (), "", "") for key, (image_id, text) in read_asked(questions).items()]
    else:
        asked = join_questions(questions, files[1])
    for number, one in enumerate(asked):
        name = f"{one.image_id:012}.jpg"
        yield (
            str(Place(questions.path, "questions", number)),
            {
                "id": one.question_id,
                "image": f"{folder}/COCO_{folder}_{name}" if folder else name,
                "image_id": one.image_id,
                "question": one.question,
                "answers": list(one.answers),
                "answer_type": one.answer_type,
                "question_type": one.question_type,
            },
        )


def _image_folder(questions: RawFile) -> str:
    """Returns which of COCO's folders the images are in: ``test2015`` of ``test-dev2015``; "" where nothing says it."""
    said = questions.content.get("data_subtype") if isinstance(questions.content, dict) else None
    found = _SUBTYPE.search(said) if isinstance(said, str) else None
    return "".join(found.groups()) if found else ""


def _read_vizwiz(files: Sequence[RawFile], split: str) -> Iterator[Placed]:
    """Reads a list of images with a question and ten answers each."""
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


def _read_gqa(files: Sequence[RawFile], split: str) -> Iterator[Placed]:
    """Reads objects of questions by id, of one file after the other."""
    asked = ((Place(file.path, "", name), record) for file in files for name, record in items(file).items())
    for place, record in asked:
        types = take(record, "types", dict, place) if record.get("types") is not None else {}
        answer = optional_text(record, "answer", place)
        yield (
            str(place),
            {
                "id": place.number,
                "image": f"{take(record, 'imageId', str, place)}.jpg",
                "question": take(record, "question", str, place),
                "answers": [answer] if answer else [],
                **{key: optional_text(types, key, place) for key in ("structural", "semantic", "detailed")},
            },
        )


VQA = OfficialFormat(
    _read_vqa,
    ("id", "image", "image_id", "question", "answers", "answer_type", "question_type"),
    "a file of questions and one of annotations; of questions alone where answers are kept",
    most=2,
)
VIZWIZ = OfficialFormat(
    _read_vizwiz,
    ("id", "image", "question", "answers", "answer_type", "answerable"),
    "one file of questions, such as val.json",
)
GQA = OfficialFormat(
    _read_gqa,
    ("id", "image", "question", "answers", "structural", "semantic", "detailed"),
    "one file of questions, such as val_balanced_questions.json, or several",
    most=20,
)
