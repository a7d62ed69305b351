"""Reads and writes the official result and reference files of VQA v2 and COCO captions.

Results are a JSON list: ``[{"question_id": 42, "answer": "yes"}, ...]`` for VQA,
``[{"image_id": 42, "caption": "a cat"}, ...]`` for captions. Every check names the file and the record
(counted from 0). `dept_vl.system.text_files` opens them, packed with gzip or not.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dept_vl.errors import DataError
from dept_vl.evaluators.base import Reference
from dept_vl.system.atomic import write_text
from dept_vl.system.text_files import decode_json, read_content, read_json

logger = logging.getLogger(__name__)

_TYPE_NAMES = {int: "an integer", str: "a string", list: "a list", dict: "an object"}


def load_results(path: Path, id_key: str, text_key: str, *, id_kind: type = int) -> dict[Any, str]:
    """Returns prediction by id, from a results file.

    Args:
        path: The results file.
        id_key: "question_id" (VQA) or "image_id" (captions).
        text_key: "answer" (VQA) or "caption" (captions).
        id_kind: Of the ids: whole numbers, or texts.

    Raises:
        DataError: The file is missing, is not JSON, has another shape, or names an id twice.
    """
    raw = read_content(path)
    wanted = f"an object with {id_key!r} and {text_key!r}"
    hint = "`dept-vl predict --output FILE.json` writes this format (FILE.jsonl: another, for people)"
    try:
        content = decode_json(raw, path)
    except DataError as error:
        raise DataError(f"{error}; expected a list, each entry {wanted}: {hint}") from error
    if not isinstance(content, list):
        raise DataError(f"{path}: expected a list, each entry {wanted}, got {_shorten(content)}; {hint}")
    results: dict[Any, str] = {}
    for index, record in enumerate(content):
        where = f"{path}, record {index}"
        if not isinstance(record, dict):
            raise DataError(f"{where}: expected {wanted}, got {_shorten(record)}")
        example_id = _field(record, id_key, id_kind, where)
        if example_id in results:
            raise DataError(f"{where}: {id_key} {example_id} occurs twice; give one prediction for each")
        results[example_id] = _field(record, text_key, str, where)
    return results


def write_results(path: Path, predictions: Mapping[Any, str], id_key: str, text_key: str) -> None:
    """Writes prediction by id as a results file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps([{id_key: example_id, text_key: text} for example_id, text in predictions.items()]))


def load_vqa_questions(path: Path) -> tuple[dict[int, tuple[int, str]], str]:
    """Returns image id and question by question id from an official questions file, and which images it is on.

    Args:
        path: ``v2_OpenEnded_mscoco_test2015_questions.json`` or one like it.

    Returns:
        The questions in the file's order, and its ``data_subtype``, such as ``test2015``; "" where it has none.

    Raises:
        DataError: The file is missing, is not JSON or has another shape, or an id comes twice.
    """
    content = read_json(path)
    asked: dict[int, tuple[int, str]] = {}
    for index, record in enumerate(_records(content, path, "questions")):
        where = f"{path}, questions[{index}]"
        question_id = _field(record, "question_id", int, where)
        if question_id in asked:
            raise DataError(f"{where}: question_id {question_id} occurs twice")
        asked[question_id] = (_field(record, "image_id", int, where), _field(record, "question", str, where))
    return asked, str(content.get("data_subtype", ""))


def load_vqa_references(questions: Path, annotations: Path) -> dict[int, Reference]:
    """Returns the people's answers by question id, in the order of the annotations.

    Args:
        questions: ``v2_OpenEnded_mscoco_val2014_questions.json`` or one like it.
        annotations: ``v2_mscoco_val2014_annotations.json`` or one like it: what is scored.

    Raises:
        DataError: A file is missing, is not JSON or has another shape; an id comes twice; an
            annotation has no question in `questions`, or another image there.
    """
    image_of: dict[int, int] = {}
    for index, record in enumerate(_records(read_json(questions), questions, "questions")):
        where = f"{questions}, questions[{index}]"
        question_id = _field(record, "question_id", int, where)
        if question_id in image_of:
            raise DataError(f"{where}: question_id {question_id} occurs twice")
        image_of[question_id] = _field(record, "image_id", int, where)
    references: dict[int, Reference] = {}
    for index, record in enumerate(_records(read_json(annotations), annotations, "annotations")):
        where = f"{annotations}, annotations[{index}]"
        question_id = _field(record, "question_id", int, where)
        if question_id in references:
            raise DataError(f"{where}: question_id {question_id} occurs twice")
        if question_id not in image_of:
            raise DataError(
                f"{where}: question_id {question_id} is not in {questions}; give the two files of one split"
            )
        image_id = _field(record, "image_id", int, where)
        if image_id != image_of[question_id]:
            raise DataError(
                f"{where}: image_id {image_id}, but {questions} has image {image_of[question_id]} for "
                f"question {question_id}; give the two files of one split"
            )
        references[question_id] = _vqa_reference(record, question_id, where)
    if len(references) < len(image_of):
        logger.warning(
            "%s: %d of %d questions have no annotation and are not scored",
            questions,
            len(image_of) - len(references),
            len(image_of),
        )
    return references


def load_caption_references(references: Path) -> dict[int, Reference]:
    """Returns the captions by image id, from ``captions_val2014.json`` or one like it.

    Images come in the order of the file's ``images``; one without captions is left out, with a warning.

    Args:
        references: The file.

    Raises:
        DataError: The file is missing, is not JSON or has another shape; an image id comes twice; a
            caption belongs to no image.
    """
    content = read_json(references)
    captions: dict[int, list[str]] = {}
    for index, record in enumerate(_records(content, references, "images")):
        where = f"{references}, images[{index}]"
        image_id = _field(record, "id", int, where)
        if image_id in captions:
            raise DataError(f"{where}: image id {image_id} occurs twice")
        captions[image_id] = []
    for index, record in enumerate(_records(content, references, "annotations")):
        where = f"{references}, annotations[{index}]"
        image_id = _field(record, "image_id", int, where)
        if image_id not in captions:
            raise DataError(f'{where}: image_id {image_id} is not among the "images" of the file')
        captions[image_id].append(_field(record, "caption", str, where))
    bare = [image_id for image_id, texts in captions.items() if not texts]
    if bare:
        logger.warning("%s: %d images have no captions and are not scored", references, len(bare))
    return {image_id: Reference(references=texts, example_id=image_id) for image_id, texts in captions.items() if texts}


def _vqa_reference(record: Mapping[str, Any], question_id: int, where: str) -> Reference:
    """Returns the reference of one annotation record."""
    answers, annotators = [], []
    for index, answer in enumerate(_field(record, "answers", list, where)):
        place = f"{where}, answers[{index}]"
        if not isinstance(answer, dict):
            raise DataError(f"{place}: expected an object, got {_shorten(answer)}")
        answers.append(_field(answer, "answer", str, place))
        # Everything but the text, as one comparable value: the official script compares whole records.
        others = {key: value for key, value in answer.items() if key != "answer"}
        annotators.append(json.dumps(others, sort_keys=True))
    if not answers:
        raise DataError(f'{where}: "answers" is empty; expected the ten answers')
    return Reference(
        references=answers,
        answer_type=_field(record, "answer_type", str, where),
        question_type=_field(record, "question_type", str, where),
        example_id=question_id,
        annotators=None if len(set(annotators)) == len(annotators) else annotators,
    )


def _records(content: Any, path: Path, key: str) -> list[Mapping[str, Any]]:
    """Returns ``content[key]`` after checking that it is a list of objects."""
    if not isinstance(content, dict) or not isinstance(content.get(key), list):
        given = f"the keys {sorted(content)}" if isinstance(content, dict) else _shorten(content)
        raise DataError(f'{path}: expected an object with a list "{key}", got {given}')
    for index, record in enumerate(content[key]):
        if not isinstance(record, dict):
            raise DataError(f"{path}, {key}[{index}]: expected an object, got {_shorten(record)}")
    records: list[Mapping[str, Any]] = content[key]
    return records


def _field(record: Mapping[str, Any], key: str, kind: type, where: str) -> Any:
    """Returns ``record[key]`` after checking its type (a boolean is not an integer)."""
    if key not in record:
        raise DataError(f'{where}: missing "{key}"; it has {sorted(record)}')
    value = record[key]
    if not isinstance(value, kind) or isinstance(value, bool):
        raise DataError(f'{where}: "{key}" must be {_TYPE_NAMES[kind]}, got {_shorten(value)}')
    return value


def _shorten(value: Any) -> str:
    """Returns `value` as JSON-like text of at most 60 characters."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
