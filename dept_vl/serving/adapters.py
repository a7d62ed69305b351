"""Adapters as they are served: loaded on one backbone, asked one request at a time, grouped by what fits a batch."""

from __future__ import annotations

import threading
import time
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from dept_vl.errors import ConfigError, DataError
from dept_vl.inference.answer import Answer, Answerer
from dept_vl.inference.inputs import PredictionInput, check_column, source_texts
from dept_vl.models.adapted_model import AdaptedModel
from dept_vl.models.language.vision_language import VisionLanguageBackbone
from dept_vl.runs.open import OWN_IMAGES, RunParts, open_run
from dept_vl.runs.session import Session
from dept_vl.serving.asked_text import TOKENIZING, read_columns, what_it_takes
from dept_vl.serving.errors import RequestError
from dept_vl.serving.image_cache import LeastRecentlyUsed
from dept_vl.serving.mixed import MixableAdapter, mixable
from dept_vl.serving.pictures import Features, ImageError, Picture, PictureReader, picture_reader
from dept_vl.serving.protocol import ChatRequest
from dept_vl.serving.startup import RunReader, ServedRun


@dataclass(frozen=True, eq=False)
class AskedRow:
    """A request, ready for a batch.

    Attributes:
        adapter: Who answers.
        input_ids: Source tokens.
        pictures: Its images, as many as the task has.
        max_tokens: Tokens of the answer at most; None for the adapter's own number.
        notes: What was done with the text that a caller may not expect.
        num_likeliest: How many likeliest answers are told beside its own, from 2 on; 0 for none.
    """

    adapter: ServedAdapter
    input_ids: list[int]
    pictures: tuple[Picture, ...]
    max_tokens: int | None = None
    notes: tuple[str, ...] = ()
    num_likeliest: int = 0

    @property
    def batch_key(self) -> Hashable:
        """What rows of one batch have in common."""
        return self.adapter.batch_key, self.num_likeliest


@dataclass(frozen=True, eq=False)
class ServedAdapter:
    """One adapter on the server's backbone.

    Attributes:
        run: Its run.
        parts: What answers with it.
        answerer: How it answers.
        mixable: Itself as one whose rows may stand beside other adapters'; None for a method that does more.
        reader: What reads its images; None for a task without.
        created: When it was loaded, seconds since 1970.
    """

    run: ServedRun
    parts: RunParts
    answerer: Answerer
    mixable: MixableAdapter | None
    reader: PictureReader | None
    created: int = field(default_factory=lambda: int(time.time()))

    @property
    def batch_key(self) -> Hashable:
        """What adapters have in common whose rows share a batch."""
        if self.mixable is None:
            return id(self)
        reads_any = isinstance(self.mixable.model.backbone, VisionLanguageBackbone)
        num_images = None if reads_any else self.parts.task.num_images
        return self.mixable.key, self.parts.decoding, num_images, self.parts.codec.pad_token_id

    @property
    def num_images(self) -> int:
        """Images that a request has."""
        return self.parts.task.num_images if self.parts.task.uses_images else 0

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that a request has."""
        return self.parts.task.input_columns

    def describe(self) -> dict[str, object]:
        """Returns it as ``GET /v1/models`` lists it."""
        task = self.parts.task
        return {
            "id": self.run.name, "object": "model", "created": self.created, "owned_by": "dept-vl",
            "task": task.name, "method": self.run.config.tuner.label, "shares_batches": self.mixable is not None,
            "images": self.num_images, "columns": list(self.columns),
        }  # fmt: skip

    def ask(self, chat: ChatRequest, cache: LeastRecentlyUsed[Features], *, max_pixels: int) -> AskedRow:
        """Returns a request as a row; everything that can be wrong with it alone is said here.

        Args:
            chat: The request.
            cache: Features of images by `Picture.key`.
            max_pixels: Width x height that an image may have.

        Raises:
            RequestError: The adapter does not take what was given, or it cannot be read.
        """
        try:
            columns = read_columns(self.parts.task, self.run.name, chat.text)
            self._check_max_tokens(chat.max_tokens)
            row = self.ask_columns(columns, chat.images, cache, max_pixels=max_pixels)
        except ImageError as error:
            raise RequestError(400, f"image_url: {error}", param="messages", code="invalid_image") from None
        except (ConfigError, DataError) as error:
            raise RequestError(400, str(error), param="messages") from None
        return replace(row, max_tokens=chat.max_tokens, notes=(*chat.notes, *row.notes))

    def ask_columns(
        self,
        columns: Mapping[str, Any],
        images: Sequence[bytes],
        cache: LeastRecentlyUsed[Features],
        *,
        max_pixels: int,
        num_likeliest: int = 0,
    ) -> AskedRow:
        """Returns as a row what is given by the task's columns.

        Args:
            columns: Those that its template reads.
            images: The content of its image files, in order.
            cache: As `ask`.
            max_pixels: As `ask`.
            num_likeliest: See `AskedRow`.

        Raises:
            ConfigError: A column is missing.
            DataError: A column is of another kind, an image cannot be read, or source and answer are too long for a
                vision-language model's positions.
            RequestError: There are more or fewer images than it takes, or the text is too long.
        """
        parts, data = self.parts, self.run.config.data
        for name in parts.task.input_columns:
            check_column(parts.task, name, columns.get(name), f"model {self.run.name!r}", how_to_give=self._takes())
        if len(images) != self.num_images:
            raise RequestError(
                400, f"content: {len(images)} images; {self._takes()}", param="messages", code="wrong_images"
            )
        text = source_texts(parts.task, [PredictionInput((), dict(columns), f"model {self.run.name!r}")])
        notes: tuple[str, ...] = ()
        with TOKENIZING:
            is_long = bool(parts.codec.count_longer(text, data.max_source_length))
            (ids,) = parts.codec.source_ids(text, data.max_source_length)
        if is_long:
            said = f"the text has more than the {data.max_source_length} tokens that model {self.run.name!r} reads"
            if data.on_long == "error":
                raise RequestError(400, f"{said}; shorten it", param="messages", code="text_too_long")
            notes = (f"{said}, and was cut",)
        pictures: tuple[Picture, ...] = ()
        if self.reader is not None:
            pictures = tuple(self.reader.read(image, cache, max_pixels=max_pixels) for image in images)
        self._check_positions(ids, pictures)
        return AskedRow(self, ids, pictures, notes=notes, num_likeliest=num_likeliest)

    def count_tokens(self, answer: Answer) -> int:
        """Returns how many tokens an answer has; of a label those of its text."""
        if answer.num_tokens is not None:
            return answer.num_tokens
        with TOKENIZING:
            return len(self.parts.codec.target_ids([answer.text])[0])

    def _takes(self) -> str:
        return what_it_takes(self.parts.task, self.run.name)

    def _check_positions(self, ids: Sequence[int], pictures: Sequence[Picture]) -> None:
        """Refuses images that are too many tokens for a vision-language model, before they would stop a batch."""
        model, decoding = self.parts.model, self.parts.decoding
        if isinstance(model.backbone, VisionLanguageBackbone):
            target = decoding.max_new_tokens - (decoding.method == "generate")  # its last token is never read
            images = [one.ids for one in pictures]
            model.backbone.check_row(model.frame, model.tuner.num_virtual_tokens, len(ids), images, target=target)

    def _check_max_tokens(self, asked: int | None) -> None:
        """Refuses fewer tokens than an answer needs that is not made token by token."""
        decoding = self.parts.decoding
        is_greedy = decoding.method == "generate" and decoding.num_beams == 1
        if asked is None or is_greedy or asked >= decoding.max_new_tokens:
            return
        how = "one of its labels" if decoding.method == "score" else f"the best of {decoding.num_beams} beams"
        raise RequestError(
            400, f"max_tokens: model {self.run.name!r} answers with {how}, of up to {decoding.max_new_tokens} tokens, "
            "and is not cut; leave it out", param="max_tokens",
        )  # fmt: skip


class AdapterTable:
    """The adapters that are served, by name; loaded and unloaded while requests are answered."""

    def __init__(self, reader: RunReader, device: torch.device) -> None:
        """Loads nothing yet.

        Args:
            reader: Reads further runs; it knows of none yet.
            device: Where the models are.
        """
        self.session = Session()
        self.device = device
        self._reader = reader
        self._adapters: dict[str, ServedAdapter] = {}
        self._first: ServedRun | None = None
        self._loading = threading.Lock()

    def load(self, run: ServedRun) -> ServedAdapter:
        """Loads a run that `RunReader` has read.

        Raises:
            ConfigError, CheckpointError: It does not fit its models, or they cannot be loaded.
        """
        with self.session.lock, torch.no_grad():
            parts = open_run(run.config, None, (), self.session, adapter=run.folder, device=self.device)
            parts.model.eval()
            self._share_projection(parts.model)
            answerer = Answerer(parts.model, parts.codec, None, parts.decoding, parts.task_id)
            adapter = ServedAdapter(run, parts, answerer, mixable(parts.model), self._picture_reader(parts))
        self._first = self._first or run
        self._adapters = {**self._adapters, run.name: adapter}
        return adapter

    def _picture_reader(self, parts: RunParts) -> PictureReader | None:
        visual = parts.visual.get(OWN_IMAGES)
        known = [one.reader for one in self._adapters.values() if one.reader is not None]
        return None if visual is None else picture_reader(visual, parts.model.backbone, known)

    def _share_projection(self, model: AdaptedModel) -> None:
        """Gives a model whose projection is frozen that of another adapter with the same values, to run it once."""
        own = model.visual_projection
        if own is None or model.config.frozen_projection is None:
            return
        for other in self._adapters.values():
            theirs = other.parts.model.visual_projection
            is_frozen = other.parts.model.config.frozen_projection is not None
            if theirs is not None and is_frozen and type(theirs) is type(own) and theirs.sha256() == own.sha256():
                model.visual_projection = theirs
                return

    def add(self, name: str, folder: Path) -> ServedAdapter:
        """Reads and loads one more run, on the backbone of the first one ever loaded.

        Raises:
            ConfigError, CheckpointError: As `RunReader.read` and `load`.
        """
        with self._loading:
            served = tuple(one.run for one in self._adapters.values())
            reader = RunReader(self._reader.settings, self._reader.check_paths, self._first, served)
            return self.load(reader.read(name, folder))

    def remove(self, name: str) -> bool:
        """Takes an adapter out; rows that are asked already are still answered. Returns whether it was there."""
        with self._loading:
            found = name in self._adapters
            self._adapters = {key: one for key, one in self._adapters.items() if key != name}
        return found

    def get(self, name: str) -> ServedAdapter | None:
        """Returns the adapter of a name."""
        return self._adapters.get(name)

    @property
    def all(self) -> Mapping[str, ServedAdapter]:
        """Every adapter by its name."""
        return self._adapters
