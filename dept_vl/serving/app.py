"""The HTTP interface: OpenAI's chat completions and models, health and metrics."""

from __future__ import annotations

import asyncio
import logging
import os
import time
import uuid
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import anyio.to_thread
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from dept_vl.errors import CheckpointError, ConfigError, DataError
from dept_vl.inference.answer import Answer
from dept_vl.serving.adapters import AskedRow
from dept_vl.serving.errors import DrainingError, QueueFullError, RequestError
from dept_vl.serving.http import (
    CLIENT_LEFT,
    answering,
    completed,
    counted,
    left,
    make_starlette,
    no_such_model,
    read_body,
)
from dept_vl.serving.protocol import ChatRequest, Completion, read_chat, read_object
from dept_vl.serving.service import Service

logger = logging.getLogger(__name__)


def make_app(service: Service) -> Starlette:
    """Returns the application of a service."""
    http = _Http(service)
    routes = [
        Route("/v1/chat/completions", answering(counted(service.metrics, http.chat)), methods=["POST"]),
        Route("/v1/models", answering(http.list_models), methods=["GET"]),
        Route("/v1/models", answering(http.load), methods=["POST"]),
        Route("/v1/models/{name}", answering(http.show), methods=["GET"]),
        Route("/v1/models/{name}", answering(http.unload), methods=["DELETE"]),
        Route("/health", http.health, methods=["GET"]),
        Route("/metrics", http.metrics, methods=["GET"]),
    ]
    return make_starlette(routes)


class _Http:
    """The handlers of one service."""

    def __init__(self, service: Service) -> None:
        self._service = service
        # Decoding images is work for the CPU: as many at once as there are cores, and the others wait their turn.
        self._preparing = anyio.CapacityLimiter(os.cpu_count() or 1)

    async def chat(self, request: Request) -> Response:
        service, limits = self._service, self._service.limits
        body = await read_body(request, self._service.limits.max_body_bytes)
        self._refuse_early()

        def prepare() -> tuple[ChatRequest, AskedRow]:
            chat = read_chat(body, max_text=limits.max_text)
            adapter = service.table.get(chat.model)
            if adapter is None:
                raise no_such_model(chat.model, "model")
            return chat, adapter.ask(chat, service.cache, max_pixels=limits.max_pixels)

        chat, row = await anyio.to_thread.run_sync(prepare, limiter=self._preparing)
        answer = await self._answer(request, service.queue.submit(row))
        if answer is None:
            return Response(status_code=CLIENT_LEFT)
        completion = Completion(
            uuid.uuid4().hex, int(time.time()), chat.model, answer.text,
            is_cut=answer.is_cut, prompt_tokens=len(row.input_ids), completion_tokens=row.adapter.count_tokens(answer),
        )  # fmt: skip
        return completed(completion, chat, row.notes)

    async def _answer(self, request: Request, future: Future[Answer]) -> Answer | None:
        """Waits for an answer; None where the client leaves before, whose row is dropped if it has not begun."""
        answer = asyncio.wrap_future(future)
        leaving = asyncio.ensure_future(left(request))
        first: set[asyncio.Future[Any]] = {answer, leaving}
        try:
            await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
            if answer.done():
                return answer.result()
            if self._service.queue.discard(future):
                self._service.metrics.add_discarded()
            return None
        finally:
            leaving.cancel()
            if not answer.done():
                answer.cancel()

    def _refuse_early(self) -> None:
        """Refuses before an image is decoded what would be refused after it."""
        queue = self._service.queue
        if queue.is_draining:
            raise DrainingError
        if len(queue) >= self._service.limits.max_queue:
            raise QueueFullError(self._service.limits.max_queue)

    async def list_models(self, _request: Request) -> Response:
        adapters = self._service.table.all.values()
        return JSONResponse({"object": "list", "data": [one.describe() for one in adapters]})

    async def show(self, request: Request) -> Response:
        name = request.path_params["name"]
        adapter = self._service.table.get(name)
        if adapter is None:
            raise no_such_model(name)
        return JSONResponse(adapter.describe())

    async def load(self, request: Request) -> Response:
        root = self._loading_root()
        given = read_object(await read_body(request, self._service.limits.max_body_bytes))
        name, path = given.get("name"), given.get("path")
        unknown = sorted(given.keys() - {"name", "path"})
        if unknown or not isinstance(path, str) or not isinstance(name, str | None):
            raise RequestError(400, 'give {"path": FOLDER} and, for another name than the folder\'s, "name"')
        try:
            folder = (root / path).resolve()
        except (OSError, ValueError, RuntimeError) as error:
            raise RequestError(400, f"path: {error}", param="path") from None
        if not folder.is_relative_to(root) or folder == root:
            raise RequestError(403, "path: is not below the folder that adapters may be loaded from", param="path")
        name = folder.name if name is None else name
        if self._service.table.get(name) is not None:
            raise RequestError(409, f"there is an adapter called {name!r:.140}", param="name", code="model_exists")
        try:
            adapter = await anyio.to_thread.run_sync(self._service.table.add, name, folder)
        except (CheckpointError, ConfigError, DataError) as error:
            raise RequestError(400, str(error), code="model_not_loaded") from None
        logger.info("loaded %s from %s", name, folder)
        return JSONResponse(adapter.describe(), 201)

    async def unload(self, request: Request) -> Response:
        self._loading_root()
        name = request.path_params["name"]
        if not self._service.table.remove(name):
            raise no_such_model(name)
        logger.info("unloaded %s", name)
        return JSONResponse({"id": name, "object": "model", "deleted": True})

    def _loading_root(self) -> Path:
        root = self._service.limits.allow_loading
        if root is None:
            raise RequestError(403, "loading and unloading are off: start the server with --allow-loading DIR")
        if self._service.queue.is_draining:
            raise DrainingError
        return root.resolve()

    async def health(self, _request: Request) -> Response:
        queue = self._service.queue
        if queue.is_draining:
            return JSONResponse({"status": "shutting down"}, 503)
        return JSONResponse({"status": "ok"}) if queue.is_working else JSONResponse({"status": "dead"}, 500)

    async def metrics(self, _request: Request) -> Response:
        service = self._service
        text = service.metrics.text(queue_length=len(service.queue), adapters=len(service.table.all))
        return PlainTextResponse(text, media_type="text/plain; version=0.0.4")
