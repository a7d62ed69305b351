"""Adapters as a proxy has them: a request in, what the engine is asked out."""

from __future__ import annotations

import base64
import io
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from dept_vl.data.images import open_image
from dept_vl.errors import ConfigError, DataError, first_line
from dept_vl.inference.inputs import PredictionInput, check_column, source_texts
from dept_vl.models.language.stored import find_folder
from dept_vl.serving.asked_text import TOKENIZING, read_columns, what_it_takes
from dept_vl.serving.errors import RequestError
from dept_vl.serving.protocol import ChatRequest
from dept_vl.serving.vllm.client import ExportedAdapter, find_backbone
from dept_vl.serving.vllm.startup import Export


@dataclass(frozen=True)
class EngineRequest:
    """What the engine is to be asked.

    Attributes:
        ids: Tokens of the source text.
        body: Of the request, but for the engine's name of the backbone.
        notes: What a caller may not expect of the answer.
    """

    ids: Sequence[int]
    body: dict[str, Any]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class ProxiedAdapter:
    """One export, opened.

    Attributes:
        export: As it was read.
        adapter: What makes embeddings of a text.
        created: When it was opened, seconds since 1970.
    """

    export: Export
    adapter: ExportedAdapter
    created: int = field(default_factory=lambda: int(time.time()))

    @classmethod
    def open(cls, export: Export) -> ProxiedAdapter:
        """Opens an export with the tokenizer and the word embeddings of its backbone; the table stays on disk.

        Raises:
            ConfigError: The backbone cannot be fetched.
        """
        revision = export.settings["backbone"]["revision"]
        folder = find_folder(export.backbone, revision)
        try:
            folder = folder or find_backbone(export.backbone, revision)
            return cls(export, ExportedAdapter(export.folder, folder))
        except Exception as error:  # damaged files make the libraries raise errors of any type
            raise ConfigError(
                f"{export.folder}: cannot be opened with {export.backbone!r}: {first_line(error)[:200]}"
            ) from error

    def describe(self) -> dict[str, object]:
        """Returns it as ``GET /v1/models`` lists it."""
        settings, task = self.export.settings, self.export.task
        return {
            "id": self.export.name, "object": "model", "created": self.created, "owned_by": "dept-vl",
            "task": task.name, "method": settings["method"], "images": self.export.num_images,
            "columns": list(task.input_columns),
        }  # fmt: skip

    def ask(self, chat: ChatRequest, *, max_pixels: int) -> EngineRequest:
        """Returns what the engine is asked for a request; everything that can be wrong with it is said here.

        Args:
            chat: The request.
            max_pixels: Width x height that an image may have.

        Raises:
            RequestError: The adapter does not take what was given, or it cannot be read.
        """
        task, name = self.export.task, self.export.name
        takes = what_it_takes(task, name)
        columns = read_columns(task, name, chat.text)
        try:
            for column in task.input_columns:
                check_column(task, column, columns.get(column), f"model {name!r}", how_to_give=takes)
            (text,) = source_texts(task, [PredictionInput((), dict(columns), f"model {name!r}")])
        except (ConfigError, DataError) as error:
            raise RequestError(400, str(error), param="messages") from None
        if len(chat.images) != self.export.num_images:
            raise RequestError(
                400, f"content: {len(chat.images)} images; {takes}", param="messages", code="wrong_images"
            )
        try:
            with TOKENIZING:
                ids = self.adapter.source_ids(text)
        except ValueError as error:
            raise RequestError(400, f"{error}; shorten it", param="messages", code="text_too_long") from None
        images = [_as_seen(image, max_pixels) for image in chat.images]
        body = self.adapter.body(ids, images, model="", max_tokens=chat.max_tokens)
        return EngineRequest(ids, body, (*chat.notes, *self.export.settings["notes"]))


def _as_seen(content: bytes, max_pixels: int) -> str:
    """Returns an image as a data URI of the pixels that the run itself would read, turned as its EXIF says."""
    try:
        image = open_image(content, max_pixels=max_pixels)
    except DataError as error:
        raise RequestError(400, f"image_url: {error}", param="messages", code="invalid_image") from None
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=1)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
