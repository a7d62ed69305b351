"""What the page asks of the server: one thing, or several, of several adapters at once. No Gradio."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from dept_vl.errors import ConfigError
from dept_vl.inference.answer import Answer
from dept_vl.serving.adapters import ServedAdapter
from dept_vl.serving.service import Service

NUM_LIKELIEST = 5
"""Answers that are shown with their probabilities."""


@dataclass(frozen=True)
class Question:
    """What is asked.

    Attributes:
        columns: The task's, by name.
        images: The content of its image files.
        references: What people answered, where that is known.
        place: Where it comes from, in words; "" for the user's own.
    """

    columns: Mapping[str, Any]
    images: tuple[bytes, ...] = ()
    references: tuple[str, ...] = ()
    place: str = ""

    @property
    def key(self) -> tuple[Any, ...]:
        """What is the same for questions that are."""
        return tuple(map(_digest, self.images)), tuple(sorted((name, str(text)) for name, text in self.columns.items()))


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@dataclass(frozen=True)
class Told:
    """What one adapter answers.

    Attributes:
        adapter: It.
        answer: Its answer, with the likeliest ones.
        notes: What was done with the question.
    """

    adapter: ServedAdapter
    answer: Answer
    notes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The adapter's name."""
        return self.adapter.run.name

    @property
    def probability(self) -> float:
        """That of the answer."""
        return next(one.probability for one in self.answer.likeliest if one.text == self.answer.text)


@dataclass(frozen=True)
class Asked:
    """A question and who answered what.

    Attributes:
        question: It.
        told: By the adapter's name.
    """

    question: Question
    told: Mapping[str, Told] = field(default_factory=dict)

    @property
    def differs(self) -> bool:
        """Whether two adapters answered differently."""
        return len({one.answer.text for one in self.told.values()}) > 1


class Asker:
    """Asks a server's adapters by its own queue, so that what several are asked shares batches and images."""

    def __init__(self, service: Service) -> None:
        """Takes the server."""
        self.service = service

    def adapter(self, name: Any) -> ServedAdapter:
        """Returns an adapter.

        Raises:
            ConfigError: There is none of this name.
        """
        found = self.service.table.get(name) if isinstance(name, str) else None
        if found is None:
            raise ConfigError(f"there is no adapter called {name!r:.140}")
        return found

    def partners(self, name: Any) -> list[str]:
        """Returns the other adapters that take what one takes.

        Raises:
            ConfigError: As `adapter`.
        """
        own = self.adapter(name)
        return [
            other.run.name
            for other in self.service.table.all.values()
            if other is not own and (other.num_images, other.columns) == (own.num_images, own.columns)
        ]

    def ask(self, names: Sequence[Any], questions: Sequence[Question]) -> list[Asked]:
        """Returns what every adapter answers to every question.

        Raises:
            ConfigError: There is no such adapter, or something that it needs is missing.
            DataError: An image cannot be read, or a column is no text.
            RequestError: A text is too long, or the server has too much to do.
        """
        limits, waiting = self.service.limits, []
        for question in questions:
            each: dict[str, tuple[ServedAdapter, tuple[str, ...], Future[Answer]]] = {}
            for adapter in map(self.adapter, dict.fromkeys(names)):
                check_length(question, limits.max_text)
                row = adapter.ask_columns(
                    question.columns, question.images, self.service.cache, max_pixels=limits.max_pixels,
                    num_likeliest=NUM_LIKELIEST,
                )  # fmt: skip
                each[adapter.run.name] = adapter, row.notes, self.service.queue.submit(row)
            waiting.append((question, each))
        return [
            Asked(question, {name: Told(one, got.result(), notes) for name, (one, notes, got) in each.items()})
            for question, each in waiting
        ]


def check_length(question: Question, max_text: int) -> None:
    """Refuses texts that are too long to be looked at.

    Raises:
        ConfigError: One has more than `max_text` characters.
    """
    for name, text in question.columns.items():
        if len(str(text)) > max_text:
            raise ConfigError(f"{name}: a text of {len(str(text)):,} characters; at most {max_text:,} are read")
