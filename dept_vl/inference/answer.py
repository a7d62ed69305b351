"""A model and a split to one prediction a row, shared over processes, each row counted once."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from accelerate.utils import gather_object
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader

from dept_vl.data.collator import IGNORE_INDEX, Batch
from dept_vl.data.dataset import TaskDataset
from dept_vl.data.image_rows import VisualFeatures
from dept_vl.data.sampler import BatchRequest, evaluation_requests
from dept_vl.data.text_codec import TextCodec
from dept_vl.models.adapted_model import AdaptedModel
from dept_vl.models.language.answer_probability import TokenProbabilities
from dept_vl.models.language.joint import JointInput
from dept_vl.models.language.label_trie import LabelTrie
from dept_vl.models.language.likeliest import likeliest
from dept_vl.models.language.vision_language import VisionLanguageBackbone
from dept_vl.models.loss import loss_per_example
from dept_vl.runs.decoding import Decoding
from dept_vl.runs.visual_input import VisualInput
from dept_vl.system import signals
from dept_vl.system.loading import read_loaded
from dept_vl.system.processes import agree_on_largest, process_state
from dept_vl.system.progress import Meter


@dataclass(frozen=True)
class Likely:
    """One of the likeliest answers to an example.

    Attributes:
        text: It.
        probability: 0 to 1. Of a label its share among all labels, which sum to 1; of a generated text how probable it
            is that the model writes this and ends.
        is_cut: Whether it was ended by the number of tokens: the probability is that of an answer which begins so.
    """

    text: str
    probability: float
    is_cut: bool = False


@dataclass(frozen=True)
class Answer:
    """The answer to one example.

    Attributes:
        text: It.
        log_likelihoods: The labels', in nats, when it was scored.
        loss: Mean cross-entropy over the tokens of the target that the batch carries, in nats; None without one.
        num_tokens: Tokens of it, the end of sequence included where it was generated; None where it was scored.
        is_cut: Whether it was ended by a number of tokens, before its end of sequence.
        likeliest: The likeliest answers that were found, likeliest first, this one among them; empty where they were
            not asked for.
        log_probability: Of the tokens of a greedy answer, in nats; None where it was scored or searched by beams.
    """

    text: str
    log_likelihoods: dict[str, float] | None = None
    loss: float | None = None
    num_tokens: int | None = None
    is_cut: bool = False
    likeliest: tuple[Likely, ...] = ()
    log_probability: float | None = None

    @property
    def confidence(self) -> float | None:
        """Probability of the label, or of the tokens of a greedy answer, 0 to 1; None of an answer of beams.

        The end of sequence counts where the answer has one. It is not normalised by length: the product over tokens.
        """
        known = self.log_probability if self.log_likelihoods is None else self.log_likelihoods[self.text]
        return None if known is None else math.exp(known)


@dataclass(frozen=True)
class SplitAnswers:
    """What a model makes of the rows of a split.

    Attributes:
        predictions: One a row, in row order; ``""`` for rows whose image could not be read.
        loss: The validation loss, in nats a token: the mean, over the rows that have a target and whose image could be
            read, of the row's own mean over the tokens of its heaviest target (the first of equals), by teacher
            forcing and without dropout. So it is a function of the model alone, and not of seed or step. None without
            such a row, or where the data set carries no targets.
        confidences: Probability of each prediction, 0 to 1 (`Answer.confidence`); 0 for rows whose image could not be
            read. None where answers are searched by beams.
    """

    predictions: list[str]
    loss: float | None
    confidences: list[float] | None = None


_Kept = tuple[int, str, float | None, float | None]
"""Of a row its number, text, loss and confidence."""


class Answerer:
    """Answers batches in one way.

    Attributes:
        model: The model.
        decoding: The way.
    """

    def __init__(
        self,
        model: AdaptedModel,
        codec: TextCodec,
        visual: VisualInput | None,
        decoding: Decoding,
        task_id: int | None = None,
    ) -> None:
        """Packs the labels, on the model's device.

        Args:
            model: The model.
            codec: Makes texts of its token ids.
            visual: Of the batches; None where they have no images.
            decoding: The way.
            task_id: The task of every example, of a model of several tasks.

        Raises:
            ConfigError: The labels cannot be scored (``TextCodec.label_ids``).
        """
        self.model = model
        self.decoding = decoding
        self._task_id = task_id
        self._codec = codec
        self._visual = visual
        self._trie: LabelTrie | None = None
        if decoding.method == "score":
            ids = codec.label_ids(decoding.labels, decoding.max_new_tokens)
            self._trie = LabelTrie.build(ids, model.backbone.word_embeddings.device)

    @torch.no_grad()
    def answer(self, batch: Batch) -> list[Answer]:
        """Returns the answer to every example of a batch on the model's device, and the loss of its target."""
        with self.autocast(), self.model.answering(*self._inputs(batch)) as joint:
            losses = self._losses(joint, batch.labels)
            answers = self.answer_joint(joint)
        return [replace(answer, loss=loss) for answer, loss in zip(answers, losses, strict=True)]

    @torch.no_grad()
    def answer_joint(self, joint: JointInput, max_tokens: Sequence[int | None] | None = None) -> list[Answer]:
        """Returns the answer to every row of a joint input of this model's backbone, inside `autocast`.

        Args:
            joint: What the backbone reads, of this model or of several on one backbone.
            max_tokens: Of each row how many tokens its answer may have, its end of sequence included, as only greedy
                ones can be cut; None for those of the decoding. A row that is cut says what the whole answer begins
                with.
        """
        decoding, backbone = self.decoding, self.model.backbone
        if self._trie is not None:
            scores = self._trie.log_likelihoods(backbone.trie_logits(joint, self._trie)).tolist()
            each = [dict(zip(decoding.labels, row, strict=True)) for row in scores]
            return [Answer(max(found, key=found.__getitem__), found) for found in each]
        most = decoding.max_new_tokens
        limits = [most if one is None else min(one, most) for one in max_tokens or [None] * len(joint.inputs_embeds)]
        sure = TokenProbabilities() if decoding.num_beams == 1 else None
        tokens = backbone.generate(joint, num_beams=decoding.num_beams, max_new_tokens=max(limits), observer=sure)
        for row, limit in zip(tokens, limits, strict=True):
            row[limit:] = self._codec.pad_token_id
        counts = [self._count(row[:limit]) for row, limit in zip(tokens.tolist(), limits, strict=True)]
        probable: Sequence[float | None] = sure.of_answers([n for n, _ in counts]) if sure else [None] * len(counts)
        return [
            Answer(text, num_tokens=n, is_cut=cut, log_probability=log_probability)
            for text, (n, cut), log_probability in zip(self._codec.decode(tokens), counts, probable, strict=True)
        ]

    @torch.no_grad()
    def with_likeliest(self, joint: JointInput, answers: Sequence[Answer], number: int) -> list[Answer]:
        """Returns answers with the likeliest ones of their rows, inside `autocast`.

        Of labels all are known. Generated ones are those that a beam search finds
        (`dept_vl.models.language.likeliest`); different tokens of the same text count together; and an answer that was
        made otherwise, greedily say, and is not among them is one more.

        Args:
            joint: What was answered.
            answers: From `answer_joint`.
            number: How many a row, from 2 on.
        """
        if self._trie is not None:
            return [replace(one, likeliest=_of_labels(one.log_likelihoods or {}, number)) for one in answers]
        backbone, longest = self.model.backbone, self.decoding.max_new_tokens
        ids, scores = likeliest(backbone, joint, number=number, max_new_tokens=longest)
        found = [self._found(row, logs) for row, logs in zip(ids, scores.float().exp().tolist(), strict=True)]
        if any(one.text not in likely for one, likely in zip(answers, found, strict=True)):
            shares = self._shares(joint, [one.text for one in answers])
            for one, likely, share in zip(answers, found, shares, strict=True):
                likely.setdefault(one.text, Likely(one.text, share, one.is_cut))
        ranked = [sorted(likely.values(), key=lambda one: -one.probability) for likely in found]
        return [replace(one, likeliest=tuple(likely)) for one, likely in zip(answers, ranked, strict=True)]

    def _found(self, ids: Tensor, probabilities: Sequence[float]) -> dict[str, Likely]:
        """Returns the answers of one row, (number, new tokens), by their text."""
        found: dict[str, Likely] = {}
        for row, text, probability in zip(ids.tolist(), self._codec.decode(ids), probabilities, strict=True):
            before = found[text].probability if text in found else 0.0
            found[text] = Likely(text, before + probability, self._count(row)[1])
        return found

    def _shares(self, joint: JointInput, texts: Sequence[str]) -> list[float]:
        """Returns the probability of a text as the answer to each row, its end of sequence included, 0 to 1."""
        ids = self._codec.target_ids(texts, self.decoding.max_new_tokens)
        labels = pad_sequence([torch.tensor(row) for row in ids], batch_first=True, padding_value=IGNORE_INDEX)
        labels = labels.to(joint.inputs_embeds.device)  # (batch, target)
        losses = loss_per_example(self.model.backbone.logits(joint, labels), labels)
        return [math.exp(-loss * len(row)) for loss, row in zip(losses.tolist(), ids, strict=True)]

    def _count(self, ids: list[int]) -> tuple[int, bool]:
        """Returns how many tokens an answer has, its end of sequence included, and whether it has no such end."""
        end = self._codec.tokenizer.eos_token_id
        return (ids.index(end) + 1, False) if end in ids else (len(ids), True)

    def _losses(self, joint: JointInput, labels: Tensor) -> list[float | None]:
        """Returns the loss of each example's target; None for one without."""
        if labels.shape[1] == 0:
            return [None] * len(labels)
        losses = loss_per_example(self.model.backbone.logits(joint, labels), labels).tolist()
        has_target = (labels != IGNORE_INDEX).any(dim=1).tolist()
        return [loss if has else None for loss, has in zip(losses, has_target, strict=True)]

    @torch.no_grad()
    def confidences(self, batch: Batch, texts: Sequence[str]) -> list[float]:
        """Returns the probability of a text as the answer to each example, its end of sequence included, 0 to 1."""
        inputs = self._inputs(batch)
        shares = []
        for row, ids in enumerate(self._codec.target_ids(texts, self.decoding.max_new_tokens)):
            one: list[Any] = [None if side is None else side[row : row + 1] for side in inputs]
            trie = LabelTrie.build([ids], batch.input_ids.device)
            with self.autocast():
                scores = self.model.score_labels(*one, labels=trie)
            shares.append(math.exp(scores.item()))
        return shares

    @torch.no_grad()
    def embed(self, batch: Batch) -> Tensor:
        """Returns one vector for each example, (batch, d_model) float32 (`AdaptedModel.embed`)."""
        inputs = self._inputs(batch)
        with self.autocast():
            return self.model.embed(*inputs)

    def _inputs(self, batch: Batch) -> tuple[Tensor, Tensor, VisualFeatures | None, Tensor | None]:
        features = self._visual.features(batch) if self._visual else None
        task_ids = None
        if self._task_id is not None:
            task_ids = torch.full((len(batch.input_ids),), self._task_id, device=batch.input_ids.device)
        return batch.input_ids, batch.attention_mask, features, task_ids

    def autocast(self) -> torch.autocast:
        """Returns the precision that the model answers in, for a ``with`` block."""
        is_bf16 = self.decoding.precision == "bf16"
        device = self.model.backbone.word_embeddings.device
        return torch.autocast(device.type, dtype=torch.bfloat16, enabled=is_bf16)


def _of_labels(log_likelihoods: dict[str, float], number: int) -> tuple[Likely, ...]:
    """Returns the likeliest labels, each with its share among all."""
    labels = sorted(log_likelihoods, key=log_likelihoods.__getitem__, reverse=True)
    total = np.logaddexp.reduce(list(log_likelihoods.values()))
    return tuple(Likely(one, math.exp(log_likelihoods[one] - total)) for one in labels[:number])


def answer_split(
    answerer: Answerer,
    dataset: TaskDataset,
    *,
    batch_size: int,
    num_workers: int = 0,
    limit: int | None = None,
) -> SplitAnswers:
    """Returns one prediction a row, and the mean loss of the rows' targets if the data set carries them.

    Args:
        answerer: Its model is left in the mode it was in.
        dataset: A split opened for evaluation.
        batch_size: Rows a process and forward.
        num_workers: Loader processes.
        limit: Only the first so many rows.

    Raises:
        StoppedError: On every process, if one was asked to stop while signals are deferred.
    """
    state, model = process_state(), answerer.model
    num_rows = min(limit or len(dataset), len(dataset))
    rows = dataset.indices[dataset.indices < num_rows]
    reads_images = isinstance(model.backbone, VisionLanguageBackbone)  # once for all rows of a batch that have them
    requests = evaluation_requests(
        rows,
        dataset.source_lengths(rows.tolist()),
        batch_size,
        images=dataset.image_keys(rows.tolist()) if reads_images else None,
        process_index=state.process_index,
        num_processes=state.num_processes,
    )
    loader: Iterable[tuple[BatchRequest, Batch]] = DataLoader(
        dataset,
        batch_size=None,
        sampler=_as_many_everywhere(requests, rows),
        num_workers=num_workers,
        worker_init_fn=signals.worker_init(),
    )
    mine: list[_Kept] = []
    was_training = model.training
    model.eval()
    with Meter(len(rows), "predict", "rows", is_shown=state.is_main_process, stays=False) as meter:
        for request, batch in read_loaded(loader):
            (asked_to_stop,) = agree_on_largest([signals.requested() or 0])
            if asked_to_stop:
                break
            answers = answerer.answer(batch.to(state.device))
            for row, answer in zip(request.indices, answers, strict=True):
                mine.append((row, answer.text, answer.loss, answer.confidence))
            meter.add(len(answers) * state.num_processes)
    model.train(was_training)
    gathered: list[tuple[int, list[_Kept]]] = gather_object([(signals.requested() or 0, mine)])
    asked_to_stop = max(number for number, _ in gathered)
    if asked_to_stop:
        raise signals.StoppedError(asked_to_stop)
    by_row = {kept[0]: kept for _, answered in gathered for kept in answered}
    losses = [loss for _, _, loss, _ in by_row.values() if loss is not None]
    every = [by_row.get(row, (row, "", None, 0.0)) for row in range(num_rows)]
    sure = [confidence for *_, confidence in every if confidence is not None]
    return SplitAnswers(
        [text for _, text, _, _ in every], math.fsum(losses) / len(losses) if losses else None,
        sure if by_row and len(sure) == num_rows else None,
    )  # fmt: skip


def _as_many_everywhere(requests: list[BatchRequest], rows: np.ndarray) -> list[BatchRequest]:
    """Returns as many batches as the process with most has, the last one again, or one row.

    All processes must run the model equally often: a sharded backbone is gathered from all of them whenever one runs
    it. Answers are kept by row, so one that is given twice counts once.
    """
    (most,) = agree_on_largest([len(requests)])
    if len(requests) == most:
        return requests
    filler = requests[-1] if requests else BatchRequest(0, (int(rows[0]),), is_last_of_step=True, global_rows=len(rows))
    return requests + [filler] * (most - len(requests))


def agreement(scored: Sequence[str], generated: Sequence[str], codec: TextCodec, labels: Sequence[str]) -> float:
    """Returns the share of rows, 0 to 1, whose generated text is the scored label as the tokenizer writes it."""
    written = dict(zip(labels, (codec.decode(torch.tensor([ids]))[0] for ids in codec.target_ids(labels)), strict=True))
    same = sum(written.get(label, label) == text for label, text in zip(scored, generated, strict=True))
    return same / len(scored)
