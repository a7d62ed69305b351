"""What the HTTP interfaces have in common: bodies, errors in OpenAI's form, clients that leave."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Lifespan

from dept_vl.serving.errors import RequestError
from dept_vl.serving.metrics import Metrics
from dept_vl.serving.protocol import ChatRequest, Completion

logger = logging.getLogger(__name__)

Handler = Callable[[Request], Awaitable[Response]]

_THROWN_AWAY = 4
"""How many times as long as it may be a body is read before the connection is closed."""

CLIENT_LEFT = 499
"""The status that metrics count where nobody reads the answer, as nginx has it."""


def answering(handler: Handler) -> Handler:
    """Returns a handler whose errors become OpenAI's form of them."""

    async def answer(request: Request) -> Response:
        try:
            return await handler(request)
        except RequestError as error:
            return _refusal(error)
        except ClientDisconnect:
            return Response(status_code=CLIENT_LEFT)
        except Exception:
            logger.exception("%s %s failed", request.method, request.url.path)
            return _refusal(RequestError(500, "the server failed at this request; its log says how"))

    return answer


def counted(metrics: Metrics, handler: Handler) -> Handler:
    """Returns a handler whose answers are counted by status, with the seconds that they took."""

    async def answer(request: Request) -> Response:
        began, status = time.monotonic(), 500
        try:
            response = await handler(request)
            status = response.status_code
            return response
        except RequestError as error:
            status = error.status
            raise
        except ClientDisconnect:
            status = CLIENT_LEFT
            raise
        finally:
            metrics.add_request(status, time.monotonic() - began)

    return answer


def completed(completion: Completion, chat: ChatRequest, notes: Sequence[str]) -> Response:
    """Returns an answer in one piece or as server-sent events, as it is asked for.

    Args:
        completion: The answer.
        chat: What was asked.
        notes: What was read otherwise than a caller may expect.
    """
    headers = {"x-dept-vl-note": "; ".join(notes)} if notes else {}
    if not chat.is_streamed:
        return JSONResponse(completion.body(), headers=headers)

    async def events() -> AsyncIterator[bytes]:
        for event in completion.events(has_usage=chat.has_usage):
            yield event

    return StreamingResponse(events(), media_type="text/event-stream", headers=headers)


def _refusal(error: RequestError) -> JSONResponse:
    # A body that was not read to its end leaves no connection to go on with.
    headers = {413: {"connection": "close"}, 429: {"retry-after": "1"}, 503: {"retry-after": "1"}}.get(error.status)
    return JSONResponse(error.body(), error.status, headers)


def make_starlette(routes: Sequence[Route], lifespan: Lifespan[Starlette] | None = None) -> Starlette:
    """Returns an application whose errors have one form.

    A path with a slash too many is an unknown one: a redirect would lead wherever the request's ``Host`` says.

    Args:
        routes: Its paths.
        lifespan: What is around its life.
    """
    app = Starlette(routes=routes, exception_handlers={HTTPException: _http_error}, lifespan=lifespan)
    app.router.redirect_slashes = False
    return app


async def _http_error(_request: Request, error: Exception) -> Response:
    """Answers what the router refuses, an unknown path or method, in the same form."""
    assert isinstance(error, HTTPException)
    refused = RequestError(error.status_code, f"{error.detail}; docs/deploy.md lists what there is")
    return JSONResponse(refused.body(), error.status_code, error.headers)


async def read_body(request: Request, most: int) -> bytes:
    """Reads the body of a request, and keeps no more of it than it may be long.

    What is too long is read on for a while and thrown away: a client that is still sending would miss the answer.

    Args:
        request: Not read yet.
        most: Bytes that it may have.

    Raises:
        RequestError: It is too long, or is not said to be JSON: a page in a browser may send other types to any
            address, this machine's own too, without being asked whether it may.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise RequestError(415, f"content-type: should be application/json, got {kind!r:.80}")
    said = request.headers.get("content-length", "")
    refused = RequestError(413, f"the body has more than {most:,} bytes", code="body_too_large")
    if said.isdecimal() and int(said) > _THROWN_AWAY * most:
        raise refused
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > _THROWN_AWAY * most:
            raise refused
        if size <= most:
            chunks.append(chunk)
        else:
            chunks.clear()
    if size > most:
        raise refused
    return b"".join(chunks)


def no_such_model(name: str, param: str | None = None) -> RequestError:
    """Returns what is said of an adapter that is not there."""
    return RequestError(
        404, f"there is no adapter called {name!r:.140}; GET /v1/models lists them", param=param, code="model_not_found"
    )


async def left(request: Request) -> None:
    """Returns once the client has left."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
