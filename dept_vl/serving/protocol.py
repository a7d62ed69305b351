"""OpenAI's chat completions: what is read of a request, what is refused, and what an answer looks like. No torch."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dept_vl.errors import shown
from dept_vl.serving.errors import RequestError
from dept_vl.system.bounded_reading import parse_json

_DATA_URI = re.compile(r"data:image/[a-z0-9.+-]+;base64,", re.IGNORECASE)
_MAX_IMAGES = 8
_FIXED: Mapping[str, tuple[Sequence[Any], str]] = {
    "temperature": ((None, 0), "answers are the most likely ones; leave it out or give 0"),
    "top_p": ((None, 1), "answers are the most likely ones; leave it out or give 1"),
    "n": ((None, 1), "there is one answer; leave it out or give 1"),
    "presence_penalty": ((None, 0), "leave it out or give 0"),
    "frequency_penalty": ((None, 0), "leave it out or give 0"),
    "logprobs": ((None, False), "leave it out or give false"),
    "stop": ((None, [], ""), "an answer ends where the adapter ends it; leave it out"),
    "tools": ((None, []), "adapters call no tools; leave it out"),
}
"""Field -> the values that change nothing, and what is said to others."""

_READ = ("model", "messages", "max_tokens", "max_completion_tokens", "stream", "stream_options")
_NEUTRAL = ("seed", "user", "metadata", "store")
"""Fields that may hold anything: they cannot change an answer that is the same every time."""


@dataclass(frozen=True)
class ChatRequest:
    """What is asked.

    Attributes:
        model: The adapter's name.
        text: Of the last user message; "" where it has none.
        images: The content of its image files, in order.
        max_tokens: Tokens of the answer at most; None for the adapter's own number.
        is_streamed: Whether the answer comes as server-sent events.
        has_usage: Whether a stream ends with the number of tokens.
        notes: What was read otherwise than a caller may expect; each answer says so in a header.
    """

    model: str
    text: str
    images: tuple[bytes, ...] = ()
    max_tokens: int | None = None
    is_streamed: bool = False
    has_usage: bool = False
    notes: tuple[str, ...] = field(default=())


def read_object(body: bytes) -> dict[str, Any]:
    """Returns the JSON object of a body.

    Raises:
        RequestError: It is none.
    """
    try:
        value = parse_json(body)
    except ValueError as error:
        raise RequestError(400, f"the body is not JSON: {error}", code="invalid_json") from None
    if not isinstance(value, dict):
        raise RequestError(400, f"the body should be a JSON object, got {shown(value)}", code="invalid_json")
    return value


def read_chat(body: bytes, *, max_text: int) -> ChatRequest:
    """Reads the body of ``POST /v1/chat/completions``.

    Args:
        body: As it came.
        max_text: Characters that the text may have.

    Raises:
        RequestError: Something is missing, of a wrong kind, too long, or asks for what this server does not do.
    """
    given = read_object(body)
    for name, value in given.items():
        if name in _FIXED:
            allowed, advice = _FIXED[name]
            if not any(value == one and isinstance(value, bool) == isinstance(one, bool) for one in allowed):
                raise RequestError(400, f"{name}: {shown(value)} is not supported: {advice}", param=name)
        elif name not in (*_READ, *_NEUTRAL):
            raise RequestError(400, f"{name:.80}: this server does not read this field; leave it out", param=name[:80])
    model = given.get("model")
    if not isinstance(model, str) or not model:
        raise RequestError(400, "model: give the name of an adapter; GET /v1/models lists them", param="model")
    message, notes = _last_user_message(given.get("messages"))
    text, images = _content(message, max_text)
    is_streamed, options = _flag(given, "stream"), given.get("stream_options")
    if options is not None and (not isinstance(options, dict) or not options.keys() <= {"include_usage"}):
        raise RequestError(400, "stream_options: include_usage alone is read", param="stream_options")
    if options is not None and not is_streamed:
        raise RequestError(400, "stream_options: has no effect without stream=true", param="stream_options")
    has_usage = _flag(options or {}, "include_usage")
    return ChatRequest(model, text, images, _max_tokens(given), is_streamed, has_usage, notes)


def _flag(given: Mapping[str, Any], name: str) -> bool:
    value = given.get(name)
    if value not in (None, True, False) or (isinstance(value, int) and not isinstance(value, bool)):
        raise RequestError(400, f"{name}: should be true or false, got {shown(value)}", param=name)
    return bool(value)


def _max_tokens(given: Mapping[str, Any]) -> int | None:
    names = [name for name in ("max_completion_tokens", "max_tokens") if given.get(name) is not None]
    if len(names) > 1 and given[names[0]] != given[names[1]]:
        raise RequestError(400, f"{names[0]} and {names[1]}: give one of them", param=names[1])
    if not names:
        return None
    value = given[names[0]]
    if type(value) is not int or value < 1:
        raise RequestError(400, f"{names[0]}: should be a whole number from 1 on, got {shown(value)}", param=names[0])
    return value


def _last_user_message(messages: Any) -> tuple[Mapping[str, Any], tuple[str, ...]]:
    if not isinstance(messages, list) or not messages or not all(isinstance(one, dict) for one in messages):
        raise RequestError(400, "messages: should be a list of at least one message", param="messages")
    places = [number for number, one in enumerate(messages) if one.get("role") == "user"]
    if not places:
        raise RequestError(400, "messages: none is of role 'user'", param="messages")
    if places[-1] != len(messages) - 1:
        raise RequestError(
            400, "messages: the last one should be of role 'user': answers are not continued", param="messages"
        )
    others = len(messages) - 1
    return messages[-1], (f"{others} earlier messages were not read",) if others else ()


def _content(message: Mapping[str, Any], max_text: int) -> tuple[str, tuple[bytes, ...]]:
    content, texts, images = message.get("content"), [], []
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    if not isinstance(parts, list) or not all(isinstance(part, dict) for part in parts):
        raise RequestError(400, f"content: should be a text or a list of parts, got {shown(content)}", param="messages")
    for part in parts:
        kind = part.get("type")
        if kind == "text" and isinstance(part.get("text"), str):
            texts.append(part["text"])
        elif kind == "image_url":
            images.append(part.get("image_url"))
        else:
            raise RequestError(
                400, f"content: a part is {{type: text}} or {{type: image_url}}, got {shown(kind)}", param="messages"
            )
    if len(texts) > 1 or len(images) > _MAX_IMAGES:
        raise RequestError(
            400,
            f"content: {len(texts)} texts and {len(images)} images; one text and at most {_MAX_IMAGES} images are read",
            param="messages",
        )
    text = texts[0] if texts else ""
    if len(text) > max_text:
        raise RequestError(
            400, f"content: a text of {len(text):,} characters; at most {max_text:,} are read",
            param="messages", code="text_too_long",
        )  # fmt: skip
    return text, tuple(map(_image, images))


def _image(value: Any) -> bytes:
    """Returns the file that a data URI holds; nothing is ever fetched."""
    if isinstance(value, dict):
        if value.get("detail") not in (None, "auto"):
            raise RequestError(400, "image_url: every image is read at one size; leave detail out", param="messages")
        value = value.get("url")
    if not isinstance(value, str):
        raise RequestError(400, f"image_url: should be {{url: ...}}, got {shown(value)}", param="messages")
    match = _DATA_URI.match(value)
    if not match:
        raise RequestError(
            400,
            f"image_url: {value[:80]!r} is not fetched: neither addresses nor files are; send the image itself as "
            "data:image/png;base64,...",
            param="messages", code="image_url_refused",
        )  # fmt: skip
    try:
        content = base64.b64decode(value[match.end() :], validate=True)
    except (binascii.Error, ValueError) as error:
        raise RequestError(
            400, f"image_url: the data URI is not base64: {error}", param="messages", code="invalid_image"
        ) from None
    if not content:
        raise RequestError(400, "image_url: the data URI is empty", param="messages", code="invalid_image")
    return content


@dataclass(frozen=True)
class Completion:
    """An answer as it is sent.

    Attributes:
        number: An id of the server's.
        created: Seconds since 1970.
        model: The adapter's name.
        text: The answer.
        is_cut: Whether ``max_tokens`` ended it.
        prompt_tokens: Tokens of the text, without the soft prompt and the image.
        completion_tokens: Tokens of the answer.
    """

    number: str
    created: int
    model: str
    text: str
    is_cut: bool
    prompt_tokens: int
    completion_tokens: int

    def body(self) -> dict[str, Any]:
        """Returns the JSON of an answer in one piece."""
        message = {"role": "assistant", "content": self.text, "refusal": None}
        choice = {"index": 0, "message": message, "finish_reason": self._finish, "logprobs": None}
        return {**self._head("chat.completion"), "choices": [choice], "usage": self._usage}

    def events(self, *, has_usage: bool) -> list[bytes]:
        """Returns an answer as server-sent events: it is known as a whole, so its text is in one of them."""
        head = self._head("chat.completion.chunk")
        choices: list[list[dict[str, Any]]] = [
            [{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}],
            [{"index": 0, "delta": {"content": self.text}, "finish_reason": None}],
            [{"index": 0, "delta": {}, "finish_reason": self._finish}],
        ]
        chunks = [{**head, "choices": choice} for choice in choices]
        if has_usage:
            chunks.append({**head, "choices": [], "usage": self._usage})
        return [*(f"data: {json.dumps(chunk)}\n\n".encode() for chunk in chunks), b"data: [DONE]\n\n"]

    @property
    def _finish(self) -> str:
        return "length" if self.is_cut else "stop"

    @property
    def _usage(self) -> dict[str, int]:
        asked, answered = self.prompt_tokens, self.completion_tokens
        return {"prompt_tokens": asked, "completion_tokens": answered, "total_tokens": asked + answered}

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": f"chatcmpl-{self.number}", "object": kind, "created": self.created, "model": self.model}
