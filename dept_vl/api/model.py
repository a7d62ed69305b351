"""A trained run as an object that answers."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from dept_vl.api.inputs import from_values, make_asked, read_many, taken
from dept_vl.api.recorded_run import read_run
from dept_vl.data.collator import Batch
from dept_vl.errors import ConfigError, first_line
from dept_vl.inference.answer import Answerer
from dept_vl.inference.asked import ask
from dept_vl.models.adapter.files import check_equal, read_adapter_config
from dept_vl.runs.hub import push_run
from dept_vl.runs.open import OWN_IMAGES, RunParts, open_run
from dept_vl.runs.session import Session
from dept_vl.settings.schema import TrainConfig
from dept_vl.system.processes import process_state

T = TypeVar("T")

Each = Callable[[Batch], Sequence[T]]
"""From a batch to one result an example."""

MAX_LABEL_TOKENS = 512
"""Longest label that is scored; what is read of all labels together grows with the square of their tokens."""


@dataclass(frozen=True)
class _Loaded:
    """One adapter, ready to be asked."""

    folder: Path
    config: TrainConfig
    parts: RunParts
    answerer: Answerer


class Model:
    """A trained run that is asked in Python; `dept_vl.load` makes it.

    An input is an image, where the task has one, and the columns that its template reads, in the order of `takes`:
    ``("image", "question")`` for VQA, ``("image",)`` for captions, ``("sentence1", "sentence2")`` for a text task. They
    are given in that order or by name. An image is a path, a PIL image, the bytes of a JPEG, PNG or WebP file, or an
    array of pixels, (height, width, 3) uint8 in RGB. Where a row of the task has several images, ``image`` is a list of
    as many: ``model.answer([left, right], "The left image has a dog.")``.

    Numbers do not depend on what else is asked at once, but for rounding: of the same features, log-likelihoods in
    float32 on a CPU agree within 1e-5, or a millionth of their value where that is more. Images encoded in a batch of
    another size have a few 16-bit features rounded to the number beside, which moved log-likelihoods by up to 5e-5.

    Threads. A model may be asked from several threads: they take turns, and so do models of one session. A block of
    `adapter` counts for the thread, or the asyncio task, that opened it.
    """

    def __init__(
        self,
        folder: Path,
        config: TrainConfig,
        *,
        device: str | torch.device | None = None,
        session: Session | None = None,
    ) -> None:
        """Loads the frozen models and the adapter of a run; `dept_vl.load` says what `device` and `session` are."""
        self._device = _choose_device(device)
        self._session = session or Session()
        self._own = self._open(folder, config)
        self._loaded: dict[tuple[str, str | None], _Loaded] = {}
        self._chosen: ContextVar[_Loaded | None] = ContextVar("chosen", default=None)

    @property
    def _now(self) -> _Loaded:
        return self._chosen.get() or self._own

    @property
    def task(self) -> str:
        """The name of the task it was trained on."""
        return self.parts.task.name

    @property
    def takes(self) -> tuple[str, ...]:
        """What an input holds, in order."""
        return taken(self.parts.task)

    @property
    def labels(self) -> tuple[str, ...] | None:
        """The task's labels; None where it answers with free text."""
        return self.parts.task.labels

    @property
    def config(self) -> TrainConfig:
        """The run's settings."""
        return self._now.config

    @property
    def parts(self) -> RunParts:
        """Everything it works with, for who goes deeper: the torch module, the text codec, the image encoder."""
        return self._now.parts

    @property
    def device(self) -> torch.device:
        """Where the models are."""
        return self._device

    @property
    def num_trainable(self) -> int:
        """Parameters that were trained, those of the visual projection among them."""
        return self.parts.model.parameter_budget().trainable

    def __repr__(self) -> str:
        now = self._now
        return (
            f"Model({str(now.folder)!r}: task {self.task!r}, {now.config.tuner.label} on {now.config.model.backbone}, "
            f"{self.num_trainable:,} trained parameters, on {self._device})"
        )

    def answer(self, *values: Any, **columns: Any) -> str:
        """Returns the answer to one input, as ``dept-vl eval`` answers: ``model.answer(image, "What is it?")``.

        Args:
            *values: In the order of `takes`.
            **columns: By name.

        Raises:
            ConfigError: Something is missing or not taken, or the image is of a kind that is not read.
            DataError: The image cannot be read; or the text is too long, and the run refuses that (``data.on_long``).
        """
        return self._ask_one(values, columns, self._answers())

    def answer_many(self, inputs: Iterable[Any], *, batch_size: int | None = None) -> list[str]:
        """Returns the answers to many inputs, in their order.

        An image that several ask about is encoded once, if it is given as the same object, path or bytes.

        Args:
            inputs: Mappings by name; tuples in the order of `takes`; or, where it takes one thing, that.
            batch_size: Inputs that are answered at once; None: the run's ``data.eval_batch_size``.

        Raises:
            ConfigError, DataError: As `answer`; the message says which input.
        """
        return self._ask_many(inputs, self._answers(), batch_size)

    def caption(self, image: Any, **columns: Any) -> str:
        """Returns a caption of an image; for many, `answer_many` takes a list of them.

        Args:
            image: The image.
            **columns: What else the task's template reads, where it is one of your own.

        Raises:
            ConfigError: The run was not trained to caption; or as `answer`.
            DataError: As `answer`.
        """
        task = self.parts.task
        captions = task.uses_images and not task.input_columns
        if task.declaration is not None:
            captions = task.declaration.kind == "caption"
        if not captions:
            raise ConfigError(
                f"{self._now.folder}: was trained on task {task.name!r} and not to caption: it takes "
                f"{', '.join(self.takes)}"
                f"{' and gives one of its labels' if task.labels is not None else ''}; use answer()"
            )
        return self.answer(image, **columns)

    def score(self, *values: Any, labels: Sequence[str] | None = None, **columns: Any) -> dict[str, float]:
        """Returns the log-likelihood of every label as the answer to one input.

        It is exact: the sum over all tokens of the label, its end of sequence included, in nats and not normalised by
        length.

        Args:
            *values: In the order of `takes`.
            labels: Any texts; None: the task's own labels.
            **columns: By name.

        Raises:
            ConfigError: As `answer`; or there are no labels, or two that cannot be told apart, or one is too long.
            DataError: As `answer`.
        """
        return self._ask_one(values, columns, self._scores(labels))

    def score_many(
        self, inputs: Iterable[Any], *, labels: Sequence[str] | None = None, batch_size: int | None = None
    ) -> list[dict[str, float]]:
        """Returns what `score` does for many inputs, in their order.

        Args:
            inputs: As `answer_many`.
            labels: As `score`; the same for all inputs.
            batch_size: As `answer_many`.

        Raises:
            ConfigError, DataError: As `score`; the message says which input.
        """
        return self._ask_many(inputs, self._scores(labels), batch_size)

    def probabilities(self, *values: Any, labels: Sequence[str] | None = None, **columns: Any) -> dict[str, float]:
        """Returns how probable each label is if the answer is one of them: the softmax of `score`, summing to 1.

        It takes what `score` takes.

        Raises:
            ConfigError, DataError: As `score`.
        """
        scores = self.score(*values, labels=labels, **columns)
        most = max(scores.values())
        shares = {label: math.exp(score - most) for label, score in scores.items()}
        return {label: share / sum(shares.values()) for label, share in shares.items()}

    def embeddings(self, inputs: Iterable[Any], *, batch_size: int | None = None) -> np.ndarray:
        """Returns what the frozen model with the adapter makes of each input, as one vector.

        T5: the mean of the encoder's last hidden states, after its final norm, over soft prompt, text and visual
        tokens; padding is left out. Decoder-only: the last hidden state, after the final norm, at the last token before
        an answer (the end of the cue that leads to it). Neither is normalised to a length. It
        takes what `answer_many` takes.

        Returns:
            (inputs, d_model) float32.

        Raises:
            ConfigError, DataError: As `answer_many`.
        """
        answerer = self._now.answerer
        rows = self._ask_many(inputs, lambda batch: list(answerer.embed(batch).cpu().numpy()), batch_size)
        return np.stack(rows) if rows else np.zeros((0, answerer.model.backbone.d_model), np.float32)

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """Shares the run on the Hugging Face hub and returns its address; `dept_vl.load` takes `repo_id` from then on.

        Options (``private``, ``licence``, ``revision``, ...) and errors are those of `dept_vl.runs.hub.push_run`.
        """
        return push_run(self._now.folder, repo_id, **options)

    @contextmanager
    def adapter(self, run: str | os.PathLike[str], *, revision: str | None = None) -> Iterator[Model]:
        """Answers with another run's adapter for the block: its task, its settings, and the same frozen models.

        An adapter is loaded once and kept. Blocks may stand in each other; after one, also one that an exception ends,
        the model answers as before. It takes what `dept_vl.load` takes.

        Raises:
            ConfigError: As `dept_vl.load`.
            CheckpointError: There is no run; or it was trained on another backbone, or features of another image
                encoder, and both sides are named.
        """
        place = os.fspath(run)
        name = (os.path.realpath(place) if os.path.exists(place) else place, revision)
        with self._session.lock:
            if name not in self._loaded:
                self._loaded[name] = self._open_other(place, revision)
        before = self._chosen.set(self._loaded[name])
        try:
            yield self
        finally:
            self._chosen.reset(before)

    def _open_other(self, run: str, revision: str | None) -> _Loaded:
        """Returns another run's adapter on these frozen models."""
        own = self._own.config
        shared = ("backbone", "revision", "dtype", "dropout_rate", "gradient_checkpointing", "visual_position_bias")
        settings = {f"model.{name}": getattr(own.model, name) for name in shared}
        folder, config = read_run(run, revision, {**settings, "loop.precision": own.loop.precision})
        ours, theirs = (
            {key: value for key, value in asdict(found.backbone).items() if key not in ("name", "revision")}
            for found in (self._own.parts.model.adapter_config(), read_adapter_config(folder))
        )
        recorded = {key: value for key, value in theirs.items() if value is not None}
        check_equal(folder, {f"backbone.{key}": (value, ours[key]) for key, value in recorded.items()})
        if self._own.parts.task.uses_images:
            config = replace(config, model=replace(config.model, image_encoder=own.model.image_encoder))
        return self._open(folder, config)

    def _open(self, folder: Path, config: TrainConfig) -> _Loaded:
        with self._session.lock:
            parts = open_run(config, None, (), self._session, adapter=folder, device=self._device)
            answerer = Answerer(parts.model, parts.codec, parts.visual.get(OWN_IMAGES), parts.decoding)
        return _Loaded(folder, config, parts, answerer)

    def _answers(self) -> Each[str]:
        answerer = self._now.answerer
        return lambda batch: [one.text for one in answerer.answer(batch)]

    def _scores(self, labels: Sequence[str] | None) -> Each[dict[str, float]]:
        """Returns what scores labels."""
        parts = self.parts
        if labels is None and parts.task.labels is None:
            raise ConfigError(f"labels: task {parts.task.name!r} has none of its own; give labels=[...]")
        asked = _check_labels(parts.task.labels if labels is None else labels)
        ids = [tuple(row) for row in parts.codec.target_ids(asked)]
        longest = max(len(row) for row in ids)
        if longest > MAX_LABEL_TOKENS:
            raise ConfigError(f"labels: one has {longest:,} tokens; at most {MAX_LABEL_TOKENS} are scored")
        if len(set(ids)) < len(ids):
            same = [label for label, row in zip(asked, ids, strict=True) if ids.count(row) > 1]
            raise ConfigError(f"labels: {same[0]!r} has the same tokens as another of them; they cannot be told apart")
        decoding = replace(parts.decoding, method="score", labels=asked, max_new_tokens=longest)
        answerer = Answerer(parts.model, parts.codec, parts.visual.get(OWN_IMAGES), decoding)
        return lambda batch: [one.log_likelihoods or {} for one in answerer.answer(batch)]

    def _ask_one(self, values: Sequence[Any], columns: Mapping[str, Any], each: Each[T]) -> T:
        given = from_values(self.parts.task, values, columns)
        return self._ask([given], each, 1, are_many=False)[0]

    def _ask_many(self, inputs: Iterable[Any], each: Each[T], batch_size: int | None) -> list[T]:
        size = self._now.config.data.eval_batch_size if batch_size is None else batch_size
        if not isinstance(size, int) or size < 1:
            raise ConfigError(f"batch_size: should be a whole number from 1 on, got {size!r}")
        given = read_many(self.parts.task, inputs)
        return self._ask(given, each, size, are_many=True) if given else []

    def _ask(self, given: Sequence[Mapping[str, Any]], each: Each[T], batch_size: int, *, are_many: bool) -> list[T]:
        now = self._now
        asked = make_asked(now.parts.task, given, are_many=are_many)
        with self._session.lock:
            return ask(now.parts, now.config.data, asked, each, batch_size=batch_size)


def _check_labels(labels: Any) -> tuple[str, ...]:
    """Returns labels that are texts, each given once."""
    if isinstance(labels, str) or not isinstance(labels, Iterable):
        raise ConfigError(f"labels: expected a list of texts, got {labels!r}")
    given = tuple(labels)
    bad = [label for label in given if not isinstance(label, str) or not label.strip()]
    if bad or not given:
        raise ConfigError(f"labels: expected at least one text, and none that is empty, got {(bad or [given])[0]!r}")
    twice = [label for label in given if given.count(label) > 1]
    if twice:
        raise ConfigError(f"labels: {twice[0]!r} is given twice")
    return given


def _choose_device(device: str | torch.device | None) -> torch.device:
    """Returns a device that is there."""
    if device is None:
        return process_state().device
    try:
        return torch.empty(0, device=device).device
    except Exception as error:  # each kind of device has errors of its own
        raise ConfigError(f"device: {device!r} cannot be used here: {first_line(error)}") from error
