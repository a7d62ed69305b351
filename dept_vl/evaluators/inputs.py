"""Texts as people have them in Python -> what evaluators take."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from typing import Any

from dept_vl.errors import DataError, shown
from dept_vl.evaluators.base import EvaluationInput, Reference, TokenizerName, align

Predictions = Iterable[str] | Mapping[Any, str]
"""A text for each example, or texts by id."""

References = Iterable[str | Iterable[str] | Reference] | Mapping[Any, str | Iterable[str] | Reference]
"""What people wrote for each example: a text, several, or a `Reference`, which has types too; in order, or by id."""


def read_texts(predictions: Predictions, references: References, tokenizer: TokenizerName = "ptb") -> EvaluationInput:
    """Returns predictions and references that belong together.

    Both are in the same order, or both are mappings by the same ids, which may be anything that hashes.

    Raises:
        DataError: One is not what it should be, there is nothing, the lengths differ, or the ids do.
    """
    by_id = isinstance(predictions, Mapping)
    if by_id != isinstance(references, Mapping):
        one, other = ("predictions", "references") if by_id else ("references", "predictions")
        raise DataError(f"{one} are by id and {other} are not; give both as mappings by the same ids, or both as lists")
    answered = {
        key: _text(value, f"prediction {_named(key, by_id)}") for key, value in _items(predictions, "predictions")
    }
    known = {
        key: _reference(value, key, f"reference {_named(key, by_id)}")
        for key, value in _items(references, "references")
    }
    if not by_id:
        return EvaluationInput(list(answered.values()), list(known.values()), tokenizer)
    texts, aligned = align(answered, known, instead="give a prediction for each, an empty text where there is none")
    return EvaluationInput(texts, aligned, tokenizer)


def _items(given: Any, what: str) -> Iterable[tuple[Hashable, Any]]:
    """Returns values by their id, or by their number where they are in order."""
    if isinstance(given, Mapping):
        return given.items()
    if isinstance(given, str | bytes) or not isinstance(given, Iterable):
        raise DataError(f"{what}: expected a list of texts or a mapping by id, got {shown(given)}")
    return enumerate(given)


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise DataError(f"{where}: expected a text, got {shown(value)}; write numbers as texts, nothing as ''")
    return value


def _reference(value: Any, key: Hashable, where: str) -> Reference:
    if isinstance(value, Reference):
        return value
    if isinstance(value, str):
        return Reference([value], example_id=key)
    if isinstance(value, bytes | Mapping) or not isinstance(value, Iterable):
        raise DataError(f"{where}: expected a text or a list of texts, got {shown(value)}")
    return Reference([_text(text, where) for text in value], example_id=key)


def _named(key: Hashable, by_id: bool) -> str:
    return f"of id {key!r}" if by_id else f"number {key}"
