"""Answers in files that other evaluation tools write, beside the official results format.

lmms-eval (``--log_samples``) writes a line of JSON a row: ``doc_id``, the row's number in its data set, what it asked
(``input``), what the model answered (``filtered_resps``) and what its own scorer takes, which names the question or the
image for some tasks. VLMEvalKit writes a table: ``index``, what it asked and the right answers (``answer``), and
``prediction``. As both are read here the answer is the model's own text, not what the tool's scorer makes of it.
"""

from __future__ import annotations

import ast
import csv
import io
import logging
import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dept_vl.errors import DataError, shown
from dept_vl.evaluators import Reference
from dept_vl.evaluators.official_files import load_results, load_vqa_questions
from dept_vl.system.bounded_reading import check_regular
from dept_vl.system.extras import require_extra
from dept_vl.system.text_files import MAX_LINE_CHARACTERS, decode_json, is_stream, parse_lines, read_content, read_text

logger = logging.getLogger(__name__)

_LMMS_EVAL, _VLMEVALKIT = "lmms-eval", "VLMEvalKit"
_PICKLES = (".pkl", ".pickle")
_PICKLE_START = b"\x80"
_TABLES = (".xlsx", ".tsv")
_FAILED = "Failed to obtain answer"
"""What VLMEvalKit writes where a model did not answer."""

_NUMBER = re.compile(r"\s*[0-9]{1,30}\s*")
"""An id in a cell; Python reads no number of thousands of digits."""

_MAX_SHEET_BYTES = 1 << 30


@dataclass(frozen=True)
class Responses:
    """What a file of answers holds.

    Attributes:
        texts: Answer by id.
        references: What people wrote, by id, where the file holds it; else None.
        tool: What wrote the file; None for the official results format.
    """

    texts: dict[Any, str]
    references: dict[Any, Reference] | None = None
    tool: str | None = None


def read_responses(
    path: Path, id_key: str, text_key: str, *, id_kind: type = int, questions: Path | None = None
) -> Responses:
    """Reads a file of answers, in the official results format or as lmms-eval or VLMEvalKit writes it.

    Args:
        path: The file: ``.jsonl`` of lmms-eval, ``.xlsx``, ``.tsv`` or ``.json`` of VLMEvalKit, else official results.
        id_key: Name of the id in the official format, such as "question_id".
        text_key: Name of the answer there.
        id_kind: Of the ids: whole numbers, or texts.
        questions: The official questions of the split, in whose order rows without an id are; None where the task has
            no such file.

    Raises:
        DataError: It is a pickle, cannot be read, is of none of these forms, holds an id twice, or rows without an id
            that are not those of `questions`.
        ConfigError: A sheet is given, and what reads it is not installed.
    """
    ids = _Ids(path, id_key, id_kind, questions)
    suffix = "" if is_stream(path) else path.suffix.lower()
    if suffix in _PICKLES:
        raise _a_pickle(path)
    if suffix == ".jsonl":
        return _from_lmms_eval(path, ids)
    if suffix in _TABLES:
        return _from_vlmevalkit(path, _sheet_rows(path) if suffix == ".xlsx" else _table_rows(path), ids)
    content = read_content(path)
    if content.startswith(_PICKLE_START):
        raise _a_pickle(path)
    if suffix == ".json" and (rows := _vlmevalkit_json(content, path)):
        return _from_vlmevalkit(path, rows, ids)
    return Responses(load_results(path, id_key, text_key, id_kind=id_kind))


def _a_pickle(path: Path) -> DataError:
    return DataError(
        f"{path}: a pickle may hold code and is never opened; let VLMEvalKit write a table (PRED_FORMAT=tsv, or xlsx)"
    )


class _Ids:
    """Finds the official id of a row."""

    def __init__(self, path: Path, id_key: str, id_kind: type, questions: Path | None) -> None:
        self.key = id_key
        self._path, self._kind, self._questions = path, id_kind, questions
        self._order: list[tuple[int, str]] | None = None
        self._seen: dict[Any, str] = {}

    def claim(self, value: Any, where: str) -> Any:
        """Returns an id in its own kind.

        Raises:
            DataError: It is of another kind, or another row has it.
        """
        found = int(value) if self._kind is int and isinstance(value, str) and _NUMBER.fullmatch(value) else value
        found = str(found) if self._kind is str and isinstance(found, int) else found
        if not isinstance(found, self._kind) or isinstance(found, bool):
            expected = "a whole number" if self._kind is int else "a text"
            raise DataError(f"{where}: {self.key} should be {expected}, got {shown(value)}")
        if found in self._seen:
            raise DataError(
                f"{where}: {self.key} {found} stands in {self._seen[found]} too; give one answer for each (lmms-eval "
                "writes behind what a run of the same name wrote before)"
            )
        self._seen[found] = where.removeprefix(f"{self._path}, ")
        return found

    def by_number(self, number: Any, asked: Any, where: str) -> Any:
        """Returns the id of a row that is known by its number in the official questions.

        Args:
            number: From 0.
            asked: What the tool asked the model, which must hold the question of that number.
            where: The row, for messages.

        Raises:
            DataError: There is no file of questions, no such number, or another question was asked.
        """
        if self._questions is None:
            raise DataError(f"{where}: names no {self.key}, so it is not known which row of the split was answered")
        if self._order is None:
            loaded, _ = load_vqa_questions(self._questions)
            self._order = [(question_id, text) for question_id, (_, text) in loaded.items()]
        if type(number) is not int or not 0 <= number < len(self._order):
            raise DataError(
                f"{where}: doc_id {shown(number)}, and {self._questions} has {len(self._order)} questions; give the "
                "questions of the split that was asked"
            )
        found, text = self._order[number]
        if not isinstance(asked, str) or text.strip().lower() not in asked.lower():
            raise DataError(
                f"{where}: asked {shown(asked)}, and question {number} of {self._questions} is {text!r:.80}; its rows "
                "name no question, so those of the whole split in its order are needed"
            )
        return self.claim(found, where)


def _from_lmms_eval(path: Path, ids: _Ids) -> Responses:
    texts: dict[Any, str] = {}
    references: dict[Any, Reference] = {}
    for where, row in parse_lines(read_text(path), path):
        if not {"doc_id", "filtered_resps"} <= row.keys():
            raise DataError(
                f"{where}: no sample of lmms-eval (--log_samples), which has doc_id and filtered_resps: {shown(row)}; "
                "`dept-vl predict --output FILE.json` writes the official format (FILE.jsonl: another, for people)"
            )
        named = [value for value in row.values() if isinstance(value, dict) and ids.key in value]
        found = ids.claim(named[0][ids.key], where) if named else ids.by_number(row["doc_id"], row.get("input"), where)
        texts[found] = _one_text(row["filtered_resps"], where)
        answers = named[0].get("answer") if named else None
        if isinstance(answers, list) and answers and all(isinstance(answer, str) for answer in answers):
            references[found] = Reference(answers, example_id=found)
    return _checked(path, texts, references, _LMMS_EVAL)


def _one_text(value: Any, where: str) -> str:
    while isinstance(value, list) and len(value) == 1:
        (value,) = value
    if not isinstance(value, str):
        raise DataError(f"{where}: filtered_resps should hold one text, got {shown(value)}")
    return value


def _from_vlmevalkit(path: Path, rows: Iterable[tuple[str, Mapping[str, Any]]], ids: _Ids) -> Responses:
    texts: dict[Any, str] = {}
    references: dict[Any, Reference] = {}
    for where, row in rows:
        if "prediction" not in row or not {"index", ids.key} & row.keys():
            raise DataError(
                f"{path}: no predictions of VLMEvalKit, which have index (or {ids.key}) and prediction; its columns "
                f"are {', '.join(map(str, row))}"
            )
        found = ids.claim(row[ids.key if ids.key in row else "index"], f"{path}, {where}")
        text = "" if row["prediction"] is None else row["prediction"]
        if isinstance(text, bool) or not isinstance(text, str | int):
            raise DataError(f"{path}, {where}: prediction should be a text, got {shown(text)}")
        texts[found] = str(text)
        if answers := _answers(row.get("answer")):
            references[found] = Reference(answers, example_id=found)
    failed = sum(text.startswith(_FAILED) for text in texts.values())
    if failed:
        logger.warning("%s: %d of %d answers are %r and count as such", path, failed, len(texts), _FAILED)
    return _checked(path, texts, references, _VLMEVALKIT)


def _answers(value: Any) -> list[str]:
    """Returns the texts of a cell that holds a list of them as Python writes it; empty where it holds another thing."""
    if isinstance(value, str) and value.startswith("["):
        try:
            value = ast.literal_eval(value)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            return []
    return value if isinstance(value, list) and all(isinstance(one, str) for one in value) else []


def _checked(path: Path, texts: dict[Any, str], references: dict[Any, Reference], tool: str) -> Responses:
    if not texts:
        raise DataError(f"{path}: no answers in it")
    return Responses(texts, references if len(references) == len(texts) else None, tool)


def _vlmevalkit_json(content: bytes, path: Path) -> Iterator[tuple[str, Mapping[str, Any]]] | None:
    """Returns the rows of a JSON file of VLMEvalKit; None where it is something else.

    Its ``answer`` is what people said, and of VQA's official format what is to be scored: the other columns tell.
    """
    try:
        rows = decode_json(content, path)
    except DataError:
        return None  # what reads official results says what is wrong
    if not isinstance(rows, list) or not rows or not isinstance(rows[0], dict):
        return None
    if not {"index", "prediction"} <= rows[0].keys():
        return None
    return ((f"record {number}", row if isinstance(row, dict) else {}) for number, row in enumerate(rows))


def _table_rows(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    csv.field_size_limit(MAX_LINE_CHARACTERS)
    reader = csv.reader(io.StringIO(read_text(path), newline=""), delimiter="\t", strict=True)
    try:
        yield from _rows(path, reader)
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: {error}") from None


def _sheet_rows(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    require_extra("xlsx", f"{path.name}: a sheet")
    import openpyxl

    try:
        check_regular(path)
        with zipfile.ZipFile(path) as packed:
            size = sum(entry.file_size for entry in packed.infolist())
        if size > _MAX_SHEET_BYTES:
            raise DataError(f"{path}: unpacks to {size:,} bytes; at most {_MAX_SHEET_BYTES:,} are read")
        book = openpyxl.load_workbook(path, read_only=True)  # an answer "=2" is a formula
        try:
            yield from _rows(path, book.worksheets[0].iter_rows(values_only=True), may_be_short=True)
        finally:
            book.close()
    except DataError:
        raise
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from None
    except Exception as error:  # a damaged sheet makes the library raise errors of any type
        raise DataError(f"{path}: no sheet that can be read: {error or type(error).__name__}") from error


def _rows(
    path: Path, cells: Iterator[Sequence[Any]], *, may_be_short: bool = False
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yields every row after the first, which names the columns.

    Args:
        path: For messages.
        cells: Of each row.
        may_be_short: Whether a row may leave out empty cells at its end, as a sheet's may.
    """
    header = [str(name) for name in next(cells, ())]
    if len(set(header)) != len(header):
        raise DataError(f"{path}: two of its columns have one name: {', '.join(header)}")
    for number, values in enumerate(cells, start=2):
        missing = len(header) - len(values)
        if missing < 0 or (missing and not may_be_short):
            raise DataError(f"{path}, row {number}: has {len(values)} cells, and {len(header)} columns are named")
        yield f"row {number}", dict(zip(header, (*values, *(None,) * missing), strict=True))
