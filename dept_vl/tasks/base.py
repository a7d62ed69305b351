"""What a task is: data, not code. The field docs below are the schema."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

Row = Mapping[str, Any]
"""One row of a prepared split: column name -> value (``dept_vl.data.manifest`` has the columns)."""

_VALID_NAME = re.compile(r"^[a-z0-9][a-z0-9_-]*$")


@dataclass(frozen=True)
class SplitSize:
    """How many rows and images a complete split holds, as the data set's authors count them."""

    rows: int
    images: int | None = None


@dataclass(frozen=True)
class Task:
    """One task, declared once. Adding a task is one of these plus a template function.

    Attributes:
        name: Lower case, digits, ``-`` and ``_``; what ``--task`` takes.
        template: Row to source text. Nothing else builds prompts.
        evaluators: Names in ``dept_vl.evaluators.EVALUATORS``, computed at every evaluation.
        primary_metric: The metric key that picks the best checkpoint; higher is better.
        max_source_length: Text tokens kept by default (s), the end-of-sequence token included.
        max_target_length: Target tokens kept and generated at most, the end-of-sequence token included.
        input_columns: The columns the template reads.
        split_sizes: Expected size of each complete split.
        paper: Where splits and metric come from.
        uses_images: Whether rows carry ``image_id`` and ``image``.
        result_keys: Names of id and text in the official results file of this task.
        labels: The strings a target is one of, which can be scored instead of generated; None for free text.
        reference_files: What the official references without a model consist of: names of command-line flags.
    """

    name: str
    template: Callable[[Row], str]
    evaluators: tuple[str, ...]
    primary_metric: str
    max_source_length: int
    max_target_length: int
    paper: str
    input_columns: tuple[str, ...] = ()
    split_sizes: Mapping[str, SplitSize] = field(default_factory=dict)
    uses_images: bool = False
    result_keys: tuple[str, str] = ("example_id", "prediction")
    reference_files: tuple[str, ...] = ()
    labels: tuple[str, ...] | None = None

    def label_set(self, protocol: str | None) -> tuple[str, ...] | None:
        """Returns the strings a target is one of, or None for free text."""
        return self.labels

    def __post_init__(self) -> None:
        """Checks the name, so that a bad one fails at import and not in a user's run."""
        if not _VALID_NAME.match(self.name):
            raise ValueError(f"task name {self.name!r} must match {_VALID_NAME.pattern}")
