"""Raw row to targets and references: one pure function a way of giving answers."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping

from dept_vl.errors import DataError
from dept_vl.tasks.base import Gold, Row
from dept_vl.tasks.templates import pad_punctuation

Golds = Callable[[Row], list[Gold]]

MAX_SIMILARITY = 5.0
"""STS-B's labels lie between 0 and this."""


def _one(text: str) -> list[Gold]:
    return [Gold((text,), (text,))]


def class_label(column: str, words: Mapping[str, str]) -> Golds:
    """Returns the golds of a classification task.

    Args:
        column: The raw label column.
        words: Raw label, as text, -> target string.
    """

    def golds(row: Row) -> list[Gold]:
        label = str(row[column])
        if label not in words:
            raise DataError(f"{column!r} should be one of {', '.join(words)}, found {label!r}")
        return _one(words[label])

    return golds


def similarity(row: Row) -> list[Gold]:
    """STS-B as T5 does it: the nearest of 0.0, 0.2, ..., 5.0, ties to the even fifth; in float32, as T5 computes."""
    return _one(f"{round(_float32(_similarity(row) * 5)) / 5:.1f}")


def similarity_paper(row: Row) -> list[Gold]:
    """STS-B as the released code does it: one decimal (``round_stsb_target`` multiplies and divides by 5 first)."""
    return _one(str(round(_similarity(row) * 5 / 5 * 10) / 10))


def _similarity(row: Row) -> float:
    """Returns the label, rounded to float32, which is what the hub holds."""
    label = float(row["label"])
    if not 0 <= label <= MAX_SIMILARITY:
        raise DataError(f"'label' should lie between 0 and {MAX_SIMILARITY:g}, found {label}")
    return _float32(label)


def _float32(number: float) -> float:
    (rounded,) = struct.unpack("f", struct.pack("f", number))
    return float(rounded)


def all_answers(row: Row) -> list[Gold]:
    """Every answer as a reference, the distinct ones as targets; no target if there is none."""
    answers = tuple(row["answers"])
    return [Gold(tuple(dict.fromkeys(answers)), answers)]


def first_answer_paper(row: Row) -> list[Gold]:
    """MRQA as the released code does it: the first answer alone, punctuation padded, trained on and scored against."""
    if not row["answers"]:
        raise DataError("'answers' is empty; the released code needs one")
    return _one(pad_punctuation(row["answers"][0]))


def squad_answers(row: Row) -> list[Gold]:
    """SQuAD's answers, as `all_answers`."""
    return all_answers({"answers": row["answers"]["text"]})


def squad_paper(row: Row) -> list[Gold]:
    """SQuAD as the released code does it: the printed dictionary of answers and offsets, punctuation padded.

    ``Squad.preprocessor`` hands the whole ``answers`` column to ``pad_punctuation``, which prints it; so the target is
    ``" { ' text ' : [ ' ... ' ] , ' answer_start ' : [ 515 ] } "``.
    """
    spans = row["answers"]
    return _one(pad_punctuation(str({"text": list(spans["text"]), "answer_start": list(spans["answer_start"])})))


def record_paper(row: Row) -> list[Gold]:
    """ReCoRD as the released code does it: an example an answer, scored against this one alone; none gives <unk>."""
    return [gold for answer in row["answers"] or ["<unk>"] for gold in _one(answer)]
