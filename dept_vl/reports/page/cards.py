"""Rows as cards: images, what was asked, what people said, what each run answered."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dept_vl.reports.page.rows import RunRows
from dept_vl.reports.page.statistics import differing_rows
from dept_vl.reports.page.thumbnails import images_of

_TEXT_CHARACTERS = 400
_ANSWER_CHARACTERS = 160
_REFERENCES = 5


@dataclass(frozen=True)
class CardAnswer:
    """One run's answer.

    Attributes:
        run: Its name; empty where there is one run.
        text: The answer.
        is_right: Whether it is right; None where no answer is.
        score: What the row scores, as printed; empty where rows have none.
        confidence: Probability of the answer, as printed; empty where it was not recorded.
    """

    run: str
    text: str
    is_right: bool | None
    score: str
    confidence: str


@dataclass(frozen=True)
class Card:
    """One row.

    Attributes:
        row: Its number in the split, from 0.
        name: Its id in the results.
        images: Paths, as the answers name them.
        texts: Column -> text.
        references: What people said -> how many of them.
        answers: One a run.
        order: What cards are sorted by: the score, or how much more the last run has than the first.
        kind: ``right``, ``wrong`` or ``mixed``; empty where no answer is right or wrong.
    """

    row: int
    name: str
    images: tuple[str, ...]
    texts: Mapping[str, str]
    references: Mapping[str, int]
    answers: tuple[CardAnswer, ...]
    order: float
    kind: str


def cards_of(runs: Mapping[str, RunRows], rows: Sequence[int]) -> list[Card]:
    """Returns some rows as cards, those with the lowest `Card.order` first.

    Args:
        runs: Name -> run, all of the same rows.
        rows: Their numbers.
    """
    return sorted((_card(runs, row) for row in rows), key=lambda card: (card.order, card.row))


def rows_shown(runs: Mapping[str, RunRows]) -> list[int]:
    """Returns the rows of one run, or those to which several gave different answers, in an order drawn at random.

    So the first of them are a fair sample, however many a page has room for.
    """
    first = next(iter(runs.values()))
    rows = list(range(len(first.answers.ids)))
    if len(runs) > 1:
        rows = differing_rows({name: run.answers.predictions for name, run in runs.items()})
    random.Random(0).shuffle(rows)
    return rows


def _card(runs: Mapping[str, RunRows], row: int) -> Card:
    first, several = next(iter(runs.values())), len(runs) > 1
    asked, references = first.answers.asked[row], first.answers.references[row].references
    answers = tuple(_answer(name if several else "", run, row) for name, run in runs.items())
    scores = [run.each[row] for run in runs.values() if run.each is not None]
    known = {answer.is_right for answer in answers} - {None}
    kind = "" if not known else "mixed" if len(known) > 1 else "right" if known == {True} else "wrong"
    return Card(
        row, _cut(str(first.answers.ids[row]), _ANSWER_CHARACTERS), tuple(images_of(asked)),
        {name: _cut(text_of(value), _TEXT_CHARACTERS) for name, value in asked.items() if name != "image"},
        {_cut(text, _ANSWER_CHARACTERS): count for text, count in Counter(references).most_common(_REFERENCES)},
        answers, 0.0 if not scores else scores[-1] - scores[0] if several else scores[0], kind,
    )  # fmt: skip


def _answer(name: str, run: RunRows, row: int) -> CardAnswer:
    sure = run.answers.confidences
    return CardAnswer(
        name, _cut(run.answers.predictions[row], _ANSWER_CHARACTERS), None if run.right is None else run.right[row],
        "" if run.each is None else run.row_scale.printed(run.each[row]), "" if sure is None else f"{sure[row]:.2f}",
    )  # fmt: skip


def text_of(value: object) -> str:
    """Returns a column's value as text; several texts with a bar between."""
    return " | ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"
