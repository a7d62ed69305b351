"""A prompt that a decoder-only model reads once, beside one that every row reads for itself, PEFT's, and LoRA.

    python -m benchmarks.prefix_once --backbone FOLDER --data DATA [--rounds 5] [--layers 4] [--only training,...]

FOLDER has the ``config.json`` and tokenizer of a Llama (SmolLM2-135M's here), whose weights are drawn; DATA has
prepared ``cola``. Batches are of neighbouring rows of its training split, sorted by length as the trainer sorts them.
Contestants are in processes of their own and take turns; ratios are taken within a round. Beside the time on the clock
stands the processor time, which other work on the machine changes little where all use one thread: give one processor
(``taskset -c 0``).

Ours is a plain loop of steps (model, loss, backward, AdamW); PEFT is in transformers' Trainer with dynamic padding.
"Each row" is ours with `reads_once` off. LoRA has as many parameters as the
prompts: rank 1 at every q and v. Tables are in docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
from torch import Tensor
from transformers import AutoConfig, AutoTokenizer, LlamaForCausalLM, PreTrainedTokenizerBase

from benchmarks.speed.harness import Contestant, Round, Spread, run_rounds
from benchmarks.speed.worker import Worker
from benchmarks.speed.workload import pad_rows
from dept_vl.data.collator import IGNORE_INDEX
from dept_vl.data.text_codec import CausalTextCodec
from dept_vl.models.adapted_model import AdaptedModel
from dept_vl.models.build import build_model
from dept_vl.models.config import ModelConfig
from dept_vl.models.language.label_trie import LabelTrie
from dept_vl.models.language.llama import LLAMA
from dept_vl.settings.load import load_config
from dept_vl.tasks import get_task

SOURCE_TOKENS = 256
NEW_TOKENS = 4
"""Generated for every row: as many for all, so that no way has longer answers to make."""

TUNERS: dict[str, dict[str, Any]] = {
    "DePT m = 40": {"name": "dept", "num_virtual_tokens": 40, "budget_tokens": 100, "allow_nearest": True},
    "prompt tuning l = 100": {"name": "prompt-tuning", "num_virtual_tokens": 100},
    "LoRA": {"name": "lora", "rank": 1, "alpha": 1.0, "sites": ["attn.q", "attn.v"], "dropout": 0.0},
}


class Texts:
    """Rows of CoLA as token ids."""

    def __init__(self, backbone: str, data: str) -> None:
        """Reads and tokenises the training split as the package does."""
        task = get_task("cola")
        sentences = pq.read_table(Path(data) / "cola.fixed" / "train.parquet")["sentence"].to_pylist()
        self.tokenizer = AutoTokenizer.from_pretrained(backbone)
        self.codec = CausalTextCodec(self.tokenizer)
        sources = [task.template({"sentence": sentence}) for sentence in sentences]
        self.sources = sorted(self.codec.source_ids(sources, SOURCE_TOKENS), key=len)
        self.labels = self.codec.target_ids(["0", "1"])

    def batches(self, number: int, size: int, length: int | None = None) -> list[list[list[int]]]:
        """Returns batches whose lengths are spread evenly over the split's, or of texts of one length."""
        if length is not None:
            words = list(itertools.islice(itertools.cycle(itertools.chain(*self.sources)), length))
            return [[words] * size] * number
        starts = [(len(self.sources) - size) * (2 * one + 1) // (2 * number) for one in range(number)]
        return [self.sources[start : start + size] for start in starts]


class Ours:
    """This package on a Llama of random weights: training, scoring two labels, generating."""

    def __init__(
        self, backbone: str, data: str, tuner: str, reads_once: bool, steps: int, batch_size: int, layers: int | None
    ) -> None:
        """Builds the model; see the module for what the contestants are."""
        self._texts = Texts(backbone, data)
        self.model = adapted(random_llama(backbone, layers), self._texts.tokenizer, TUNERS[tuner], reads_once)
        self._batches = self._texts.batches(steps, batch_size)
        self._optimizer = torch.optim.AdamW([p for p in self.model.parameters() if p.requires_grad], lr=1e-3)

    def run(self, workload: str) -> dict[str, float]:
        """Does one round of ``training``, ``scoring`` or ``generating``."""
        work = {"training": self.step, "scoring": self._score, "generating": self._generate}[workload]
        return timed(partial(each, work, self._batches), sum(map(len, self._batches)))

    def step(self, rows: Sequence[Sequence[int]]) -> None:
        """Does one step of training."""
        self.model.train()
        self._optimizer.zero_grad()
        ids, mask = padded(rows)
        labels = pad_rows([self._texts.labels[number % 2] for number in range(len(rows))], IGNORE_INDEX)
        torch.autograd.backward(self.model(ids, mask, labels).loss_per_example.mean())
        self._optimizer.step()

    @cached_property
    def _trie(self) -> LabelTrie:
        return LabelTrie.build(self._texts.labels)

    def _score(self, rows: Sequence[Sequence[int]]) -> None:
        self.model.score_labels(*padded(rows), labels=self._trie)

    def _generate(self, rows: Sequence[Sequence[int]]) -> None:
        self.model.generate(*padded(rows), max_new_tokens=NEW_TOKENS)


class Peft:
    """PEFT's prompt tuning in transformers' Trainer, on the same rows."""

    def __init__(
        self, backbone: str, data: str, num_virtual_tokens: int, steps: int, batch_size: int, layers: int | None
    ) -> None:
        """Builds the model."""
        import peft

        texts = Texts(backbone, data)
        config = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=num_virtual_tokens)
        self._model = peft.get_peft_model(random_llama(backbone, layers), config)
        self._rows = [
            {
                "input_ids": [*source, *texts.labels[number % 2]],
                "labels": [*[IGNORE_INDEX] * len(source), *texts.labels[number % 2]],
            }
            for batch in texts.batches(steps, batch_size)
            for number, source in enumerate(batch)
        ]
        self._sizes, self._pad = (steps, batch_size), texts.codec.pad_token_id

    def run(self, workload: str) -> dict[str, float]:
        """Trains on every row once."""
        from transformers import Trainer, TrainingArguments

        steps, batch_size = self._sizes
        arguments = TrainingArguments(
            output_dir="/tmp/dept-vl-prefix-once", per_device_train_batch_size=batch_size, max_steps=steps,
            learning_rate=1e-3, train_sampling_strategy="sequential", use_cpu=True, save_strategy="no",
            logging_strategy="no", report_to="none", disable_tqdm=True,
        )  # fmt: skip
        trainer = Trainer(self._model, arguments, data_collator=self._collate, train_dataset=self._rows)
        return timed(trainer.train, len(self._rows))

    def _collate(self, rows: list[dict[str, list[int]]]) -> dict[str, Tensor]:
        ids = pad_rows([row["input_ids"] for row in rows], self._pad)
        labels = pad_rows([row["labels"] for row in rows], IGNORE_INDEX)
        mask = pad_rows([[1] * len(row["input_ids"]) for row in rows], 0)
        return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def random_llama(backbone: str, layers: int | None = None) -> LlamaForCausalLM:
    """Returns a model of a folder's ``config.json``, its weights drawn and frozen, of so many blocks or of all."""
    torch.manual_seed(0)
    config = AutoConfig.from_pretrained(backbone)
    config.num_hidden_layers = layers or config.num_hidden_layers
    return LlamaForCausalLM(config).float().requires_grad_(False)


def adapted(
    llama: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase, tuner: dict[str, Any], reads_once: bool
) -> AdaptedModel:
    """Returns a method on such a model; without `reads_once` every row reads the prompt."""
    chosen = load_config(None, {f"tuner.{key}": value for key, value in tuner.items()}).tuner
    # Never an end of sequence, so that every answer has as many tokens.
    frozen = LLAMA.backbone_class(llama, {"pad_token_id": tokenizer.pad_token_id})
    frozen.reads_once = reads_once
    model, _ = build_model(
        ModelConfig(), chosen, max_source_length=SOURCE_TOKENS, feature_dim=None, seed=0, backbone=(frozen, tokenizer)
    )
    return model


def padded(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Returns ids and mask, padded on the right."""
    return pad_rows(rows, 0), pad_rows([[1] * len(row) for row in rows], 0)


def timed(work: Callable[[], object], rows: int) -> dict[str, float]:
    """Does something and returns rows a second of the clock (``rate``) and of the processor (``cpu_rate``)."""
    started, cpu = time.perf_counter(), time.process_time()
    work()
    return {"rate": rows / (time.perf_counter() - started), "cpu_rate": rows / (time.process_time() - cpu)}


def each(work: Callable[[Any], None], batches: Sequence[Any]) -> None:
    """Does the same with every batch."""
    for rows in batches:
        work(rows)


def contest(jobs: dict[str, tuple[str, dict[str, Any]]], workload: str, rounds: int) -> list[Round]:
    """Lets contestants take turns after a round that is not counted; a job is ``module:Class`` and its arguments."""
    workers = {name: Worker(job, arguments) for name, (job, arguments) in jobs.items()}
    try:
        for worker in workers.values():
            worker.wait()
            worker.measure(workload)
        contestants = [Contestant(name, partial(one.measure, workload)) for name, one in workers.items()]
        return run_rounds(contestants, rounds, _report)
    finally:
        for worker in workers.values():
            worker.close()


def _report(number: int, values: Round) -> None:
    rates = ", ".join(f"{name} {one['cpu_rate']:.2f}" for name, one in values.items())
    print(f"round {number + 1}, rows/s of the processor: {rates}", flush=True)


def _ratio(rounds: Sequence[Round], ours: str, peer: str, key: str) -> str:
    values = [one[ours][key] / one[peer][key] for one in rounds]
    return shown_spread(Spread(statistics.median(values), min(values), max(values)))


def shown_spread(spread: Spread) -> str:
    """Returns the median, and in brackets the least and the most."""
    return f"{spread.median:.2f} [{spread.least:.2f} .. {spread.most:.2f}]"


def print_table(rounds: Sequence[Round], pairs: Sequence[tuple[str, str]]) -> None:
    """Prints what contestants measured, and the ratios of pairs of them."""
    print("| contestant | rows/s of the clock | rows/s of the processor | peak memory, GiB |")
    for name in rounds[0]:
        middle = {key: statistics.median([one[name][key] for one in rounds]) for key in rounds[0][name]}
        print(f"| {name} | {middle['rate']:.2f} | {middle['cpu_rate']:.2f} | {middle['peak_gib']:.2f} |")
    print("| | clock | processor | peak memory |")
    for ours, peer in pairs:
        shown = " | ".join(_ratio(rounds, ours, peer, key) for key in ("rate", "cpu_rate", "peak_gib"))
        print(f"| {ours} over {peer} | {shown} |", flush=True)


def measure(workload: str, rounds: int, given: dict[str, Any]) -> None:
    """Prints the contestants of one workload, one prompt length after the other, and the ratios."""
    ours = {
        (name, once): (
            f"{name}, {'once' if once else 'each row'}",
            ("benchmarks.prefix_once:Ours", {**given, "tuner": name, "reads_once": once}),
        )
        for name in TUNERS
        for once in (True, False)
    }
    lora = ("LoRA", ours["LoRA", True][1])
    jobs = dict([*(value for key, value in ours.items() if key[0] != "LoRA"), lora])
    dept, prompt = ("DePT m = 40, once", "prompt tuning l = 100, once")
    pairs = [(one, one.replace("once", "each row")) for one in (dept, prompt)]
    if workload == "training":
        jobs["PEFT prompt tuning l = 100"] = ("benchmarks.prefix_once:Peft", {**given, "num_virtual_tokens": 100})
        pairs += [(one, "PEFT prompt tuning l = 100") for one in (dept, prompt)]
    pairs += [(dept, "LoRA")]
    print(f"\n{workload}, batch {given['batch_size']}, {given['steps']} batches a round, {rounds} rounds")
    print_table(contest(jobs, workload, rounds), pairs)


CURVES: dict[str, list[tuple[int, int, int | None]]] = {
    "m": [(m, 32, None) for m in (10, 20, 40, 100, 200)],
    "batch": [(40, batch, None) for batch in (1, 2, 4, 8, 16, 32)],
    "text": [(40, 16, length) for length in (8, 16, 32, 64, 128, 256)],
}
"""What is varied to prompt tokens, rows a batch, and tokens of the texts (None: CoLA's)."""


def curves(backbone: str, data: str, rounds: int, layers: int | None, names: Sequence[str]) -> None:
    """Prints how many times as fast a step of training is, in processor time, beside the count of tokens."""
    texts = Texts(backbone, data)
    print("\n| prompt | batch | tokens of text and target | tokens each row / once | training | scoring |")
    for m, batch_size, length in itertools.chain(*(CURVES[name] for name in names)):
        tuner = {"name": "prompt-tuning", "num_virtual_tokens": m}
        models = {once: adapted(random_llama(backbone, layers), texts.tokenizer, tuner, once) for once in (True, False)}
        rows = texts.batches(1, batch_size, length)[0]
        behind = max(map(len, rows)) + max(map(len, texts.labels)) - 1
        tokens = batch_size * (m + behind) / (m + batch_size * behind)
        shown = [faster(models, (*padded(rows),), texts.labels, is_training, rounds) for is_training in (True, False)]
        print(f"| {m} | {batch_size} | {behind} | {tokens:.2f} | {' | '.join(map(shown_spread, shown))} |", flush=True)


def faster(
    models: dict[bool, AdaptedModel],
    sources: tuple[Any, ...],
    labels: list[list[int]],
    is_training: bool,
    rounds: int,
) -> Spread:
    """Returns how many times as fast the one that reads once is: a step of training, or scoring.

    Args:
        models: By whether they read once.
        sources: Ids and mask, and images where there are any.
        labels: Targets in turn, and what is scored.
        is_training: Which of the two is asked for.
        rounds: In which they take turns, after one that is not counted.
    """
    trie = LabelTrie.build(labels)
    targets = pad_rows([labels[number % len(labels)] for number in range(len(sources[0]))], IGNORE_INDEX)
    ids, mask, *images = sources

    def run(once: bool) -> float:
        started = time.process_time()
        if is_training:
            torch.autograd.backward(models[once].train()(ids, mask, targets, *images).loss_per_example.mean())
        else:
            models[once].score_labels(ids, mask, *images, labels=trie)
        return time.process_time() - started

    ratios = [run(False) / run(True) for _ in range(rounds + 1)][1:]
    return Spread(statistics.median(ratios), min(ratios), max(ratios))


def main(arguments: list[str] | None = None) -> None:
    """Measures what was asked for and prints tables."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.prefix_once", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--backbone", required=True, metavar="FOLDER")
    parser.add_argument("--data", required=True, metavar="DATA")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="default: 5")
    parser.add_argument("--steps", type=int, default=2, metavar="N", help="batches a round; default: 2")
    parser.add_argument("--batch-size", type=int, default=32, metavar="N", help="default: 32")
    parser.add_argument("--layers", type=int, metavar="N", help="blocks; default: all")
    parser.add_argument("--curves", nargs="+", default=list(CURVES), choices=list(CURVES), help="default: all")
    parser.add_argument("--only", default="training,answering,curves", metavar="NAME,...")
    options = parser.parse_args(arguments)
    given = {name: getattr(options, name) for name in ("backbone", "data", "steps", "batch_size", "layers")}
    wanted = options.only.split(",")
    for workload in ("training", *(("scoring", "generating") if "answering" in wanted else ())):
        if workload != "training" or "training" in wanted:
            measure(workload, options.rounds, given)
    if "curves" in wanted:
        curves(options.backbone, options.data, options.rounds, options.layers, options.curves)


if __name__ == "__main__":
    main()
