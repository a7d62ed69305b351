"""A trained run as an object that answers."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from copy import copy
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from dept_vl.api.inputs import from_values, make_asked, read_many, taken
from dept_vl.api.labels import check_labels
from dept_vl.api.recorded_run import read_run
from dept_vl.data.collator import Batch
from dept_vl.errors import ConfigError
from dept_vl.inference.answer import Answerer
from dept_vl.inference.asked import ask
from dept_vl.models.adapter.files import read_adapter_config
from dept_vl.models.adapter.fits import check_equal
from dept_vl.runs.decoding import Decoding
from dept_vl.runs.hub import push_run
from dept_vl.runs.open import OWN_IMAGES, RunParts, open_tasks
from dept_vl.runs.session import Session
from dept_vl.settings.schema import TrainConfig
from dept_vl.system.processes import choose_device
from dept_vl.tasks.mixture import JOINED

T = TypeVar("T")
Each = Callable[[Batch], Sequence[T]]
"""From a batch to one result an example."""


@dataclass(frozen=True)
class _Loaded:
    """One adapter, ready to be asked about one task."""

    folder: Path
    config: TrainConfig
    parts: RunParts
    answerer: Answerer


class Model:
    """A trained run that is asked in Python; `dept_vl.load` makes it.

    A run of several tasks is asked about one: ``model.answer("It rained.", "It was wet.", task="rte")``, or
    ``model.for_task("rte")`` once, which is asked as a run of that task alone.

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
        self._device = choose_device(device)
        self._session = session or Session()
        self._task: str | None = None
        self._own = self._open(folder, config)
        self._loaded: dict[tuple[str, str | None], dict[str, _Loaded]] = {}
        self._chosen: ContextVar[dict[str, _Loaded] | None] = ContextVar("chosen", default=None)

    @property
    def _each(self) -> dict[str, _Loaded]:
        """The tasks of the run that answers now."""
        return self._chosen.get() or self._own

    @property
    def _first(self) -> _Loaded:
        """Its first task: the run's folder and model are the same for all."""
        return next(iter(self._each.values()))

    @property
    def _now(self) -> _Loaded:
        """The one that is asked.

        Raises:
            ConfigError: There are several and none is chosen, or the one chosen is not among them.
        """
        each = self._each
        if self._task is None and len(each) == 1:
            return self._first
        if self._task in each:
            return each[self._task]
        problem = f"name one: task={next(iter(each))!r}" if self._task is None else f"and not on {self._task!r}"
        raise ConfigError(f"task: {self._first.folder} was trained on {', '.join(each)}; {problem}")

    def for_task(self, task: str) -> Model:
        """Returns the model as it answers about one task of its run; frozen models and adapter are the same.

        Raises:
            ConfigError: The run was not trained on it.
        """
        model = copy(self)
        model._task = task
        model._now  # noqa: B018  # refuses a task that is none of the run's
        return model

    @property
    def tasks(self) -> tuple[str, ...]:
        """The names of the tasks it was trained on."""
        return tuple(self._each)

    @property
    def task(self) -> str:
        """The name of the task it was trained on; of several, all: ``rte+cola``."""
        return JOINED.join(self.tasks) if self._task is None else self._task

    @property
    def takes(self) -> tuple[str, ...]:
        """What an input holds, in order; of a run of several tasks see `for_task`."""
        return taken(self.parts.task)

    @property
    def labels(self) -> tuple[str, ...] | None:
        """The task's labels; None where it answers with free text. Of a run of several tasks see `for_task`."""
        return self.parts.task.labels

    @property
    def config(self) -> TrainConfig:
        """The run's settings; from `for_task` as they are for that task."""
        return self._now.config

    @property
    def parts(self) -> RunParts:
        """Everything it works with, for who goes deeper: the torch module, the text codec, the image encoder.

        Of a run of several tasks see `for_task`.
        """
        return self._now.parts

    @property
    def device(self) -> torch.device:
        """Where the models are."""
        return self._device

    @property
    def num_trainable(self) -> int:
        """Parameters that were trained, those of the visual projection among them."""
        return self._first.parts.model.parameter_budget().trainable

    def __repr__(self) -> str:
        now = self._first
        return (
            f"Model({str(now.folder)!r}: task {self.task!r}, {now.config.tuner.label} on {now.config.model.backbone}, "
            f"{self.num_trainable:,} trained parameters, on {self._device})"
        )

    def answer(self, *values: Any, **columns: Any) -> str:
        """Returns the answer to one input, as ``dept-vl eval`` answers: ``model.answer(image, "What is it?")``.

        Args:
            *values: In the order of `takes`.
            **columns: By name; of a run of several tasks also ``task``.

        Raises:
            ConfigError: Something is missing or not taken, or the image is of a kind that is not read; or the run was
                not trained on the task, or on several and none is named.
            DataError: The image cannot be read; or the text is too long, and the run refuses that (``data.on_long``).
        """
        model, columns = self._chosen_by(columns)
        return model._ask_one(values, columns, model._answers())

    def answer_many(
        self, inputs: Iterable[Any], *, batch_size: int | None = None, task: str | None = None
    ) -> list[str]:
        """Returns the answers to many inputs, in their order.

        An image that several ask about is encoded once, if it is given as the same object, path or bytes.

        Args:
            inputs: Mappings by name; tuples in the order of `takes`; or, where it takes one thing, that.
            batch_size: Inputs that are answered at once; None: the run's ``data.eval_batch_size``.
            task: Which, of a run of several tasks.

        Raises:
            ConfigError, DataError: As `answer`; the message says which input.
        """
        model = self if task is None else self.for_task(task)
        return model._ask_many(inputs, model._answers(), batch_size)

    def caption(self, image: Any, **columns: Any) -> str:
        """Returns a caption of an image; for many, `answer_many` takes a list of them.

        Args:
            image: The image.
            **columns: What else the task's template reads, where it is one of your own; of a run of several tasks also
                ``task``.

        Raises:
            ConfigError: The run was not trained to caption; or as `answer`.
            DataError: As `answer`.
        """
        model, columns = self._chosen_by(columns)
        task = model.parts.task
        captions = task.uses_images and not task.input_columns
        if task.declaration is not None:
            captions = task.declaration.kind == "caption"
        if not captions:
            raise ConfigError(
                f"{model._now.folder}: was trained on task {task.name!r} and not to caption: it takes "
                f"{', '.join(model.takes)}"
                f"{' and gives one of its labels' if task.labels is not None else ''}; use answer()"
            )
        return model.answer(image, **columns)

    def score(self, *values: Any, labels: Sequence[str] | None = None, **columns: Any) -> dict[str, float]:
        """Returns the log-likelihood of every label as the answer to one input.

        It is exact: the sum over all tokens of the label, its end of sequence included, in nats and not normalised by
        length.

        Args:
            *values: In the order of `takes`.
            labels: Any texts; None: the task's own labels.
            **columns: As `answer`.

        Raises:
            ConfigError: As `answer`; or there are no labels, or two that cannot be told apart, or one is too long.
            DataError: As `answer`.
        """
        model, columns = self._chosen_by(columns)
        return model._ask_one(values, columns, model._scores(labels))

    def score_many(
        self,
        inputs: Iterable[Any],
        *,
        labels: Sequence[str] | None = None,
        batch_size: int | None = None,
        task: str | None = None,
    ) -> list[dict[str, float]]:
        """Returns what `score` does for many inputs, in their order.

        Args:
            inputs: As `answer_many`.
            labels: As `score`; the same for all inputs.
            batch_size: As `answer_many`.
            task: As `answer_many`.

        Raises:
            ConfigError, DataError: As `score`; the message says which input.
        """
        model = self if task is None else self.for_task(task)
        return model._ask_many(inputs, model._scores(labels), batch_size)

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

    def embeddings(
        self, inputs: Iterable[Any], *, batch_size: int | None = None, task: str | None = None
    ) -> np.ndarray:
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
        model = self if task is None else self.for_task(task)
        answerer = model._now.answerer
        rows = model._ask_many(inputs, lambda batch: list(answerer.embed(batch).cpu().numpy()), batch_size)
        return np.stack(rows) if rows else np.zeros((0, answerer.model.backbone.d_model), np.float32)

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """Shares the run on the Hugging Face hub and returns its address; `dept_vl.load` takes `repo_id` from then on.

        Options (``private``, ``licence``, ``revision``, ...) and errors are those of `dept_vl.runs.hub.push_run`.
        """
        return push_run(self._first.folder, repo_id, **options)

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

    def _open_other(self, run: str, revision: str | None) -> dict[str, _Loaded]:
        """Returns another run's adapter on these frozen models."""
        loaded = next(iter(self._own.values()))
        own = loaded.config
        shared = ("backbone", "revision", "dtype", "dropout_rate", "gradient_checkpointing", "visual_position_bias")
        settings = {f"model.{name}": getattr(own.model, name) for name in shared}
        folder, config = read_run(run, revision, {**settings, "loop.precision": own.loop.precision})
        ours, theirs = (
            {key: value for key, value in asdict(found.backbone).items() if key not in ("name", "revision")}
            for found in (loaded.parts.model.adapter_config(), read_adapter_config(folder))
        )
        check_equal(folder, {f"backbone.{key}": (one, ours[key]) for key, one in theirs.items() if one is not None})
        if loaded.parts.task.uses_images:
            config = replace(config, model=replace(config.model, image_encoder=own.model.image_encoder))
        return self._open(folder, config)

    def _open(self, folder: Path, config: TrainConfig) -> dict[str, _Loaded]:
        with self._session.lock:
            tasks = open_tasks(config, None, (), self._session, adapter=folder, device=self._device)
            return {
                name: _Loaded(folder, config.for_task(name), parts, _answerer(parts, parts.decoding))
                for name, parts in tasks.items()
            }

    def _chosen_by(self, columns: dict[str, Any]) -> tuple[Model, dict[str, Any]]:
        """Returns the model of the task that is named among values by name, and the others.

        A column of a task of one's own may have that name too.
        """
        if "task" not in columns or any("task" in one.parts.task.input_columns for one in self._each.values()):
            return self, columns
        return self.for_task(columns["task"]), {name: value for name, value in columns.items() if name != "task"}

    def _answers(self) -> Each[str]:
        answerer = self._now.answerer
        return lambda batch: [one.text for one in answerer.answer(batch)]

    def _scores(self, labels: Sequence[str] | None) -> Each[dict[str, float]]:
        """Returns what scores labels."""
        parts = self.parts
        if labels is None and parts.task.labels is None:
            raise ConfigError(f"labels: task {parts.task.name!r} has none of its own; give labels=[...]")
        asked, longest = check_labels(parts.task.labels if labels is None else labels, parts.codec)
        decoding = replace(parts.decoding, method="score", labels=asked, max_new_tokens=longest)
        answerer = _answerer(parts, decoding)
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


def _answerer(parts: RunParts, decoding: Decoding) -> Answerer:
    return Answerer(parts.model, parts.codec, parts.visual.get(OWN_IMAGES), decoding, parts.task_id)
