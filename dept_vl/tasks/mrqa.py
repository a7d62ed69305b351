"""Extractive question answering: the four MRQA 2019 tasks of Shi & Lipani 2024, Table 2, and SQuAD as a source task.

Under ``fixed`` nothing is padded and every answer counts: padded, the answer "U.S." is "U . S . ", which the official
normalisation does not make equal to "U.S.".
"""

from __future__ import annotations

from dept_vl.tasks import golds, templates
from dept_vl.tasks.base import Source, Task
from dept_vl.tasks.splits import held_out, sizes
from dept_vl.tasks.templates import fields
from dept_vl.tasks.text import text_task


def _mrqa(name: str, path: str, train: int, validation: int) -> Task:
    """Declares one task; the revisions of these data sets could not be verified offline, so none is pinned."""
    return text_task(
        name,
        source=Source(path, None, {"train": train, "validation": validation}),
        columns={"question": "text", "context": "text", "answers": "answers"},
        template=fields(question="question", context="context"),
        golds=golds.all_answers,
        labels=None,
        splits=held_out(),
        sizes=sizes(train - 1_000, 1_000, validation),
        evaluators=("squad",),
        primary_metric="squad_f1",
        max_source_length=512,
        answer_cue="\nAnswer:",
        # The tables print F1; the released run keeps the checkpoint with the best exact match.
        paper={
            "template": templates.padded_question,
            "golds": golds.first_answer_paper,
            "selection_metric": "squad_em",
        },
    )


NQ = _mrqa("nq", "lucadiliello/naturalquestionsshortqa", 104_071, 12_836)
HOTPOTQA = _mrqa("hotpotqa", "lucadiliello/hotpotqa", 72_928, 5_901)
SEARCHQA = _mrqa("searchqa", "lucadiliello/searchqa", 117_384, 16_980)
NEWSQA = _mrqa("newsqa", "lucadiliello/newsqa", 74_160, 4_212)

SQUAD = text_task(
    "squad",
    source=Source(
        "rajpurkar/squad",
        "plain_text",
        {"train": 87_599, "validation": 10_570},
        "7b6d24c440a36b6815f21b70d25016731768db1f",
    ),
    columns={"question": "text", "context": "text", "answers": "spans"},
    template=fields(question="question", context="context"),
    golds=golds.squad_answers,
    labels=None,
    splits=held_out(),
    sizes=sizes(86_599, 1_000, 10_570),
    evaluators=("squad",),
    primary_metric="squad_f1",
    max_source_length=512,
    answer_cue="\nAnswer:",
    paper={"template": templates.padded_question, "golds": golds.squad_paper, "selection_metric": "squad_em"},
)

TASKS: tuple[Task, ...] = (NQ, HOTPOTQA, SEARCHQA, NEWSQA, SQUAD)
