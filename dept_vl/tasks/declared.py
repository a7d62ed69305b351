"""The `Task` that a declaration stands for; what it leaves out follows from its kind."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import get_args

from dept_vl.tasks.base import PLAIN_CUE, PREPARED_SPLIT, SplitSize, Task
from dept_vl.tasks.declaration import Split, TaskDeclaration, fill_template

_CUES = {"question": "\nAnswer:", "caption": "\nCaption:"}
_METRICS: Mapping[str, tuple[tuple[str, ...], str]] = {
    "question": (("exact-match", "vqa-soft-accuracy"), "exact_match"),
    "caption": (("cider", "bleu", "rouge-l"), "CIDEr"),
    "image-label": (("accuracy",), "accuracy"),
    "text-label": (("accuracy",), "accuracy"),
    "text": (("exact-match",), "exact_match"),
}
"""Kind -> the evaluators of a task that names none, and the score that counts."""
_TARGET_TOKENS = {"question": 16, "caption": 40, "image-label": 16, "text-label": 16, "text": 64}


def make_task(declaration: TaskDeclaration) -> Task:
    """Returns the task that a declaration stands for."""
    metrics, primary = _METRICS[declaration.kind]
    sizes: dict[str, SplitSize] = {
        split: SplitSize(*declaration.sizes[split]) for split in get_args(Split) if split in declaration.sizes
    }
    return Task(
        name=declaration.name,
        template=partial(fill_template, declaration.text),
        evaluators=declaration.metrics or metrics,
        primary_metric=declaration.primary_metric or primary,
        max_source_length=declaration.max_source_length,
        max_target_length=declaration.max_target_length or _TARGET_TOKENS[declaration.kind],
        paper=declaration.about or "declared by the user",
        input_columns=declaration.columns,
        split_sizes=sizes,
        converter="data_prep.converters.rows:prepare_rows",
        uses_images=declaration.uses_images,
        num_images=max(1, len(declaration.images)),
        result_keys=declaration.result_keys,
        reference_files=PREPARED_SPLIT,
        reference_reader="dept_vl.inference.score_file:prepared_references",
        columns=dict.fromkeys(declaration.columns, "text or empty"),
        labels=declaration.label_words,
        answer_cue=declaration.answer_cue or _CUES.get(declaration.kind, PLAIN_CUE),
        declaration=declaration,
    )
