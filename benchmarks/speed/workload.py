"""The work every contestant is given: texts as long as GLUE's, and T5 of a published shape with random weights."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoTokenizer, PreTrainedTokenizerBase, T5Config, T5ForConditionalGeneration

from dept_vl.data.manifest import SplitInfo, manifest_schema, write_split
from dept_vl.data.sampler import POOL_BATCHES, StepBatches
from dept_vl.data.text_codec import TextCodec
from dept_vl.models.language.published_shapes import published_config
from dept_vl.settings.load import config_from_tree
from dept_vl.settings.schema import TrainConfig
from dept_vl.system.atomic import write_json

TASK = "cola"
"""The text task whose rows carry the texts: one column, two labels. What differs between data sets is the lengths."""

_PREFIX = "sentence:"
EVALUATED_BATCHES = 8
"""Of the test split, sorted by length: with few, one batch would hold lengths that a real split's never does."""

_SEEDS = 300
_BATCHES = "batches.json"


@dataclass(frozen=True)
class Shape:
    """A backbone's shape and a tuner that fits it: budget l = 100 tokens, m = 40, rank solved exactly at s = 256.

    Attributes:
        config: Of the T5.
        num_virtual_tokens: m.
        max_source_length: s.
        budget_tokens: l.
    """

    config: T5Config
    num_virtual_tokens: int = 40
    max_source_length: int = 256
    budget_tokens: int = 100

    @property
    def rank(self) -> int:
        """The r that l, m and s leave: (l - m) d / (s + d)."""
        d = self.config.d_model
        return (self.budget_tokens - self.num_virtual_tokens) * d // (self.max_source_length + d)


def shape(name: str) -> Shape:
    """Returns ``tiny`` (for trying out), or the published T5 ``small``, ``base`` or ``large``."""
    if name == "tiny":
        sizes = {"vocab_size": 32128, "d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 2, "num_heads": 4}
        return Shape(T5Config.from_dict({**sizes, "decoder_start_token_id": 0}))
    config = published_config(f"t5-{name}")
    assert isinstance(config, T5Config)
    return Shape(config)


def glue_lengths(data_set: str) -> np.ndarray:
    """Returns the source length in tokens of every train row of ``cola``, ``sst2`` or ``mrpc``, ascending."""
    text = resources.files("benchmarks.speed").joinpath("glue_lengths.json").read_text(encoding="utf-8")
    counts = {int(length): rows for length, rows in json.loads(text)[data_set].items()}
    return np.repeat(sorted(counts), [counts[length] for length in sorted(counts)])


def write_backbone(folder: Path, kind: Shape, seed: int = 0) -> Path:
    """Saves a T5 of random weights with the demo's tokenizer, to which the template's one word is added."""
    torch.manual_seed(seed)
    T5ForConditionalGeneration(kind.config).save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(str(resources.files("dept_vl").joinpath("assets", "demo", "t5")))
    tokenizer.add_tokens([_PREFIX])
    tokenizer.save_pretrained(str(folder))
    return folder


TokenRows = dict[str, list[list[int]]]
"""``input_ids`` and ``labels`` of some rows."""


@dataclass(frozen=True)
class TextWork:
    """Prepared text data, and the very batches a training contestant is given.

    Attributes:
        data_dir: Prepared splits of `TASK`.
        seed: The run seed whose first batches are as long and as varied as the whole data set.
        batches: For each step the rows' ``input_ids`` and ``labels``, as this package's batches hold them.
    """

    data_dir: Path
    seed: int
    batches: list[TokenRows]

    @property
    def mean_length(self) -> float:
        """Mean source length of the batches' rows, tokens."""
        return float(np.mean([len(ids) for batch in self.batches for ids in batch["input_ids"]]))

    def save(self) -> dict[str, Any]:
        """Returns what `load` takes in another process; the batches go to a file in the data folder."""
        write_json(self.data_dir / _BATCHES, self.batches, indent=None)
        return {"data_dir": str(self.data_dir), "seed": self.seed}

    @classmethod
    def load(cls, saved: dict[str, Any]) -> TextWork:
        """Reads what `save` wrote."""
        data_dir = Path(saved["data_dir"])
        return cls(data_dir, saved["seed"], json.loads((data_dir / _BATCHES).read_text(encoding="utf-8")))


def write_text_work(data_dir: Path, backbone: Path, lengths: np.ndarray, *, batch_size: int, steps: int) -> TextWork:
    """Writes train and val splits whose texts have `lengths`, and picks the batches.

    Train has as many rows as the length-grouping sampler sorts together, spread evenly over the quantiles of
    `lengths`. A round of few steps sees few of its batches; the seed is chosen so that their lengths have the mean and
    the deviation of the whole.

    Args:
        data_dir: New folder.
        backbone: From `write_backbone`.
        lengths: Source lengths, ascending.
        batch_size: Rows a step.
        steps: Steps a round.
    """
    tokenizer = AutoTokenizer.from_pretrained(str(backbone))
    wanted = _quantiles(lengths, POOL_BATCHES * batch_size)
    texts = make_texts(tokenizer, wanted, seed=0)
    labels = [str(index % 2) for index in range(len(texts))]
    folder = data_dir / f"{TASK}.fixed"
    folder.mkdir(parents=True)
    schema = manifest_schema(images=False, text_columns=("sentence",))
    for split, size in (("train", len(texts)), ("val", 2), ("test", min(len(texts), EVALUATED_BATCHES * batch_size))):
        picked = np.linspace(0, len(texts) - 1, size).astype(int) if split != "train" else np.arange(size)
        rows = [_row(int(number), texts[number], labels[number]) for number in picked]
        write_split(folder, SplitInfo(TASK, split, protocol="fixed"), schema, rows)
    codec = TextCodec(tokenizer)
    source_ids = codec.source_ids([f"{_PREFIX} {text}" for text in texts], int(wanted.max()))
    target_ids = codec.target_ids(labels)
    found = np.array([len(ids) for ids in source_ids])
    seed = _representative_seed(found, batch_size, steps)
    picks = StepBatches(np.arange(len(texts)), batch_size, seed, lambda rows: found[list(rows)].tolist())
    batches = [
        {"input_ids": [source_ids[row] for row in rows], "labels": [target_ids[row] for row in rows]}
        for rows in (picks.rows(step) for step in range(steps))
    ]
    return TextWork(data_dir, seed, batches)


def write_colour_work(data_dir: Path, rows: int = 2_000) -> None:
    """Writes splits a small model can learn: the label is 1 for texts with "red" in them, 0 for those with "blue"."""
    tokenizer = AutoTokenizer.from_pretrained(str(resources.files("dept_vl").joinpath("assets", "demo", "t5")))
    words = [word for word in _one_token_words(tokenizer) if word not in ("red", "blue")][:50]
    rng = np.random.default_rng(0)
    folder = data_dir / f"{TASK}.fixed"
    folder.mkdir(parents=True)
    schema = manifest_schema(images=False, text_columns=("sentence",))
    for split, size in (("train", rows), ("val", 64), ("test", 256)):
        labels = rng.integers(0, 2, size).tolist()
        texts = [[*rng.choice(words, rng.integers(1, 6)), ("blue", "red")[label]] for label in labels]
        sentences = [" ".join(rng.permutation(text)) for text in texts]
        info = SplitInfo(TASK, split, protocol="fixed")
        write_split(
            folder,
            info,
            schema,
            [_row(n, *pair) for n, pair in enumerate(zip(sentences, map(str, labels), strict=True))],
        )


def make_texts(tokenizer: PreTrainedTokenizerBase, lengths: Sequence[int] | np.ndarray, seed: int) -> list[str]:
    """Returns texts that have `lengths` tokens with the template before and the end of sequence after them."""
    words = _one_token_words(tokenizer)
    extra = len(tokenizer(_PREFIX)["input_ids"])  # the template and the end of sequence
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(words, size=max(1, int(length) - extra))) for length in lengths]


def train_config(
    backbone: str, work: TextWork, kind: Shape, output_dir: str, steps: int, **settings: Any
) -> TrainConfig:
    """Returns the settings of a run over the batches of `work`, DePT by default.

    Args:
        backbone: Folder.
        work: The text data.
        kind: Shape of backbone and tuner.
        output_dir: Run folder.
        steps: Optimiser steps.
        settings: Whole groups that replace or extend the defaults: ``data``, ``tuner``, ``model``, ``loop``.
    """
    batch_size = len(work.batches[0]["input_ids"])
    dept = {"name": "dept", "budget_tokens": kind.budget_tokens, "num_virtual_tokens": kind.num_virtual_tokens}
    every = dict.fromkeys(("max_steps", "eval_every_steps", "save_every_steps", "log_every_steps"), steps)
    return config_from_tree(
        {
            "task": TASK,
            "seed": work.seed,
            "output_dir": output_dir,
            "tuner": settings.get("tuner", {**dept, "rank": kind.rank}),
            "model": {"backbone": backbone, **settings.get("model", {})},
            "data": {
                "dir": str(work.data_dir),
                "batch_size": batch_size,
                "eval_batch_size": batch_size,
                "max_source_length": kind.max_source_length,
                **settings.get("data", {}),
            },
            "loop": {**every, **settings.get("loop", {})},
        }
    )


def pad_rows(rows: Sequence[Sequence[int]], value: int, length: int | None = None) -> torch.Tensor:
    """Returns rows padded on the right to `length`, or to the longest: (rows, length) int64."""
    longest = length or max(map(len, rows))
    return torch.tensor([[*row, *[value] * (longest - len(row))] for row in rows])


def _quantiles(lengths: np.ndarray, count: int) -> np.ndarray:
    return lengths[((np.arange(count) + 0.5) / count * len(lengths)).astype(int)]


def _row(number: int, text: str, label: str) -> dict[str, Any]:
    return {
        "example_id": number,
        "sentence": text,
        "targets": [label],
        "target_weights": [1.0],
        "references": [label],
    }


def _one_token_words(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    marked = sorted(word[1:] for word in tokenizer.get_vocab() if word.startswith("▁") and word[1:].isalpha())
    ids = tokenizer(marked)["input_ids"]
    return [word for word, one in zip(marked, ids, strict=True) if len(one) == 2]


def _representative_seed(lengths: np.ndarray, batch_size: int, steps: int) -> int:
    """Returns the seed whose first `steps` batches come closest to the mean and deviation of all lengths."""

    def distance(seed: int) -> float:
        batches = StepBatches(np.arange(len(lengths)), batch_size, seed, lambda rows: lengths[list(rows)].tolist())
        seen = lengths[np.concatenate([batches.rows(step) for step in range(steps)])]
        return abs(seen.mean() / lengths.mean() - 1) + 0.5 * abs(seen.std() / lengths.std() - 1)

    return min(range(_SEEDS), key=distance)
