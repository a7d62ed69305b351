"""The rows of the paper's Tables 1 to 5: each one's method, settings, and where they come from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dept_vl.reports.paper_numbers import PAPER_TABLES, PaperRow

LARGE = ("mnli", "qqp", "qnli", "sst2", "superglue-multirc")
"""Sets that the released codes train for fewer epochs."""
GLUE = "rte+sst2+mrpc+stsb+qqp+mnli+qnli+cola"
"""In HyperFormer's order."""
SUPERGLUE = "superglue-boolq+superglue-cb+superglue-wic+superglue-wsc+superglue-multirc"
SOURCES = ("mnli", "qnli", "qqp", "sst2", "squad", "superglue-record")
"""ATTEMPT's (``attempt/configs/attempt``); DePT says five, without QNLI."""
SIZES = {"nq": 104_071, "searchqa": 117_384, "yelp-polarity": 560_000}
"""Training rows of the tasks that have more than 100,000 in Table 2."""


@dataclass(frozen=True)
class Row:
    """A row of a table of the paper, for one method.

    Attributes:
        table: Of the paper; Tables 4 and 5 share folders and rows.
        folder: Under ``configs/paper/<table>``.
        method: As the table's rows name it.
        bases: What ``method.yaml`` extends, in ``configs/paper/bases``; of Table 3 none, its tasks' files extend two.
        settings: Of ``method.yaml``.
        text: Where they come from, and what differs from the released recipe.
        group: Of Table 1.
        epochs: Of large sets, where they are not the base's.
        sources: Settings of the run of several tasks that its own start from, for ``sources.yaml``; None for none.
    """

    table: str
    folder: str
    method: str
    bases: tuple[str, ...]
    settings: Mapping[str, Any]
    text: str
    group: str | None = None
    epochs: int | None = None
    sources: Mapping[str, Any] | None = None

    @property
    def tuner(self) -> str:
        """What ``--tuner`` takes."""
        return str(self.settings["tuner"]["name"])

    @property
    def is_mix(self) -> bool:
        """Whether its tasks are trained together: one file for all."""
        return self.group in ("multi-task", "multi-task-transfer")

    @property
    def paper_rows(self) -> list[tuple[str, PaperRow]]:
        """The rows of the paper's tables that it is, with their table."""
        tables = ("table4", "table5") if self.table == "table4_5" else (self.table,)
        return [
            (table, row)
            for table in tables
            for row in PAPER_TABLES[table].rows
            if row.method == self.method and row.group == self.group
        ]


def _lora(rank: int, **more: Any) -> dict[str, Any]:
    return {"tuner": {"name": "lora", "rank": rank, "alpha": 32.0, "dropout": 0.1, **more}}


def _sources(tuner: str) -> list[str]:
    return [f"runs/{task}-{tuner}" for task in SOURCES]


_FT = {"tuner": {"name": "fine-tuning", "lr": 3e-4}}
_ADAPTER = {"tuner": {"name": "adapter", "reduction": 32, "lr": 3e-4}}
_BITFIT = {"tuner": {"name": "bitfit", "lr": 3e-4}}
_PROMPT = {"tuner": {"name": "prompt-tuning", "num_virtual_tokens": 100, "lr": 0.3}}
_SPOT = {**_PROMPT, "init": {"from": "runs/mnli-prompt-tuning", "parts": "prompt"}}
_ATTEMPT = {
    "tuner": {
        "name": "attempt", "num_virtual_tokens": 100, "lr": 0.3, "attention_lr": 0.3,
        "sources": _sources("prompt-tuning"),
    }
}  # fmt: skip
_MPT: dict[str, Any] = {
    "tuner": {"name": "mpt", "num_virtual_tokens": 100, "lr": 0.3, "task_lr": 0.4},
    "optim": {"weight_decay": 1e-5},
    "init": {"from": "runs/mpt-sources"},
}
_FROM_ASAI = "AkariAsai/ATTEMPT, attempt/configs/baselines"
PROMPTS = (
    "The sources' prompts are runs of configs/paper/table1/prompt-tuning: dept-vl train --task mnli --config "
    "configs/paper/table1/prompt-tuning/mnli.yaml; for squad and superglue-record, which are no cell, --task squad "
    "--config configs/paper/table1/prompt-tuning/method.yaml."
)
_LARGE_3 = "Large sets have 3 epochs, as Compacter's scripts/adapters.sh says; ATTEMPT's own number is not published."
_MPT_SOURCES: dict[str, Any] = {
    "tuner": {**_MPT["tuner"], "teachers": _sources("prompt-tuning"), "teacher_weight": 0.9},
    "optim": _MPT["optim"],
    "loop": {"epochs": 5},
}
_MPT_TEXT = (
    "The run that it starts from is stage 1, the six source tasks together, each with the prompt of a run of its own "
    "as teacher: configs/paper/table1/mpt/sources.yaml, in runs/mpt-sources. The rates are from memory of the paper "
    "(Wang et al. 2023), not checked: its code is not to be had."
)
_ASAI = (
    Row("table1", "fine-tuning", "fine-tuning", ("asai",), _FT, f"From {_FROM_ASAI}/finetuning.json. {_LARGE_3}",
        "single-task", 3),
    Row("table1", "adapter", "adapter", ("asai",), _ADAPTER,
        f"From {_FROM_ASAI}/adapter.json: reduction 32, gelu_new, no LayerNorm inside, T5's norms train too. "
        f"{_LARGE_3}",
        "single-task", 3),
    Row("table1", "adapterdrop", "adapterdrop", ("asai",),
        {"tuner": {"name": "adapterdrop", "reduction": 32, "layers": [5, 6, 7, 8, 9, 10, 11], "lr": 3e-4}},
        f"From rabeehk/compacter, seq2seq/configs/adapters_drop.json: as the adapter, in blocks 5 to 11. {_LARGE_3}",
        "single-task", 3),
    Row("table1", "bitfit", "bitfit", ("asai",), _BITFIT, f"From {_FROM_ASAI}/bitfit.json. {_LARGE_3}",
        "single-task", 3),
)  # fmt: skip
_SINGLE = (
    Row("table1", "lora", "lora", ("sung-glue",), _lora(32, biases="all", lr=3e-4),
        "From ylsung/Ladder-Side-Tuning, seq2seq/configs/lora.json: rank 32 on q and v, alpha 32, and all biases of "
        "BitFit beside, which the paper's 3.8M count. Its numbers on SuperGLUE have no published recipe: the same.",
        "single-task", 10),
    Row("table1", "lst", "lst", ("sung-glue",),
        {"tuner": {"name": "lst", "reduction": 8, "lr": 3e-3, "encoder_layers": [1, 2, 3, 5, 6, 7, 9, 10, 11],
                   "decoder_layers": [1, 2, 3, 5, 6, 7, 9, 10, 11]}},
        "From ylsung/Ladder-Side-Tuning, seq2seq/scripts/ladder_side_tuning_base_dropping.sh: reduction 8, side blocks "
        "beside 9 of the 12 blocks of both stacks, rate 3e-3.", "single-task", 10),
    Row("table1", "prompt-tuning", "prompt-tuning", ("table10",), _PROMPT,
        "Trained by the authors of DePT; the chosen rates are not published: 0.3 is on Table 10's grid. Numbers on "
        "SuperGLUE are Asai et al.'s, with batch 32 and 20 epochs.", "single-task"),
    Row("table1", "spot", "spot", ("asai",), _SPOT,
        f"From {_FROM_ASAI}/spot.json: a prompt of 100 tokens that starts as the one trained on MNLI, rate "
        f"0.3; its s is "
        f"128. {PROMPTS} {_LARGE_3}", "transfer", 3),
    Row("table1", "attempt", "attempt", ("asai",), _ATTEMPT,
        f"From AkariAsai/ATTEMPT, attempt/configs/attempt/sinlge_task.json (sic): six sources, rate 0.3. {PROMPTS} "
        f"{_LARGE_3}", "transfer", 3),
    Row("table1", "mpt", "mpt", ("asai",), _MPT, f"{_MPT_TEXT} {_LARGE_3}", "transfer", 3, _MPT_SOURCES),
)  # fmt: skip
_HYPER = "From rabeehk/hyperformer, hyperformer/configs"
_TOGETHER = (
    Row("table1", "fine-tuning-m", "fine-tuning", ("hyperformer-mix",), _FT, f"{_HYPER}/finetune.json.", "multi-task"),
    Row("table1", "adapter-m", "adapter", ("hyperformer-mix",),
        {"tuner": {"name": "adapter", "reduction": 32, "lr": 3e-4, "per_task": True}},
        f"{_HYPER}/adapter_dagger.json: an adapter a task, and a LayerNorm behind it that tasks share.", "multi-task"),
    Row("table1", "hyperformer-m", "hyperformer", ("hyperformer-mix",),
        {"tuner": {"name": "hyperformer", "reduction": 32, "lr": 3e-4}},
        f"{_HYPER}/hyperformer++.json. The paper's 638k does not come out: ours are 651,382 a task (docs/method.md).",
        "multi-task"),
    Row("table1", "hyperdecoder-m", "hyperdecoder", ("hyperformer-mix",),
        {"tuner": {"name": "hyperdecoder", "mlp": False, "lr": 3e-4}, "mix": {"batches": "mixed", "temperature": 1}},
        "From allenai/hyperdecoders, hyperdecoder/configs/experiments/glue_t5_base.json: batch 128, rate 3e-4; "
        "rows of all tasks in a batch, as its temperature sampler is commented out. Without "
        "the MLP, as the paper's 1.8M count; the released default has it.", "multi-task"),
    Row("table1", "attempt-m", "attempt", ("attempt-mix",), _ATTEMPT,
        "From AkariAsai/ATTEMPT, attempt/configs/attempt/multi_task_superglue.json; the pre-trained attention that it "
        f"loads is not to be had: it starts fresh. {PROMPTS}", "multi-task-transfer"),
    Row("table1", "mpt-m", "mpt", ("attempt-mix",), _MPT, _MPT_TEXT, "multi-task-transfer"),
)  # fmt: skip
_OTHERS = "Numbers of Asai et al.: as in Table 1, with 10 epochs of at most 100,000 rows (multi_task_others.json)"
_TABLE_2 = (
    Row("table2", "fine-tuning", "fine-tuning", ("asai",), _FT, f"{_OTHERS}."),
    Row("table2", "adapter", "adapter", ("asai",), _ADAPTER, f"{_OTHERS}."),
    Row("table2", "bitfit", "bitfit", ("asai",), _BITFIT, f"{_OTHERS}."),
    Row("table2", "lora", "lora", ("asai",), _lora(35, lr=5e-4),
        "Trained by the authors of DePT (its appendix): rank 35 on q and v without biases, batch 32, rates "
        "5e-4 to 1e-5, "
        "at most 200,000 steps; neither alpha nor the chosen rates are published, and no code: alpha 32 is "
        "Sung et al.'s, "
        "5e-4 the first of the rates."),
    Row("table2", "prompt-tuning", "prompt-tuning", ("asai",), _PROMPT,
        f"{_OTHERS}; {_FROM_ASAI}/prompt_tuning.json asks for a decay of 1e-5, which we have."),
    Row("table2", "spot", "spot", ("asai",), _SPOT, f"{_OTHERS}. {PROMPTS}"),
    Row("table2", "attempt", "attempt", ("asai",), _ATTEMPT, f"{_OTHERS}. {PROMPTS}"),
    Row("table2", "mpt", "mpt", ("asai",), _MPT, f"{_MPT_TEXT} Epochs are those of Asai et al."),
)  # fmt: skip
_VL = "From ylsung/Ladder-Side-Tuning, VL-T5/scripts/image"
_TABLE_3 = (
    Row("table3", "fine-tuning", "fine-tuning", (),
        {"tuner": {"name": "fine-tuning", "lr": 1e-4}, "optim": {"projection_lr": 1e-4}}, f"{_VL}/full_finetuning.sh."),
    Row("table3", "adapter", "adapter", (),
        {"tuner": {"name": "adapter", "bottleneck": 192, "sites": ["self_attn.o", "cross_attn.o", "ff.out"],
                   "norms": False, "init": "linear", "lr": 3e-4}, "optim": {"projection_lr": 3e-4}},
        f"{_VL}/adapter.sh: reduction 4, behind cross-attention too. It asks for --unfreeze_layer_norms, but its "
        "trainer_base.py looks for transformers' norms and the model has its own class, so none trains: 7.98 % of the "
        "parameters are without."),
    Row("table3", "lora", "lora", (), {**_lora(150, lr=3e-4), "optim": {"projection_lr": 3e-4}},
        f"{_VL}/lora.sh: rank 150 on q and v, no biases."),
    Row("table3", "bitfit", "bitfit", (), {"tuner": {"name": "bitfit", "lr": 3e-3}, "optim": {"projection_lr": 3e-3}},
        f"{_VL}/bitfit.sh: rate 3e-3; the norms of the visual embedding have biases too."),
    Row("table3", "p-tuning", "p-tuning", (),
        {"tuner": {"name": "p-tuning", "num_virtual_tokens": 40, "hidden_size": 800, "lr": 3e-3},
         "optim": {"projection_lr": 3e-3}},
        f"{_VL}/prompt_tuning.sh: 40 tokens through a network of width 800, rate 3e-3."),
    Row("table3", "lst", "lst", (),
        {"tuner": {"name": "lst", "reduction": 4, "init_std": None, "lr": 3e-3},
         "optim": {"projection_lr": 3e-3, "weight_decay": 0.03}},
        f"{_VL}/LST.sh: reduction 4 beside all 24 blocks, rate 3e-3, decay 0.03."),
)  # fmt: skip
_FEW = (
    "How many steps the paper's rows had is not published; the method's own settings are those of its row in Table 1."
)
_TABLE_4_5 = (
    Row("table4_5", "fine-tuning", "fine-tuning", ("few-shot",), _FT, _FEW),
    Row("table4_5", "adapter", "adapter", ("few-shot",), _ADAPTER, _FEW),
    Row("table4_5", "prompt-tuning", "prompt-tuning", ("few-shot",), _PROMPT, _FEW),
    Row("table4_5", "spot", "spot", ("few-shot",), _SPOT, f"{_FEW} {PROMPTS}"),
    Row("table4_5", "ia3", "ia3", ("few-shot",),
        {"tuner": {"name": "ia3", "feed_forward": False, "lr": 3e-3},
         "data": {"batch_size": 8},
         "optim": {"name": "adafactor", "scale_parameter": True, "weight_decay": 0.0, "warmup_proportion": 0.06,
                   "max_grad_norm": 1.0}},
        "From r-three/t-few, configs/ia3.json and src/utils/Config.py: Adafactor, rate 3e-3, batch 8, 1,000 steps; the "
        "vector of the feed-forward, whose pattern finds nothing in T5 v1.0, is left out, as the paper's 55.3k count. "
        "T-Few's unlikelihood and length-normalised losses are not here."),
    Row("table4_5", "attempt", "attempt", ("few-shot",), _ATTEMPT, f"{_FEW} {PROMPTS}"),
    Row("table4_5", "mpt", "mpt", ("few-shot",), _MPT, f"{_MPT_TEXT} {_FEW}"),
    Row("table4_5", "dept", "dept", ("few-shot",),
        {"tuner": {"name": "dept", "budget_tokens": 100, "num_virtual_tokens": 60, "rank": 30, "prompt_init": "text",
                   "prompt_init_text": "Classify this text is postive or not:", "lowrank_init": "kaiming-uniform",
                   "scaling": "alpha/sqrt(r)", "alpha": 8.0, "lr": 0.3, "lowrank_lr": 5e-4}},
        "From the released code: the prompt's text (sic), A kaiming-uniform and scaled by 8 / sqrt(r). The "
        "rates are on "
        "the grid of the paper's Table 10; the chosen ones are not published. m, r and s must be those of "
        "the sources."),
)  # fmt: skip
ROWS = (*_ASAI, *_SINGLE, *_TOGETHER, *_TABLE_2, *_TABLE_3, *_TABLE_4_5)
"""Every row of Tables 1 to 5 but DePT's of Tables 1 to 3, which are written by hand, and `WITHOUT`."""
WITHOUT = {
    (
        "table4",
        "hyperformer",
    ): "its network is trained on GLUE's tasks first and then on k examples of another task, whose "
    "embedding it learns: not one run of here",
}
"""(table, method) of rows without a file, and why."""
