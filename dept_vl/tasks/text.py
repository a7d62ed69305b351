"""What the declarations of text tasks share: one call that fills in both protocols."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from dept_vl.tasks.base import PLAIN_CUE, ColumnKind, Protocol, Source, SplitSize, Task, Template
from dept_vl.tasks.golds import Golds, class_label
from dept_vl.tasks.splits import Splits

PAPER = "Shi & Lipani 2024, Tables 1, 2 and 9; templates and splits of the released src/tasks.py"

LABEL_TOKENS = 8
"""Tokens kept of a label string; the released code keeps the longest one's, 3 with T5's tokenizer ("0", "2.8")."""

ANSWER_TOKENS = 20
"""Tokens kept of an answer: ``generation_max_length`` of the released ``train.py``."""

_INPUTS = ("text", "text or empty", "integer", "texts")


def binary(column: str = "label", *, zero: str = "0", one: str = "1") -> tuple[Golds, tuple[str, ...]]:
    """Returns the golds and labels of a task with two classes, whose raw values are `zero` and `one`."""
    return class_label(column, {zero: "0", one: "1"}), ("0", "1")


def three_way(column: str = "label") -> tuple[Golds, tuple[str, ...]]:
    """Returns the golds and labels of a task with the classes 0, 1 and 2."""
    return class_label(column, {label: label for label in "012"}), ("0", "1", "2")


def _protocols(shared: Protocol, fixed: Mapping[str, Any], paper: Mapping[str, Any]) -> dict[str, Protocol]:
    return {"fixed": replace(shared, **fixed), "paper": replace(shared, answer_form="released", **paper)}


def text_task(
    name: str,
    *,
    source: Source,
    columns: Mapping[str, ColumnKind],
    template: Template,
    golds: Golds,
    labels: tuple[str, ...] | None,
    splits: Splits,
    sizes: Mapping[str, SplitSize],
    evaluators: tuple[str, ...] = ("accuracy",),
    primary_metric: str = "accuracy",
    max_source_length: int = 256,
    follows: str = PAPER,
    paper: Mapping[str, Any] | None = None,
    fixed: Mapping[str, Any] | None = None,
    answer_cue: str = PLAIN_CUE,
    few_shot_classes: tuple[str, ...] = (),
    few_shot_class: Callable[[str], str] = str,
) -> Task:
    """Declares a text task with the protocols ``fixed`` (the default) and ``paper``.

    Args:
        name: Task name.
        source: The data set.
        columns: Raw columns that are read.
        template: Row to source text.
        golds: Raw row to targets and references.
        labels: Every target string, or None.
        splits: Split policy.
        sizes: Rows of the complete splits, Table 9's.
        evaluators: Their names.
        primary_metric: What the paper's tables print.
        max_source_length: Text tokens kept (Table 10; MultiRC and question answering: the released checkpoints).
        follows: Where splits and metric come from.
        paper: Fields of `Protocol` in which ``paper`` differs.
        fixed: As `paper`, for ``fixed``.
        answer_cue: See `Task`.
        few_shot_classes: Classes of few-shot sampling, where they are not the labels.
        few_shot_class: A target's class among them.
    """
    variants = _protocols(Protocol(template, golds, splits, sizes, labels), fixed or {}, paper or {})
    return Task(
        name=name,
        template=variants["fixed"].template,
        evaluators=evaluators,
        primary_metric=primary_metric,
        max_source_length=max_source_length,
        max_target_length=ANSWER_TOKENS if labels is None else LABEL_TOKENS,
        paper=follows,
        converter="data_prep.converters.text_tasks:prepare_text",
        input_columns=tuple(column for column, kind in columns.items() if kind in _INPUTS),
        source=source,
        columns=columns,
        variants=variants,
        answer_cue=answer_cue,
        few_shot_classes=few_shot_classes,
        few_shot_class=few_shot_class,
    )
