"""VQA's form: a file of questions and one of annotations. OK-VQA has it too."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from data_prep.raw.json_files import Place, RawFile
from data_prep.raw.official.base import OfficialFormat
from data_prep.raw.text_files import Placed
from data_prep.raw.vqa_files import Question, join_questions, read_asked

_SUBTYPE = re.compile(r"(train|val|test)\D*(20\d\d)")


def _read(files: Sequence[RawFile], split: str) -> Iterator[Placed]:
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


FORMAT = OfficialFormat(
    _read,
    ("id", "image", "image_id", "question", "answers", "answer_type", "question_type"),
    "a file of questions and one of annotations; of questions alone where answers are kept",
    most=2,
)
