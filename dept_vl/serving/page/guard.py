"""What stands before Gradio: bodies of a bounded size, no address that it would fetch, a policy for the page."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dept_vl.system.bounded_reading import parse_json

POLICY = "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; base-uri 'self'; frame-ancestors 'none'"
"""A browser asks this server alone, whatever the page comes to hold. Gradio makes its templates with ``eval``."""


class Guard:
    """Passes on what the page itself sends, and refuses what only others would."""

    def __init__(self, app: ASGIApp, max_body_bytes: int) -> None:
        """Takes what is behind it, and how long a body may be."""
        self._app = app
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request, or refuses it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers, most = Headers(scope=scope), self._max_body_bytes
        said = headers.get("content-length", "")
        if (said.isdecimal() and int(said) > most) or (scope["method"] == "POST" and not said.isdecimal()):
            await PlainTextResponse(f"a body has {most:,} bytes at most, and says how many", 413)(scope, receive, send)
            return
        if "json" in headers.get("content-type", ""):
            body = await _read(receive)
            if _names_address(body):
                await PlainTextResponse("a file is uploaded; addresses are not fetched", 400)(scope, receive, send)
                return
            receive = _replayed(body, receive)

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = MutableHeaders(scope=message)
                own["content-security-policy"] = POLICY
                own["x-content-type-options"] = "nosniff"
                own["referrer-policy"] = "no-referrer"
            await send(message)

        await self._app(scope, receive, guarded)


async def _read(receive: Receive) -> bytes:
    """Returns a body; the server has counted its bytes against what it says."""
    chunks, is_more = [], True
    while is_more:
        message = await receive()
        chunks.append(message.get("body", b""))
        is_more = message.get("more_body", False)
    return b"".join(chunks)


def _replayed(body: bytes, receive: Receive) -> Receive:
    """Returns what gives a body again that was read."""
    messages: list[MutableMapping[str, Any]] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return messages.pop() if messages else await receive()

    return replay


def _names_address(body: bytes) -> bool:
    """Returns whether a file that is named in JSON lies elsewhere: Gradio would fetch it."""
    try:
        waiting = [parse_json(body)] if body else []
    except ValueError:
        return False  # what is behind refuses it
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            path = value.get("path")
            if isinstance(path, str) and path.strip().lower().startswith(("http:", "https:")):
                return True
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)
    return False
