"""What the page shows, as HTML: whatever comes from data, models or the user is escaped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from dept_vl.data.images import open_image
from dept_vl.errors import DataError
from dept_vl.reports.escaped import escaped_template
from dept_vl.reports.page.thumbnails import encode_pictures
from dept_vl.serving.page.asking import NUM_LIKELIEST, Asked, Question, Told
from dept_vl.serving.page.split_rows import DrawnRow

_THUMBNAIL_BYTES = 4_000
_MAX_SHOWN = 300
"""Characters of a question in the table."""


def render(name: str, **values: Any) -> str:
    """Returns the HTML of one of the page's templates."""
    html: str = escaped_template("ui", f"{name}.html.j2").render(**values)
    return html


def error(message: str) -> str:
    """Returns what went wrong, for people."""
    return render("message", kind="error", message=message)


def hint(message: str) -> str:
    """Returns what can be done."""
    return render("message", kind="hint", message=message)


def drawn(row: DrawnRow) -> str:
    """Returns where a row comes from, and what people answered."""
    return render("drawn", place=row.place, references=count(row.references))


def answers(asked: Asked) -> str:
    """Returns the answers to one question, an adapter a card."""
    return render(
        "answers", asked=asked, cards=[_card(one) for one in asked.told.values()], number=NUM_LIKELIEST,
        references=count(asked.question.references),
    )  # fmt: skip


def _card(told: Told) -> dict[str, Any]:
    parts = told.adapter.parts
    likely = [
        {
            "text": one.text, "is_cut": one.is_cut, "percent": percent(one.probability),
            "width": f"{100 * min(1.0, one.probability):.2f}", "is_answer": one.text == told.answer.text,
        }
        for one in told.answer.likeliest
    ]  # fmt: skip
    return {
        "told": told, "likely": likely, "task": parts.task.name, "method": told.adapter.run.config.tuner.label,
        "num_labels": len(parts.decoding.labels),
    }  # fmt: skip


def summary(asked: Sequence[Asked], what: str) -> str:
    """Returns how often adapters differed on rows that were asked together."""
    names = list(dict.fromkeys(name for one in asked for name in one.told))
    return render("summary", names=names, what=what, total=len(asked), differ=sum(one.differs for one in asked))


def table(history: Sequence[Asked], thumbnails: dict[Any, str]) -> str:
    """Returns every question of a session, the last one first, and what each adapter answered.

    Args:
        history: In the order they were asked.
        thumbnails: Data URIs by `Question.key`.
    """
    names = list(dict.fromkeys(name for one in history for name in one.told))
    rows = [
        {
            "number": number, "asked": one, "text": shortened(one.question),
            "picture": thumbnails.get(one.question.key), "references": count(one.question.references),
            "cells": [
                None if name not in one.told else (one.told[name].answer.text, percent(one.told[name].probability))
                for name in names
            ],
        }
        for number, one in enumerate(history, start=1)
    ]  # fmt: skip
    return render(
        "table", names=names, rows=rows[::-1], differ=sum(one.differs for one in history),
        has_references=any(one.question.references for one in history),
    )  # fmt: skip


def thumbnail(question: Question, max_pixels: int) -> str | None:
    """Returns a small copy of the first image as a data URI; None without one."""
    if not question.images:
        return None
    try:
        image = open_image(question.images[0], max_pixels=max_pixels)
    except DataError:  # it is answered about by its kept features alone
        return None
    image.thumbnail((128, 128))
    return (encode_pictures({"": image}, _THUMBNAIL_BYTES) or {}).get("")


def shortened(question: Question) -> str:
    """Returns the texts of a question, cut to what a table has room for."""
    text = " / ".join(str(one) for one in question.columns.values())
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]} ..."


def percent(probability: float) -> str:
    """Returns a probability as people read it."""
    if 0 < probability < 0.001:
        return "< 0.1 %"
    return f"{100 * probability:.1f} %"


def count(references: Sequence[str]) -> str:
    """Returns what people answered, the most frequent first: ``red ×9; rot``."""
    counted = Counter(references).most_common()
    return "; ".join(text if times == 1 else f"{text} ×{times}" for text, times in counted)
