"""Five questions about an image that a vision-language model reads once, beside a model in which every row reads it.

    python -m benchmarks.image_once --backbone FOLDER --questions FILE [--rounds 5] [--only training,answering,curves]

The model is Idefics3's (the first SmolVLM is one), random weights: its language model is of FOLDER's ``config.json``
(SmolLM2-135M's here), and images are `IMAGE_TOKENS` random vectors each, as a cache of what its encoder made would have
them, so that no time goes to an encoder. Questions are of an official VQA v2 file, in its order; every five of them
are taken to be about one image. Turns, ratios and memory are as in `benchmarks.prefix_once`.
"""

from __future__ import annotations

import argparse
import gzip
import json
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from transformers import AutoConfig, AutoTokenizer, Idefics3Config, Idefics3ForConditionalGeneration

from benchmarks.prefix_once import NEW_TOKENS, TUNERS, contest, each, faster, padded, print_table, shown_spread, timed
from benchmarks.speed.workload import pad_rows
from dept_vl.data.collator import IGNORE_INDEX
from dept_vl.data.image_rows import ImageRows, Record
from dept_vl.data.image_template import Template
from dept_vl.data.text_codec import TextCodec
from dept_vl.models.adapted_model import AdaptedModel
from dept_vl.models.build import build_model
from dept_vl.models.config import ModelConfig
from dept_vl.models.language.causal import causal_class
from dept_vl.models.language.idefics3 import IDEFICS3
from dept_vl.models.language.label_trie import LabelTrie
from dept_vl.models.language.vision_language import VisionLanguageBackbone
from dept_vl.settings.load import load_config

SOURCE_TOKENS = 32
IMAGE_TOKENS = 64
ANSWERS = ("yes", "no", "2", "red")
TEMPLATE = Template(
    head="<|im_start|>User:", image="<image>", between="", text_head="<|im_start|>User:", tail="<|im_end|>\nAssistant:"
)
"""SmolVLM's, with the end of a turn that FOLDER's tokenizer has."""


class OnImages:
    """This package on such a model: training, scoring four answers, generating."""

    def __init__(
        self, backbone: str, questions: str, tuner: str, reads_once: bool, steps: int, batch_size: int,
        per_image: int, layers: int | None,
    ) -> None:  # fmt: skip
        """Builds the model, and batches of questions with `per_image` about each image."""
        self.model, codec = adapted(backbone, TUNERS[tuner], reads_once, layers)
        texts = read_questions(questions, steps * batch_size)
        self._labels = codec.target_ids(list(ANSWERS))
        self._batches = [
            sources(self.model, codec, texts[start : start + batch_size], per_image)
            for start in range(0, steps * batch_size, batch_size)
        ]
        self._optimizer = torch.optim.AdamW([p for p in self.model.parameters() if p.requires_grad], lr=1e-3)

    def run(self, workload: str) -> dict[str, float]:
        """Does one round of ``training``, ``scoring`` or ``generating``."""
        work = {"training": self.step, "scoring": self._score, "generating": self._generate}[workload]
        return timed(partial(each, work, self._batches), sum(len(batch[0]) for batch in self._batches))

    def step(self, batch: tuple[Tensor, Tensor, ImageRows]) -> None:
        """Does one step of training."""
        self.model.train()
        self._optimizer.zero_grad()
        ids, mask, images = batch
        labels = pad_rows([self._labels[number % len(ANSWERS)] for number in range(len(ids))], IGNORE_INDEX)
        torch.autograd.backward(self.model(ids, mask, labels, images).loss_per_example.mean())
        self._optimizer.step()

    @cached_property
    def _trie(self) -> LabelTrie:
        return LabelTrie.build(self._labels)

    def _score(self, batch: tuple[Tensor, Tensor, ImageRows]) -> None:
        self.model.score_labels(*batch, labels=self._trie)

    def _generate(self, batch: tuple[Tensor, Tensor, ImageRows]) -> None:
        self.model.generate(*batch, max_new_tokens=NEW_TOKENS)


def adapted(
    backbone: str, tuner: dict[str, Any], reads_once: bool, layers: int | None
) -> tuple[AdaptedModel, TextCodec]:
    """Returns a method on a random Idefics3 with a folder's language model; an image encoder is there for form."""
    torch.manual_seed(0)
    text = AutoConfig.from_pretrained(backbone)
    text.num_hidden_layers = layers or text.num_hidden_layers
    tokenizer = AutoTokenizer.from_pretrained(backbone)
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    settings: dict[str, Any] = {
        "text_config": text.to_dict(), "vision_config": {**vision, "image_size": 32, "patch_size": 16},
        "scale_factor": 2, "image_token_id": text.vocab_size - 1, "tie_word_embeddings": True,
        "pad_token_id": tokenizer.pad_token_id,
    }  # fmt: skip
    model = Idefics3ForConditionalGeneration(Idefics3Config(**settings)).float().requires_grad_(False)
    family = replace(IDEFICS3, own_template=TEMPLATE)
    # Never an end of sequence, so that every answer has as many tokens.
    frozen = causal_class(family, VisionLanguageBackbone)(model, {"pad_token_id": tokenizer.pad_token_id})
    frozen.reads_once = reads_once
    chosen = load_config(None, {f"tuner.{key}": value for key, value in tuner.items()}).tuner
    return build_model(
        ModelConfig(), chosen, max_source_length=SOURCE_TOKENS, feature_dim=None, seed=0, backbone=(frozen, tokenizer)
    )


def read_questions(file: str, number: int) -> list[str]:
    """Returns the first questions of an official file, gzipped or not."""
    content = Path(file).read_bytes()
    content = gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
    return [one["question"] for one in json.loads(content)["questions"][:number]]


def sources(
    model: AdaptedModel, codec: TextCodec, questions: Sequence[str], per_image: int
) -> tuple[Tensor, Tensor, ImageRows]:
    """Returns ids, mask and images of questions of which so many in a row are about one image."""
    generator = torch.Generator().manual_seed(0)
    size = (IMAGE_TOKENS, model.backbone.d_model)
    scale = float(model.backbone.word_embeddings.std())
    ids = torch.full((IMAGE_TOKENS,), cast(VisionLanguageBackbone, model.backbone).image_token_id)
    records = [Record(ids, torch.randn(size, generator=generator) * scale) for _ in range(0, len(questions), per_image)]
    images = ImageRows.one_each([records[row // per_image] for row in range(len(questions))])
    return (*padded(codec.source_ids(list(questions), SOURCE_TOKENS)), images)


def measure(workload: str, rounds: int, tuners: Sequence[str], given: dict[str, Any]) -> None:
    """Prints the contestants of one workload, and the ratios."""
    jobs = {
        f"{name}, {'once' if once else 'each row'}": (
            "benchmarks.image_once:OnImages", {**given, "tuner": name, "reads_once": once},
        )
        for name in tuners
        for once in (True, False)
    }  # fmt: skip
    pairs = [(f"{name}, once", f"{name}, each row") for name in tuners]
    pairs += [(f"{tuners[0]}, once", f"{name}, {how}") for name in tuners[1:] for how in ("once", "each row")]
    print(f"\n{workload}, batch {given['batch_size']}, {given['per_image']} questions an image, {rounds} rounds")
    print_table(contest(jobs, workload, rounds), pairs)


PER_IMAGE = (1, 2, 3, 5, 8, 16, 32)
"""Questions an image of the curve."""


def curve(backbone: str, questions: str, rounds: int, batch_size: int, layers: int | None) -> None:
    """Prints how many times as fast DePT is, in processor time, beside the count of tokens."""
    models = {}
    for once in (True, False):
        models[once], codec = adapted(backbone, TUNERS["DePT m = 40"], once, layers)
    labels = codec.target_ids(list(ANSWERS))
    before = len(codec.frame.head) + models[True].tuner.num_virtual_tokens
    print("\n| questions an image | images | tokens each row / once | training | scoring |")
    for per_image in PER_IMAGE:
        batch = sources(models[True], codec, read_questions(questions, batch_size), per_image)
        images = len({id(image) for image in batch[2]})
        own = batch[0].shape[1] + len(codec.frame.tail) + max(map(len, labels)) - 1
        read = before + images * IMAGE_TOKENS + batch_size * own
        tokens = batch_size * (before + IMAGE_TOKENS + own) / read
        shown = [shown_spread(faster(models, batch, labels, is_training, rounds)) for is_training in (True, False)]
        print(f"| {per_image} | {images} | {tokens:.2f} | {' | '.join(shown)} |", flush=True)


def main(arguments: list[str] | None = None) -> None:
    """Measures what was asked for and prints tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.image_once", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--backbone", required=True, metavar="FOLDER")
    parser.add_argument("--questions", required=True, metavar="FILE")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="default: 5")
    parser.add_argument("--steps", type=int, default=1, metavar="N", help="batches a round; default: 1")
    parser.add_argument("--batch-size", type=int, default=32, metavar="N", help="default: 32")
    parser.add_argument("--per-image", type=int, default=5, metavar="N", help="questions an image; default: 5")
    parser.add_argument("--layers", type=int, metavar="N", help="blocks; default: all")
    parser.add_argument("--tuners", nargs="+", default=list(TUNERS), choices=list(TUNERS), help="default: all")
    parser.add_argument("--only", default="training,answering,curves", metavar="NAME,...")
    options = parser.parse_args(arguments)
    names = ("backbone", "questions", "steps", "batch_size", "per_image", "layers")
    wanted = options.only.split(",")
    for workload in ("training", *(("scoring", "generating") if "answering" in wanted else ())):
        if workload != "training" or "training" in wanted:
            measure(workload, options.rounds, options.tuners, {name: getattr(options, name) for name in names})
    if "curves" in wanted:
        curve(options.backbone, options.questions, options.rounds, options.batch_size, options.layers)


if __name__ == "__main__":
    main()
