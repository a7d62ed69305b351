"""The two vision-language tasks, on the Karpathy splits (Shi & Lipani 2024, Table 9)."""

from __future__ import annotations

from dept_vl.tasks import templates
from dept_vl.tasks.base import SplitSize, Task

_PAPER = "Shi & Lipani 2024, Tables 3 and 9; splits of Karpathy & Fei-Fei 2015 as used by Sung et al. 2022"

VQA = Task(
    name="vqa",
    template=templates.vqa,
    evaluators=("vqa-accuracy",),
    also_scored=("vqa-accuracy-legacy-vlt5",),  # Sung et al.'s, whose setting Table 3 has
    primary_metric="vqa_accuracy",
    max_source_length=256,
    max_target_length=10,
    paper=_PAPER,
    input_columns=("question",),
    split_sizes={
        "train": SplitSize(605_102, 113_287),
        "val": SplitSize(26_729, 5_000),
        "test": SplitSize(26_280, 5_000),
    },
    converter="data_prep.converters.vqa:prepare_vqa",
    uses_images=True,
    answer_cue="\nAnswer:",
    result_keys=("question_id", "answer"),
    reference_files={"questions": "VQA questions", "annotations": "VQA annotations"},
    reference_reader="dept_vl.evaluators.official_files:load_vqa_references",
)

COCO = Task(
    name="coco",
    template=templates.coco,
    evaluators=("cider", "bleu", "rouge-l"),
    primary_metric="CIDEr",
    max_source_length=256,
    max_target_length=40,
    paper=_PAPER,
    split_sizes={
        "train": SplitSize(566_747, 113_287),
        "val": SplitSize(5_000, 5_000),
        "test": SplitSize(5_000, 5_000),
    },
    converter="data_prep.converters.coco_captions:prepare_coco",
    uses_images=True,
    answer_cue="\nCaption:",
    result_keys=("image_id", "caption"),
    reference_files={"references": "captions_*.json"},
    reference_reader="dept_vl.evaluators.official_files:load_caption_references",
)
