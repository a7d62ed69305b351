"""Whether DePT's A B carries weight on real text: a small pretrained decoder-only model, DePT at its default rates.

    python -m benchmarks.real_weights --backbone SMOLLM2 --data-dir DATA --out RUNS [--task cola] [--seeds 0]

SMOLLM2 is a folder of SmolLM2-135M-Instruct, DATA what `dept-vl prepare` wrote. DePT of the parameters of 20 prompt
tokens is beside its own prompt of 10 tokens alone, prompt tuning of 20, LoRA, and PEFT's prompt tuning of 20 in a plain
loop of its own (`PeftRun`): the same rows, texts, steps and batch, frozen weights in bfloat16. LoRA's peak rate is
1e-3, PEFT's 3e-2, that of its own examples of prompt tuning, ours the defaults. Scored is the last step of each: PEFT's
loop picks none, and the best of a few hundred validation rows is within what they differ by chance. DePT's first run is
ablated too. What is scored already is kept. The last result is in docs/method.md.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
from torch import Tensor
from torch.nn import functional

from dept_vl.cli import main as dept_vl
from dept_vl.data.manifest import split_path
from dept_vl.evaluators import EvaluationInput, Reference, display_scale, score
from dept_vl.tasks import get_task

BATCH_SIZE, SOURCE_TOKENS, WARMUP = 8, 64, 0.06

SHARED = (
    f"--model.dtype bfloat16 --data.batch_size {BATCH_SIZE} --data.max_source_length {SOURCE_TOKENS} "
    f"--optim.warmup_steps null --optim.warmup_proportion {WARMUP} --loop.eval_rows 200"
)

DEPT = "--tuner dept --tuner.budget_tokens 20"

GRID = {
    f"{lr} {lowrank_lr}": f"{DEPT} --lr {lr} --lowrank-lr {lowrank_lr}"
    for lr in ("0.3", "0.4", "0.5")
    for lowrank_lr in ("1e-4", "5e-4", "1e-3", "5e-3")
}
"""The paper's grid of both rates, as in configs/sweeps/paper.yaml."""

METHODS = {
    "dept": DEPT,
    "its prompt alone": "--tuner prompt-tuning --tuner.num_virtual_tokens 10",
    "prompt-tuning": "--tuner prompt-tuning --tuner.num_virtual_tokens 20",
    "lora": "--tuner lora --lr 1e-3",
    "one large rate": f"{DEPT} --lr 0.4x --lowrank-lr 0.4x",
    "one middle rate": f"{DEPT} --lr 0.1x --lowrank-lr 0.1x",
    "one small rate": f"{DEPT} --lr 0.02x --lowrank-lr 0.02x",
    "rows from the start": f"{DEPT} --tuner.row_alignment first-token",
    "prodigy": f"{DEPT} --optim.name prodigy",
    "schedule-free": f"{DEPT} --optim.name schedule-free",
    "adept": "--tuner adept --tuner.num_virtual_tokens 10 --tuner.rank 4 --lr 0.046 --tuner.offset_lr 1e-3",
    **GRID,
}
"""Name to settings."""

PEFT, PEFT_RATE, PEFT_TOKENS = "PEFT's prompt tuning", 3e-2, 20

TABLE = ["dept", "its prompt alone", "prompt-tuning", "lora", PEFT]
"""What is run without `--only`."""

CUE = " Label :"
"""What stands before a label: that of `dept_vl`'s plain form."""

IGNORED = -100

Row = tuple[list[int], list[int]]
"""Ids of a text with the cue, and of its label with the end of sequence."""


def main(arguments: list[str] | None = None) -> None:
    """Trains and scores what is not scored yet, then prints the table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.real_weights", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--backbone", required=True)
    parser.add_argument("--data-dir", required=True, type=Path)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--task", default="sst2")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--seeds", type=lambda seeds: [int(seed) for seed in seeds.split(",")], default=[0, 1, 2])
    parser.add_argument("--only", type=lambda names: names.split(","), default=TABLE)
    options = parser.parse_args(arguments)
    for name in options.only:
        scores = [_score_of(name, seed, options) for seed in options.seeds]
        deviation = f" ± {statistics.stdev(scores):.1f}" if len(scores) > 1 else ""
        each = ", ".join(f"{score:.1f}" for score in scores)
        print(f"| {name} | {statistics.fmean(scores):.1f}{deviation} | {each} |", flush=True)
    if "dept" in options.only:
        first = _folder("dept", options.seeds[0], options)
        _run("ablate --split test --set-to nothing", first)


def _folder(name: str, seed: int, options: argparse.Namespace) -> Path:
    run: Path = options.out / options.task / f"{name.replace(' ', '-')}-{seed}"
    return run


def _score_of(name: str, seed: int, options: argparse.Namespace) -> float:
    """Returns the score of the test rows, as papers print it, of a run that is made if it is not there yet."""
    task, run = get_task(options.task).under("fixed"), _folder(name, seed, options)
    metric = task.primary_metric
    results = run / "results-test.json"
    if not results.is_file():
        if name == PEFT:
            peft = PeftRun(options.backbone, options.data_dir, options.task, seed)
            peft.train(options.steps)
            run.mkdir(parents=True, exist_ok=True)
            results.write_text(json.dumps({"metrics": {metric: peft.score("test")}}))
        else:
            _run(
                f"train --task {options.task} {METHODS[name]} {SHARED} --seed {seed} --loop.max_steps {options.steps} "
                f"--loop.eval_every_steps {options.steps}",
                *("--model.backbone", options.backbone, "--data-dir", options.data_dir),
                *("--output-dir", run, "--overwrite"),
            )
            _run("eval --checkpoint", run)
    found: float = json.loads(results.read_text())["metrics"][metric] * display_scale(metric).factor
    return found


def _run(words: str, *paths: str | Path) -> None:
    if code := dept_vl([*words.split(), *map(str, paths)]):
        raise SystemExit(code)


class PeftRun:
    """PEFT's prompt tuning of a decoder-only model in a plain loop, on the rows that a run of ours has.

    It shares with `dept_vl` the prepared rows, their text before tokenisation and the score, and nothing else: PEFT's
    model, prompt and positions, transformers' schedule and loss, labels by the sum of their tokens' log-probabilities.
    """

    def __init__(self, backbone: str, data_dir: Path, task: str, seed: int) -> None:
        """Loads the backbone with frozen weights in bfloat16 and puts a prompt in float32 on it."""
        import peft
        from transformers import AutoModelForCausalLM, AutoTokenizer

        torch.manual_seed(seed)
        self._shuffled = random.Random(seed)
        self.task, self._data_dir = get_task(task).under("fixed"), data_dir
        self._tokenizer = AutoTokenizer.from_pretrained(backbone)
        config = peft.PromptTuningConfig(
            task_type=peft.TaskType.CAUSAL_LM, num_virtual_tokens=PEFT_TOKENS, prompt_tuning_init="SAMPLE_VOCAB"
        )
        self._model = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(backbone, dtype=torch.bfloat16), config)
        ends = [self._tokenizer.eos_token_id]
        self._labels = {label: self._ids(f" {label}") + ends for label in self.task.labels or ()}

    def train(self, steps: int) -> None:
        """Takes `steps` steps of AdamW, with 6 % of warm-up and linear decay."""
        from transformers import get_linear_schedule_with_warmup

        trained = [parameter for parameter in self._model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=PEFT_RATE)
        schedule = get_linear_schedule_with_warmup(optimizer, round(WARMUP * steps), steps)
        self._model.train()
        for batch in islice(self._batches(), steps):
            self._model(**_padded(batch)).loss.backward()
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()

    def score(self, split: str) -> float:
        """Returns the task's own score of the labels that are likeliest, in its scorer's own scale."""
        rows, metric = self._read(split), self.task.primary_metric
        likelihoods = self.likelihoods([self._source(row) for row in rows])
        answers = [list(self._labels)[number] for number in likelihoods.argmax(-1).tolist()]
        return score([metric], EvaluationInput(answers, [Reference(row["references"]) for row in rows]))[metric]

    @torch.no_grad()
    def likelihoods(self, sources: Sequence[list[int]], batch_size: int = BATCH_SIZE) -> Tensor:
        """Returns (texts, labels) log-likelihoods, nats, of each label behind each text."""
        self._model.eval()
        order = sorted(range(len(sources)), key=lambda number: len(sources[number]))
        found = torch.empty(len(sources), len(self._labels))
        for start in range(0, len(order), batch_size):
            numbers = order[start : start + batch_size]
            inputs = _padded([(sources[number], ids) for number in numbers for ids in self._labels.values()])
            labels = inputs.pop("labels")[:, len(sources[numbers[0]]) :]  # what comes before needs no logits
            logits = self._model(**inputs, logits_to_keep=labels.shape[1] + 1).logits[:, :-1]
            losses = functional.cross_entropy(logits.mT.float(), labels, ignore_index=IGNORED, reduction="none")
            found[numbers] = -losses.sum(-1).view(len(numbers), -1)
        return found

    def prompt(self) -> Tensor:
        """Returns (tokens, d_model) what stands before every text."""
        found: Tensor = self._model.get_prompt_embedding_to_save("default")
        return found

    def label_ids(self) -> list[list[int]]:
        """Returns the ids of each label, the end of sequence included."""
        return list(self._labels.values())

    def _batches(self) -> Iterator[list[Row]]:
        rows = [(self._source(row), self._labels[row["targets"][0]]) for row in self._read("train")]
        while True:
            self._shuffled.shuffle(rows)
            for start in range(0, len(rows) - BATCH_SIZE + 1, BATCH_SIZE):
                yield rows[start : start + BATCH_SIZE]

    def _read(self, split: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = pq.read_table(split_path(self._data_dir, self.task, split)).to_pylist()
        return found

    def _source(self, row: dict[str, Any]) -> list[int]:
        cue = self._ids(CUE)
        return self._ids(self.task.source_text(row))[: SOURCE_TOKENS - len(cue)] + cue

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer(text)["input_ids"]
        return ids


def _padded(batch: Sequence[Row]) -> dict[str, Tensor]:
    length = max(len(text) + len(label) for text, label in batch)
    ids, mask, labels = [], [], []
    for text, label in batch:
        rest = length - len(text) - len(label)
        ids.append(text + label + [0] * rest)
        mask.append([1] * (length - rest) + [0] * rest)
        labels.append([IGNORED] * len(text) + label + [IGNORED] * rest)
    return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask), "labels": torch.tensor(labels)}


if __name__ == "__main__":
    main()
