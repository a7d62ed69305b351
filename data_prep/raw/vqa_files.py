"""Questions about images and people's answers in the official files of VQA, which OK-VQA's have the form of."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from data_prep.raw.json_files import Place, RawFile, Record, records, take
from dept_vl.errors import DataError


@dataclass(frozen=True, slots=True)
class Question:
    """One question with its human answers, as the official files give them."""

    question_id: int
    image_id: int
    question: str
    answers: tuple[str, ...]
    answer_type: str
    question_type: str


def read_asked(file: RawFile) -> dict[int, tuple[int, str]]:
    """Returns image id and question by question id, of a file of questions.

    Raises:
        DataError: A record lacks a key, an id is there twice, or a question is empty.
    """
    asked: dict[int, tuple[int, str]] = {}
    for number, record in enumerate(records(file, "questions")):
        place = Place(file.path, "questions", number)
        question_id = take(record, "question_id", int, place)
        if question_id in asked:
            raise place.error(f'"question_id" {question_id} is there twice')
        text = take(record, "question", str, place)
        if not text.strip():
            raise place.error('"question" is empty')
        asked[question_id] = (take(record, "image_id", int, place), text)
    return asked


def join_questions(question_file: RawFile, annotation_file: RawFile) -> list[Question]:
    """Returns the questions of a file, in its order, joined with their annotations.

    Raises:
        DataError: A record lacks a key, a question has no annotation or the reverse, or they name different images.
    """
    asked = read_asked(question_file)
    annotated: dict[int, Question] = {}
    for number, record in enumerate(records(annotation_file, "annotations")):
        place = Place(annotation_file.path, "annotations", number)
        question = _join(record, asked, place, question_file.path)
        if question.question_id in annotated:
            raise place.error(f'"question_id" {question.question_id} is there twice')
        annotated[question.question_id] = question
    without = [question_id for question_id in asked if question_id not in annotated]
    if without:
        raise DataError(
            f"{question_file.path}: {len(without):,} of {len(asked):,} questions have no annotation in "
            f"{annotation_file.path.name}: {', '.join(map(str, without[:5]))}{', ...' if len(without) > 5 else ''}"
        )
    return [annotated[question_id] for question_id in asked]


def _join(record: Record, asked: Mapping[int, tuple[int, str]], place: Place, question_path: Path) -> Question:
    """Checks one annotation and joins it with its question."""
    question_id = take(record, "question_id", int, place)
    if question_id not in asked:
        raise place.error(f"annotates question {question_id}, which {question_path.name} does not have")
    image_id, text = asked[question_id]
    if take(record, "image_id", int, place) != image_id:
        raise place.error(
            f'"image_id" is {record["image_id"]}, but question {question_id} in {question_path.name} is on {image_id}'
        )
    answers = tuple(read_answers(record, place))
    kinds = [sys.intern(take(record, key, str, place)) for key in ("answer_type", "question_type")]
    return Question(question_id, image_id, text, answers, *kinds)


def read_answers(record: Record, place: Place) -> list[str]:
    """Returns what people answered, of a record that says it.

    Raises:
        DataError: It is no list of objects with a text each, or empty.
    """
    listed = take(record, "answers", list, place)
    answers = [sys.intern(a["answer"]) for a in listed if isinstance(a, dict) and type(a.get("answer")) is str]
    if not answers or len(answers) < len(listed):
        raise place.error('"answers" should be a list of objects with a text "answer" each')
    return answers
