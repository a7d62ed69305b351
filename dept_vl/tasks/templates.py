"""Row to source text, one pure function a task. Nothing else may build prompts.

The text tasks' templates are those of the released DePT code (``src/tasks.py``), which took them from T5: labelled
columns joined by blanks, nothing stripped, no task name in front.
"""

from __future__ import annotations

import re

from dept_vl.tasks.base import Row, Template


def vqa(row: Row) -> str:
    """``"vqa: {question}"``, the prompt of VL-T5 and its followers (VL-T5 ``src/vqa_clip_data.py``)."""
    return f"vqa: {row['question'].strip()}"


def coco(row: Row) -> str:
    """``"caption:"`` whatever the image (VL-T5 ``src/caption_clip_data.py``)."""
    return "caption:"


def fields(**columns: str) -> Template:
    """Returns the template ``"label: value label: value ..."``.

    Args:
        columns: Label -> column, in order. ``fields(premise="sentence1")`` gives ``"premise: ..."``.
    """

    def template(row: Row) -> str:
        return " ".join(f"{label}: {row[column]}" for label, column in columns.items())

    return template


def pad_punctuation(text: str) -> str:
    """Puts blanks around everything that is not a letter, accent, digit, ``_`` or white space; runs of it become one.

    The released ``pad_punctuation`` (T5's): a text ending in punctuation ends in a blank, and "U.S." is "U . S . ".
    """
    import regex  # 20 ms of every start, `--help` included, were it imported above

    padded: str = regex.sub(r"([^_\s\p{N}\p{L}\p{M}])", r" \1 ", text)
    collapsed: str = regex.sub(r"\s+", " ", padded)
    return collapsed


def multirc(row: Row) -> str:
    """``"question: ... answer: ... paragraph: ..."`` without the ``<br>`` and ``<b>`` of the raw texts."""
    return " ".join(f"{name}: {_without_markup(row[name])}" for name in ("question", "answer", "paragraph"))


def _without_markup(text: str) -> str:
    return re.sub("</?b>", "", text.replace("<br>", " "))


def wsc_paper(row: Row) -> str:
    """``"text: "`` with ``*`` around the noun and ``#`` around the pronoun, where the released code finds them.

    It looks for the span's text at its word index with the case of the span, so that "the roof" is not found for "The
    roof" and the row stays unmarked (so for 88 of 554 training rows, 10 of 104 validation rows).
    """
    return _wsc(row, ignore_case=False)


def wsc(row: Row) -> str:
    """As `wsc_paper`, the case of the span ignored: all rows but two of 554 and two of 104 are marked whole."""
    return _wsc(row, ignore_case=True)


def _wsc(row: Row, *, ignore_case: bool) -> str:
    first, second = int(row["span1_index"]), int(row["span2_index"])
    text = _mark_span(row["text"], row["span1_text"], first, "*", ignore_case=ignore_case)
    second += 2 * (first < second)  # the two marks before it count as words
    return f"text: {_mark_span(text, row['span2_text'], second, '#', ignore_case=ignore_case)}"


def _mark_span(text: str, span: str, index: int, mark: str, *, ignore_case: bool) -> str:
    """Puts `mark` before and after `span` if it begins at word `index`; returns `text` itself if not."""
    pattern = rf"((?:\S+\s){{{index}}})({re.escape(span)})"
    found = re.match(pattern, text, re.IGNORECASE if ignore_case else 0)
    return text if found is None else f"{found[1]}{mark} {found[2]} {mark}{text[found.end() :]}"


def record(row: Row) -> str:
    """``"record query: ... entities: a, b passage: ..."``, the highlights of the passage made sentences (T5)."""
    passage = re.sub(r"([.?!\"'])\n@highlight\n", r"\1 ", row["passage"]).replace("\n@highlight\n", ". ")
    return f"record query: {row['query']} entities: {', '.join(row['entities'])} passage: {passage}"


def padded_question(row: Row) -> str:
    """``"question: ... context: ..."`` with punctuation padded, as the released code does for SQuAD and MRQA."""
    return f"question: {pad_punctuation(row['question'])} context: {pad_punctuation(row['context'])}"
