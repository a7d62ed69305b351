"""Training contestants, each in a `benchmarks.speed.worker` process."""

from __future__ import annotations

import json
import sys
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import T5ForConditionalGeneration, TrainerCallback

from benchmarks.speed.workload import TextWork, TokenRows, pad_rows, shape, train_config
from dept_vl.data.collator import IGNORE_INDEX
from dept_vl.inference.answer import Answerer, answer_split
from dept_vl.runs.decoding import choose_decoding
from dept_vl.runs.open import open_run
from dept_vl.runs.session import Session
from dept_vl.settings.schema import TrainConfig
from dept_vl.training.trainer import train


class Ours:
    """This package, the way ``dept-vl train`` runs: prepared data, loader, tuner, optimiser, its own samples/s."""

    def __init__(
        self, backbone: str, works: dict[str, Any], shape_name: str, steps: int, run_dir: str,
        settings: dict[str, Any], answers: bool = False,
    ) -> None:  # fmt: skip
        """Loads the backbone.

        Args:
            backbone: T5 folder.
            works: Workload to its `TextWork` as a dictionary.
            shape_name: Shape of backbone and tuner.
            steps: Optimiser steps a round.
            run_dir: Run folder, made anew every round.
            settings: Groups of settings that differ from the benchmark's.
            answers: Whether the trained model answers the test split, too, after its training.
        """
        self._answers = answers
        self._works = {name: TextWork.load(work) for name, work in works.items()}
        self._configs = {
            name: train_config(backbone, work, shape(shape_name), run_dir, steps, **settings)
            for name, work in self._works.items()
        }
        self._session = Session()
        loaded, _ = self._session.backbone(next(iter(self._configs.values())).model)
        make_resident(loaded)

    def run(self, workload: str) -> dict[str, float]:
        """Trains, and returns what the run recorded of itself."""
        data_dir = self._works[workload].data_dir
        result = train(self._configs[workload], data_dir, overwrite=True, session=self._session)
        lines = (result.run_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        record = next(row for row in map(json.loads, lines) if "samples_per_s" in row)
        values = {"rate": record["samples_per_s"], "data_wait_share": record["data_wait_share"]}
        if self._answers:
            values["parameters"] = float(result.budget.tuner)
            values["answer_ms"] = self._time_answers(self._configs[workload], data_dir)
        return values

    def _time_answers(self, config: TrainConfig, data_dir: Path) -> float:
        """Returns milliseconds a row of the test split, every label scored."""
        parts = open_run(config, data_dir, ("test",), self._session, adapter=config.run_dir)
        answerer = Answerer(parts.model, parts.codec, None, choose_decoding(config, parts.task, "score"))
        started = time.perf_counter()
        rows = answer_split(answerer, parts.datasets["test"], batch_size=config.data.eval_batch_size).predictions
        return 1e3 * (time.perf_counter() - started) / len(rows)


class _Loop(ABC):
    """A plain loop over given batches: the least a peer needs."""

    def __init__(self, works: dict[str, Any], steps: int) -> None:
        self._batches = {name: TextWork.load(work).batches[:steps] for name, work in works.items()}

    @abstractmethod
    def step(self, batch: TokenRows) -> None:
        """Does one optimiser step."""

    def run(self, workload: str) -> dict[str, float]:
        """Trains on every batch."""
        batches = self._batches[workload]
        started = time.perf_counter()
        for batch in batches:
            self.step(batch)
        return {"rate": sum(len(batch["input_ids"]) for batch in batches) / (time.perf_counter() - started)}


class Released(_Loop):
    """The released DePT code's own model classes: every input padded to s, labels padded, AdamW over all tensors."""

    def __init__(
        self, checkout: str, backbone: str, works: dict[str, Any], shape_name: str, steps: int, tuner: str
    ) -> None:
        """Loads T5 and puts the released ``peft`` on it.

        Args:
            checkout: Folder that holds the released ``peft`` package.
            backbone: T5 folder.
            works: Workload to its `TextWork` as a dictionary.
            shape_name: Shape of backbone and tuner.
            steps: Batches a round.
            tuner: ``"dept"`` or ``"prompt-tuning"``.
        """
        super().__init__(works, steps)
        self._length = shape(shape_name).max_source_length
        self.model = released_model(checkout, backbone, shape_name, tuner)
        self.model.train()
        self._optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-3)

    def step(self, batch: TokenRows) -> None:
        """Pads to s and does one step."""
        self._optimizer.zero_grad()
        self.model(**padded(batch, self._length)).loss.backward()
        self._optimizer.step()


class Peft:
    """PEFT in transformers' Trainer with dynamic padding: what a user has today."""

    def __init__(
        self, backbone: str, works: dict[str, Any], steps: int, peft: dict[str, Any] | None, run_dir: str,
        is_grouped: bool = False,
    ) -> None:  # fmt: skip
        """Loads T5 and puts PEFT's method on it.

        Args:
            backbone: T5 folder.
            works: Workload to its `TextWork` as a dictionary.
            steps: Batches a round.
            peft: PEFT's ``kind`` of configuration and its fields; None: full fine-tuning, the Trainer alone.
            run_dir: The Trainer's output folder.
            is_grouped: Whether the Trainer groups by length.
        """
        from transformers import AutoTokenizer, TrainingArguments

        self._tokenizer = AutoTokenizer.from_pretrained(backbone)
        t5 = T5ForConditionalGeneration.from_pretrained(backbone)
        make_resident(t5)
        self._model = t5 if peft is None else _peft_model(t5, **peft)
        batches = {name: TextWork.load(work).batches[:steps] for name, work in works.items()}
        self._rows = {
            name: [
                {"input_ids": ids, "labels": labels}
                for batch in some
                for ids, labels in zip(batch["input_ids"], batch["labels"], strict=True)
            ]
            for name, some in batches.items()
        }
        self._arguments = TrainingArguments(
            output_dir=run_dir,
            per_device_train_batch_size=len(next(iter(self._rows.values()))) // steps,
            max_steps=steps,
            learning_rate=1e-3,
            train_sampling_strategy="group_by_length" if is_grouped else "random",
            use_cpu=not torch.cuda.is_available(),
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )

    def run(self, workload: str) -> dict[str, float]:
        """Trains on every row once; timed from the Trainer's own beginning of training to its end."""
        from transformers import DataCollatorForSeq2Seq, Trainer

        clock = _Clock()
        trainer = Trainer(
            model=self._model,
            args=self._arguments,
            train_dataset=self._rows[workload],
            data_collator=DataCollatorForSeq2Seq(self._tokenizer, model=self._model),
            callbacks=[clock],
        )
        trainer.train()
        return {"rate": len(self._rows[workload]) / clock.seconds}


class Limit(_Loop):
    """The frozen backbone's own forward and backward-through-activations: equal lengths, no padding, no tuner."""

    def __init__(self, backbone: str, works: dict[str, Any], shape_name: str, steps: int) -> None:
        """Loads T5; a batch's length is the mean of its texts', so that the tokens are as many."""
        super().__init__(works, steps)
        self._prompt = shape(shape_name).num_virtual_tokens
        self._model = T5ForConditionalGeneration.from_pretrained(backbone).requires_grad_(False).train()

    def step(self, batch: TokenRows) -> None:
        """Forward and backward from random embeddings."""
        lengths = [len(ids) for ids in batch["input_ids"]]
        total = self._prompt + round(sum(lengths) / len(lengths))
        leaf = torch.randn(len(lengths), total, self._model.config.d_model, requires_grad=True)
        self._model(inputs_embeds=leaf, labels=pad_rows(batch["labels"], IGNORE_INDEX)).loss.backward()


class _Clock(TrainerCallback):
    seconds = 0.0

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self._started = time.perf_counter()

    def on_train_end(self, *_: Any, **__: Any) -> None:
        self.seconds = time.perf_counter() - self._started


def released_model(checkout: str, backbone: str, shape_name: str, tuner: str) -> Any:
    """Returns the released code's model; its vendored ``peft`` hides any other in this process.

    Its base class wants a method that transformers has renamed since; an alias to it is all that is changed.
    """
    kind = shape(shape_name)
    sys.path.insert(0, checkout)
    for name in [name for name in sys.modules if name.partition(".")[0] == "peft"]:
        del sys.modules[name]  # transformers and accelerate import the installed one
    alias = "_prepare_encoder_decoder_kwargs_for_generation"
    if not hasattr(T5ForConditionalGeneration, alias):
        renamed = T5ForConditionalGeneration._prepare_text_encoder_decoder_kwargs_for_generation
        setattr(T5ForConditionalGeneration, alias, renamed)
    import peft

    shared = {"task_type": peft.TaskType.SEQ_2_SEQ_LM, "prompt_tuning_init": "RANDOM", "inference_mode": False}
    if tuner == "dept":
        config = peft.PromptTuningLoRAConfig(
            **shared,
            num_virtual_tokens=kind.num_virtual_tokens,
            r=kind.rank,
            max_length=kind.max_source_length,
        )
    else:
        config = peft.PromptTuningConfig(**shared, num_virtual_tokens=kind.budget_tokens)
    return peft.get_peft_model(T5ForConditionalGeneration.from_pretrained(backbone), config)


def padded(batch: TokenRows, length: int) -> dict[str, Tensor]:
    """Returns ids, mask and labels, every text padded to `length`."""
    ids = pad_rows(batch["input_ids"], 0, length)
    return {"input_ids": ids, "attention_mask": (ids != 0).long(), "labels": pad_rows(batch["labels"], IGNORE_INDEX)}


def make_resident(model: nn.Module) -> None:
    """Reads every weight, so that those mapped from a file count as loaded and not as the work's memory."""
    for parameter in model.parameters():
        parameter.detach().sum()


def _peft_model(t5: T5ForConditionalGeneration, kind: str, **fields: Any) -> nn.Module:
    import peft

    config = getattr(peft, kind)(task_type=peft.TaskType.SEQ_2_SEQ_LM, **fields)
    model: nn.Module = peft.get_peft_model(t5, config)
    return model
