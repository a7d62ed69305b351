"""The four other tasks of Shi & Lipani 2024, Table 2."""

from __future__ import annotations

from dept_vl.tasks.base import Source, Task
from dept_vl.tasks.splits import HALVED, held_out, own, sizes
from dept_vl.tasks.templates import fields
from dept_vl.tasks.text import binary, text_task

_BINARY, _LABELS = binary()
_CHOICE, _ = binary("answer", zero="1", one="2")
_ENTAILED, _ = binary("gold_label", zero="entailment", one="neutral")

WINOGRANDE = text_task(
    "winogrande",
    # Its revision could not be verified offline.
    source=Source("allenai/winogrande", "winogrande_xl", {"train": 40_398, "validation": 1_267}),
    columns={"sentence": "text", "option1": "text", "option2": "text", "answer": "label"},
    template=fields(sentence="sentence", option0="option1", option1="option2"),
    golds=_CHOICE,
    labels=_LABELS,
    splits=held_out(),
    sizes=sizes(39_398, 1_000, 1_267),
    # The released code shows the first option twice.
    paper={"template": fields(sentence="sentence", option0="option1", option1="option1")},
)

YELP_POLARITY = text_task(
    "yelp-polarity",
    # Its revision could not be verified offline.
    source=Source("fancyzhx/yelp_polarity", "plain_text", {"train": 560_000, "test": 38_000}),
    columns={"text": "text", "label": "label"},
    template=fields(sentence="text"),
    golds=_BINARY,
    labels=_LABELS,
    splits=held_out(test="test", limit=100_000),
    sizes=sizes(100_000, 1_000, 38_000),
)

SCITAIL = text_task(
    "scitail",
    source=Source(
        "allenai/scitail",
        "snli_format",
        {"train": 23_596, "validation": 1_304, "test": 2_126},
        "0cc4353235b289165dfde1c7c5d1be983f99ce44",
    ),
    columns={"sentence1": "text", "sentence2": "text", "gold_label": "label"},
    template=fields(premise="sentence1", hypothesis="sentence2"),
    golds=_ENTAILED,
    labels=_LABELS,
    splits=own(),
    sizes=sizes(23_596, 1_304, 2_126),
    # The released code halves the validation split though there is a test split.
    paper={"splits": HALVED, "split_sizes": sizes(23_596, 652, 652)},
)

PAWS = text_task(
    "paws",
    source=Source(
        "google-research-datasets/paws",
        "labeled_final",
        {"train": 49_401, "validation": 8_000, "test": 8_000},
        "161ece9501cf0a11f3e48bd356eaa82de46d6a09",
    ),
    columns={"sentence1": "text", "sentence2": "text", "label": "label"},
    template=fields(sentence1="sentence1", sentence2="sentence2"),
    golds=_BINARY,
    labels=_LABELS,
    splits=own(),
    sizes=sizes(49_401, 8_000, 8_000),
)

TASKS: tuple[Task, ...] = (WINOGRANDE, YELP_POLARITY, SCITAIL, PAWS)
