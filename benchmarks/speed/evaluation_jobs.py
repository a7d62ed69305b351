"""Evaluation contestants, each in a `benchmarks.speed.worker` process."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.speed.training_jobs import padded, released_model
from benchmarks.speed.workload import TASK, TextWork, shape, train_config, write_colour_work
from dept_vl.inference.answer import Answerer, agreement, answer_split
from dept_vl.models.build import build_model
from dept_vl.runs.decoding import choose_decoding
from dept_vl.runs.open import open_run
from dept_vl.runs.session import Session
from dept_vl.settings.load import config_from_tree
from dept_vl.training.trainer import train


class Ours:
    """This package: batches sorted by length, every label's likelihood from one pass.

    Attributes:
        sets: Workload to its test split.
    """

    def __init__(self, backbone: str, works: dict[str, Any], shape_name: str) -> None:
        """Builds a fresh model; an answer takes as long whatever was learned."""
        loaded = {name: TextWork.load(work) for name, work in works.items()}
        config = train_config(backbone, next(iter(loaded.values())), shape(shape_name), "unused", 1)
        session = Session()
        parts = {name: open_run(config, work.data_dir, ("test",), session) for name, work in loaded.items()}
        first = next(iter(parts.values()))
        self._answerer = Answerer(first.model, first.codec, None, choose_decoding(config, first.task, "score"))
        self._batch_size = config.data.eval_batch_size
        self.sets = {name: one.datasets["test"] for name, one in parts.items()}

    def run(self, workload: str) -> dict[str, float]:
        """Answers the test split."""
        started = time.perf_counter()
        predictions = answer_split(self._answerer, self.sets[workload], batch_size=self._batch_size).predictions
        return {"rate": len(predictions) / (time.perf_counter() - started)}


class Products:
    """The roof: the matrix products that reading the test split's own tokens takes, and nothing else."""

    def __init__(self, backbone: str, works: dict[str, Any], shape_name: str) -> None:
        """Makes one block's frozen matrices, and input for every batch of like length, without padding.

        Args:
            backbone: T5 folder.
            works: Workload to its `TextWork` as a dictionary.
            shape_name: Shape of backbone and tuner.
        """
        kind = shape(shape_name)
        config = kind.config
        inner, width = config.num_heads * config.d_kv, config.d_model
        shapes = [(inner, width)] * 3 + [(width, inner), (config.d_ff, width), (width, config.d_ff)]
        self._matrices = [torch.randn(rows, columns) for rows, columns in shapes]
        self._blocks = config.num_layers
        self._prompt = kind.num_virtual_tokens
        sets = Ours(backbone, works, shape_name).sets
        self._lengths = {name: dataset.source_lengths(range(len(dataset))) for name, dataset in sets.items()}
        self._batch_size = len(TextWork.load(next(iter(works.values()))).batches[0]["input_ids"])

    @torch.no_grad()
    def run(self, workload: str) -> dict[str, float]:
        """Multiplies."""
        lengths = sorted(self._lengths[workload])
        batches = [lengths[start : start + self._batch_size] for start in range(0, len(lengths), self._batch_size)]
        started = time.perf_counter()
        for batch in batches:
            tokens = sum(batch) + self._prompt * len(batch)
            inputs = {width: torch.randn(tokens, width) for width in {matrix.shape[1] for matrix in self._matrices}}
            for _ in range(self._blocks):
                for matrix in self._matrices:
                    torch.nn.functional.linear(inputs[matrix.shape[1]], matrix)
        return {"rate": len(lengths) / (time.perf_counter() - started)}


class Released:
    """The released code's evaluation: every text padded to s, generation, and a second forward for the loss."""

    def __init__(self, checkout: str, backbone: str, works: dict[str, Any], shape_name: str, label_tokens: int) -> None:
        """Loads T5 and puts the released ``peft`` on it.

        Args:
            checkout: Folder that holds the released ``peft`` package.
            backbone: T5 folder.
            works: Workload to its `TextWork` as a dictionary.
            shape_name: Shape of backbone and tuner.
            label_tokens: Tokens generated, as many as a label has: a trained model stops there.
        """
        self._batches = {name: TextWork.load(work).batches[0] for name, work in works.items()}
        self._length = shape(shape_name).max_source_length
        self._label_tokens = label_tokens
        self._model = released_model(checkout, backbone, shape_name, "dept").eval()

    @torch.no_grad()
    def run(self, workload: str) -> dict[str, float]:
        """Answers one batch."""
        batch = padded(self._batches[workload], self._length)
        started = time.perf_counter()
        source = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
        self._model.generate(**source, max_new_tokens=self._label_tokens, min_new_tokens=self._label_tokens)
        self._model(**batch)
        return {"rate": len(batch["input_ids"]) / (time.perf_counter() - started)}


class Padded:
    """This package made to do what the released code does: pad to s, generate, and a second forward."""

    def __init__(self, backbone: str, works: dict[str, Any], shape_name: str, label_tokens: int) -> None:
        """Builds a fresh model; arguments as `Released`."""
        loaded = {name: TextWork.load(work) for name, work in works.items()}
        self._batches = {name: work.batches[0] for name, work in loaded.items()}
        config = train_config(backbone, next(iter(loaded.values())), shape(shape_name), "unused", 1)
        self._length = config.data.max_source_length
        self._label_tokens = label_tokens
        self._model, _ = build_model(
            config.model, config.tuner, max_source_length=self._length, feature_dim=None, seed=0
        )
        self._model.eval()

    @torch.no_grad()
    def run(self, workload: str) -> dict[str, float]:
        """Answers one batch."""
        batch = padded(self._batches[workload], self._length)
        started = time.perf_counter()
        self._model.generate(batch["input_ids"], batch["attention_mask"], max_new_tokens=self._label_tokens)
        self._model(**batch)
        return {"rate": len(batch["input_ids"]) / (time.perf_counter() - started)}


def decode_agreement(folder: Path, steps: int = 150) -> tuple[float, int]:
    """Trains the packaged T5 on a task it can learn and compares the two ways to answer.

    The label is 1 where a text has the word "red" and 0 where it has "blue".

    Returns:
        The share of test rows, 0 to 1, on which scoring and generation agree, and the number of rows.
    """
    write_colour_work(folder)
    every = dict.fromkeys(("max_steps", "eval_every_steps", "save_every_steps"), steps)
    config = config_from_tree(
        {
            "task": TASK,
            "output_dir": str(folder / "run"),
            "model": {"backbone": "demo"},
            "tuner": {
                "name": "dept",
                "budget_tokens": 20,
                "num_virtual_tokens": 13,
                "allow_nearest": True,
                "lr": 0.3,
                "lowrank_lr": 0.1,
            },
            "data": {"dir": str(folder), "max_source_length": 32, "batch_size": 32, "eval_batch_size": 64},
            "loop": every,
        }
    )
    train(config, folder, overwrite=True)
    parts = open_run(config, folder, ("test",), adapter=folder / "run")
    answers = []
    for method in ("score", "generate"):
        answerer = Answerer(parts.model, parts.codec, None, choose_decoding(config, parts.task, method))
        answers.append(answer_split(answerer, parts.datasets["test"], batch_size=64).predictions)
    return agreement(answers[0], answers[1], parts.codec, parts.task.labels or ()), len(answers[0])
