"""Batches for the demo T5's text-only training: questions and captions about described scenes, and span corruption."""

from __future__ import annotations

import functools
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from data_prep.demo_models.descriptions import BagListKind, describe_in_bags, describe_in_sentences
from data_prep.demo_models.tokenizer import EOS_ID, NUM_SENTINELS, PAD_ID
from data_prep.demo_world.questions import draw_captions, draw_questions
from data_prep.demo_world.scene import Scene, Split, draw_scene

IGNORE_INDEX = -100
VQA_PREFIX = "vqa: "
CAPTION_PREFIX = "caption:"

TaskKind = Literal["vqa", "caption", "spans"]

_SPAN_SHARE, _MEAN_SPAN = 0.2, 3  # of a text's tokens that are hidden, and tokens per hidden span


@dataclass(frozen=True)
class TextBatch:
    """One batch of text.

    Attributes:
        input_ids: The text, (batch, text), right-padded with `PAD_ID`.
        bag_ids: The bag list that follows it, (batch, bags, words), padded with `PAD_ID`; None for plain text.
        number_ids: The word that numbers each bag, (batch, bags); None for bags without numbers.
        labels: The target, (batch, target), padded with `IGNORE_INDEX`.
        targets: The targets as text.
    """

    input_ids: Tensor
    bag_ids: Tensor | None
    number_ids: Tensor | None
    labels: Tensor
    targets: list[str]


class TextTasks:
    """Draws batches from scenes of one split. Deterministic by seed."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, split: Split, seed: int) -> None:
        self._tokenizer = tokenizer
        self._split: Split = split
        self._rng = random.Random(seed)
        self._word_id = functools.cache(self._encode_word)

    def _encode_word(self, word: str) -> int:
        ids = self._tokenizer(word, add_special_tokens=False)["input_ids"]
        assert len(ids) == 1, f"{word!r} must be one piece of the demo tokenizer, is {ids}"
        return int(ids[0])

    def draw(self, task: TaskKind, kind: BagListKind | Literal["sentences"], batch_size: int) -> TextBatch:
        """Draws a batch of `task` on scenes described as `kind`; span corruption ignores `kind`."""
        rng = self._rng
        scenes = [draw_scene(rng, self._split) for _ in range(batch_size)]
        if task == "spans":
            return self._draw_spans(scenes)
        if task == "vqa":
            questions = [draw_questions(scene, 1, rng)[0] for scene in scenes]
            sources = [VQA_PREFIX + question.text for question in questions]
            targets = [question.answer for question in questions]
        else:
            sources = [CAPTION_PREFIX] * batch_size
            targets = [rng.choice(draw_captions(scene, rng)).lower() for scene in scenes]
        bag_ids = number_ids = None
        has_end = True
        if kind == "sentences":
            sources = [f"{s} {describe_in_sentences(scene, rng)}" for s, scene in zip(sources, scenes, strict=True)]
        else:
            bag_ids = self._bag_tensor([describe_in_bags(scene, kind, rng) for scene in scenes])
            if kind == "numbered":
                number_ids = self._numbers(bag_ids.shape[1]).expand(batch_size, -1)
            has_end = rng.random() < 0.6  # the text before a bag list ends with </s>, or not
        ids = self._tokenizer(sources, add_special_tokens=has_end)["input_ids"]
        labels = self._tokenizer(targets)["input_ids"]
        return TextBatch(_padded(ids, PAD_ID), bag_ids, number_ids, _padded(labels, IGNORE_INDEX), targets)

    def _numbers(self, count: int) -> Tensor:
        """The ids that number a list, (count,): the last rows of the vocabulary backwards, which are T5's sentinels.

        VL-T5's order embedding takes the same rows for its visual tokens (``src/modeling_t5.py VisualEmbedding``).
        """
        return len(self._tokenizer) - 1 - torch.arange(count)

    def _bag_tensor(self, bag_lists: Sequence[Sequence[Sequence[str]]]) -> Tensor:
        num_bags = max(len(bags) for bags in bag_lists)
        num_words = max(len(bag) for bags in bag_lists for bag in bags)
        rows = [
            [[self._word_id(w) for w in bag] + [PAD_ID] * (num_words - len(bag)) for bag in bags]
            + [[PAD_ID] * num_words] * (num_bags - len(bags))
            for bags in bag_lists
        ]
        return torch.tensor(rows)

    def _draw_spans(self, scenes: Sequence[Scene]) -> TextBatch:
        rng = self._rng
        texts = [
            describe_in_sentences(scene, rng) if rng.random() < 0.5 else rng.choice(draw_captions(scene, rng))
            for scene in scenes
        ]
        first_sentinel = len(self._tokenizer) - NUM_SENTINELS
        pairs = [corrupt_spans(ids, first_sentinel, rng) for ids in self._encoded(texts)]
        sources, targets = zip(*pairs, strict=True)
        return TextBatch(_padded(sources, PAD_ID), None, None, _padded(targets, IGNORE_INDEX), texts)

    def _encoded(self, texts: list[str]) -> list[list[int]]:
        ids: list[list[int]] = self._tokenizer(texts, add_special_tokens=False)["input_ids"]
        return ids


def corrupt_spans(ids: Sequence[int], first_sentinel: int, rng: random.Random) -> tuple[list[int], list[int]]:
    """T5's denoising objective (Raffel et al., section 3.1.4): spans become sentinels, which the target spells out.

    Args:
        ids: The text's tokens, without ``</s>``.
        first_sentinel: Id of ``<extra_id_0>``; the following sentinels have the following ids.
        rng: Chooses the spans.

    Returns:
        The source and the target, both ending in ``</s>``.
    """
    num_spans = max(1, round(len(ids) * _SPAN_SHARE / _MEAN_SPAN))
    hidden: set[int] = set()
    for _ in range(num_spans):
        start = rng.randrange(len(ids))
        hidden.update(range(start, min(len(ids), start + rng.randint(1, 2 * _MEAN_SPAN - 1))))
    source: list[int] = []
    target: list[int] = []
    sentinel = first_sentinel
    for index, token in enumerate(ids):
        if index not in hidden:
            source.append(token)
            continue
        if index - 1 not in hidden:
            source.append(sentinel)
            target.append(sentinel)
            sentinel += 1
        target.append(token)
    return [*source, EOS_ID], [*target, EOS_ID]


def _padded(rows: Sequence[Sequence[int]], value: int) -> Tensor:
    length = max(len(row) for row in rows)
    return torch.tensor([list(row) + [value] * (length - len(row)) for row in rows])
