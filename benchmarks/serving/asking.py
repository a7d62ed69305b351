"""What is asked: questions about drawn pictures, as rows of the engine and as bodies of requests."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dept_vl.data.collator import Batch, Example, collate
from dept_vl.serving.adapters import AskedRow
from dept_vl.serving.engine import Engine
from dept_vl.serving.limits import ServeLimits
from dept_vl.serving.protocol import ChatRequest
from dept_vl.serving.service import Service
from dept_vl.serving.startup import RunReader, read_runs

QUESTIONS = ("background color", "small circle color", "number of shapes", "is there a red square", "large shape")
PICTURES = 8

Clock = Callable[[], float]
"""Seconds since some time: on the wall, or of the CPU that this process has had."""


def picture(seed: int, size: tuple[int, int] = (64, 64), kind: str = "PNG") -> bytes:
    """Returns the content of an image of drawn blocks of colour."""
    blocks = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(blocks).resize(size, Image.Resampling.NEAREST).save(file, kind)
    return file.getvalue()


def request_body(model: str, number: int, max_tokens: int) -> bytes:
    """Returns the body of a request of the server: question and picture go round with their number."""
    uri = f"data:image/png;base64,{base64.b64encode(picture(number % PICTURES)).decode()}"
    parts = [
        {"type": "text", "text": QUESTIONS[number % len(QUESTIONS)]},
        {"type": "image_url", "image_url": {"url": uri}},
    ]
    message = {"role": "user", "content": parts}
    return json.dumps({"model": model, "messages": [message], "max_tokens": max_tokens}).encode()


class Asked:
    """A server's adapters and engine in this process, without HTTP.

    Attributes:
        names: Of the adapters.
        engine: What answers their rows.
    """

    def __init__(self, runs: Sequence[Path]) -> None:
        """Loads runs on one backbone."""
        found = read_runs(list(map(str, runs)), {}, lambda config, folder: None)
        self.names = [run.name for run in found]
        self._service = Service(RunReader({}, lambda config, folder: None), found, ServeLimits())
        self._service.queue.drain()  # the engine alone is asked
        self.engine = Engine(
            self._service.table.session, self._service.table.device, self._service.cache, self._service.metrics
        )

    def row(self, name: str, number: int, max_tokens: int, content: bytes | None = None) -> AskedRow:
        """Returns a row that asks an adapter; its picture is `content`, or goes round with its number.

        Its features are not kept before a row with that picture has been answered.
        """
        adapter = self._service.table.get(name)
        assert adapter is not None
        content = picture(number % PICTURES) if content is None else content
        chat = ChatRequest(name, QUESTIONS[number % len(QUESTIONS)], (content,), max_tokens=max_tokens)
        return adapter.ask(chat, self._service.cache, max_pixels=self._service.limits.max_pixels)

    def see_pictures(self) -> None:
        """Encodes every picture that `row` gives, so that all later rows have its features."""
        self.engine.answer([self.row(self.names[0], number, 1) for number in range(PICTURES)])


def features(rows: Sequence[AskedRow]) -> Tensor:
    """Returns the features of rows whose pictures are kept, (batch, visual, feature_dim)."""
    kept = [one.features for row in rows for one in row.pictures if isinstance(one.features, Tensor)]
    assert len(kept) == len(rows)
    return torch.stack(kept)


def batch_of(rows: Sequence[AskedRow]) -> Batch:
    """Returns rows as the engine puts them together."""
    examples = [Example(number, row.input_ids, []) for number, row in enumerate(rows)]
    return collate(examples, rows[0].adapter.parts.codec.pad_token_id, visual_features=features(rows))
