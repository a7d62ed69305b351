"""The eight GLUE tasks of Shi & Lipani 2024, Table 1."""

from __future__ import annotations

from dept_vl.tasks import golds
from dept_vl.tasks.base import ColumnKind, Source, Task
from dept_vl.tasks.splits import HALVED, held_out, own, sizes
from dept_vl.tasks.templates import fields
from dept_vl.tasks.text import binary, text_task, three_way

_PAIR: dict[str, ColumnKind] = {"sentence1": "text", "sentence2": "text", "label": "label"}
_BINARY, _LABELS = binary()
_THREE_WAY, _THREE_LABELS = three_way()

_FIFTHS = tuple(f"{fifth / 5:.1f}" for fifth in range(26))
_TENTHS = tuple(f"{tenth / 10:.1f}" for tenth in range(51))


def _glue(config: str, **rows: int) -> Source:
    return Source("nyu-mll/glue", config, rows, "bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c")


MNLI = text_task(
    "mnli",
    source=_glue("mnli", train=392_702, validation_matched=9_815, validation_mismatched=9_832),
    columns={"premise": "text", "hypothesis": "text", "label": "label"},
    template=fields(premise="premise", hypothesis="hypothesis"),
    golds=_THREE_WAY,
    labels=_THREE_LABELS,
    splits=own(val="validation_mismatched", test="validation_matched"),
    sizes=sizes(392_702, 9_832, 9_815),
)

QQP = text_task(
    "qqp",
    source=_glue("qqp", train=363_846, validation=40_430),
    # Some of Quora's questions are empty; the released code keeps them.
    columns={"question1": "text or empty", "question2": "text or empty", "label": "label"},
    template=fields(question1="question1", question2="question2"),
    golds=_BINARY,
    labels=_LABELS,
    splits=held_out(),
    # Table 9 prints 40,431 test rows; GLUE has 40,430, as many as the released run scored (439.4839 s x 91.994 rows/s).
    sizes=sizes(362_846, 1_000, 40_430),
    evaluators=("accuracy", "f1"),
    primary_metric="accuracy",
)

QNLI = text_task(
    "qnli",
    source=_glue("qnli", train=104_743, validation=5_463),
    columns={"question": "text", "sentence": "text", "label": "label"},
    template=fields(question="question", sentence="sentence"),
    golds=_BINARY,
    labels=_LABELS,
    splits=held_out(),
    sizes=sizes(103_743, 1_000, 5_463),
)

SST2 = text_task(
    "sst2",
    source=_glue("sst2", train=67_349, validation=872),
    columns={"sentence": "text", "label": "label"},
    template=fields(sentence="sentence"),
    golds=_BINARY,
    labels=_LABELS,
    splits=held_out(),
    sizes=sizes(66_349, 1_000, 872),
)

STSB = text_task(
    "stsb",
    source=_glue("stsb", train=5_749, validation=1_500),
    columns={"sentence1": "text", "sentence2": "text", "label": "number"},
    template=fields(sentence1="sentence1", sentence2="sentence2"),
    golds=golds.similarity,
    labels=_FIFTHS,
    splits=HALVED,
    sizes=sizes(5_749, 750, 750),
    evaluators=("pearson", "spearman"),
    primary_metric="pearson",
    # The released code lists T5's 26 strings but its rounding gives any of these.
    paper={"golds": golds.similarity_paper, "labels": _TENTHS},
    # The released train.py counts two classes of similarity, cut at 2.5.
    few_shot_classes=("0", "1"),
    few_shot_class=lambda target: "0" if float(target) <= 2.5 else "1",
)

MRPC = text_task(
    "mrpc",
    source=_glue("mrpc", train=3_668, validation=408),
    columns=_PAIR,
    template=fields(sentence1="sentence1", sentence2="sentence2"),
    golds=_BINARY,
    labels=_LABELS,
    splits=HALVED,
    sizes=sizes(3_668, 204, 204),
    evaluators=("accuracy", "f1"),
    primary_metric="accuracy",
)

RTE = text_task(
    "rte",
    source=_glue("rte", train=2_490, validation=277),
    columns=_PAIR,
    template=fields(sentence1="sentence1", sentence2="sentence2"),
    golds=_BINARY,
    labels=_LABELS,
    splits=HALVED,
    sizes=sizes(2_490, 138, 139),
)

COLA = text_task(
    "cola",
    source=_glue("cola", train=8_551, validation=1_043),
    columns={"sentence": "text", "label": "label"},
    template=fields(sentence="sentence"),
    golds=_BINARY,
    labels=_LABELS,
    splits=HALVED,
    sizes=sizes(8_551, 521, 522),
    evaluators=("matthews-correlation", "accuracy"),
    primary_metric="matthews_correlation",
)

TASKS: tuple[Task, ...] = (MNLI, QQP, QNLI, SST2, STSB, MRPC, RTE, COLA)
