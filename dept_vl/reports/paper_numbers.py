"""The numbers the paper prints, in one place: Shi & Lipani 2024 (arXiv 2309.05173v5), DePT on T5-base.

Numbers are as printed (of 100; CIDEr x 100). A number that could not be looked up here is None and never a guess.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PaperCell:
    """One number of a table.

    Attributes:
        task: Task name here.
        metric: Evaluator key that holds the same quantity.
        value: As printed; None: not available here.
        std: Standard deviation as printed, None where the number is not available here.
        few_shot: k of a few-shot cell.
    """

    task: str
    metric: str
    value: float | None
    std: float | None = None
    few_shot: int | None = None

    @property
    def key(self) -> tuple[str, int | None]:
        """What a run must be to belong here: its task and k."""
        return self.task, self.few_shot


@dataclass(frozen=True)
class PaperTable:
    """A table of the paper, the row of DePT.

    Attributes:
        title: What it is.
        cells: In the table's order.
    """

    title: str
    cells: tuple[PaperCell, ...]


_TABLE_1 = (
    PaperCell("mnli", "accuracy", 85.0),
    PaperCell("qqp", "accuracy", 90.4),
    PaperCell("qnli", "accuracy", 93.2),
    PaperCell("sst2", "accuracy", 94.2),
    PaperCell("stsb", "pearson", 90.8),
    PaperCell("mrpc", "accuracy", 90.7),
    PaperCell("rte", "accuracy", 79.1),
    PaperCell("cola", "matthews_correlation", 63.8),
    PaperCell("superglue-multirc", "f1a", 74.3),
    PaperCell("superglue-boolq", "accuracy", 79.3),
    PaperCell("superglue-wic", "accuracy", 68.7),
    PaperCell("superglue-wsc", "accuracy", 67.3),
    PaperCell("superglue-cb", "accuracy", 92.9),
)

_TABLE_2 = (
    PaperCell("nq", "squad_f1", 73.2),
    PaperCell("hotpotqa", "squad_f1", 76.8),
    PaperCell("searchqa", "squad_f1", 77.6),
    PaperCell("newsqa", "squad_f1", 64.4),
    PaperCell("winogrande", "accuracy", 59.0),
    PaperCell("yelp-polarity", "accuracy", 96.8),
    PaperCell("scitail", "accuracy", 95.6),
    PaperCell("paws", "accuracy", 93.7),
)

_TABLE_3 = (
    PaperCell("vqa", "vqa_accuracy", 59.8, 0.4),
    PaperCell("coco", "CIDEr", 113.7, 0.3),
)

_FEW_SHOT = tuple(
    PaperCell(task, "accuracy", None, few_shot=k)
    for task in ("superglue-boolq", "superglue-cb", "scitail")
    for k in (4, 16, 32)
)

PAPER_TABLES: dict[str, PaperTable] = {
    "table1": PaperTable("Table 1: GLUE and SuperGLUE, test", _TABLE_1),
    "table2": PaperTable("Table 2: MRQA 2019 and four others, test", _TABLE_2),
    "table3": PaperTable("Table 3: VQA v2 and COCO captions, Karpathy test", _TABLE_3),
    "table4_5": PaperTable("Tables 4 and 5: few-shot, numbers not available here", _FEW_SHOT),
}
"""Table -> its row of DePT."""
