"""The proxy's HTTP interface: that of ``dept-vl serve``, answered by vLLM."""

from __future__ import annotations

import asyncio
import os
import time
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

import anyio.to_thread
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

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
from dept_vl.serving.limits import ServeLimits
from dept_vl.serving.metrics import Metrics
from dept_vl.serving.protocol import ChatRequest, Completion, read_chat
from dept_vl.serving.vllm.adapters import EngineRequest, ProxiedAdapter
from dept_vl.serving.vllm.in_flight import InFlight
from dept_vl.serving.vllm.upstream import EngineAnswer, Upstream


class Proxy:
    """One proxy without its HTTP.

    Attributes:
        adapters: By name.
        upstream: The engine.
        limits: Its numbers; those about batches and the image cache do not concern it.
        queue: What is being answered.
        metrics: What it counts.
    """

    def __init__(self, adapters: Sequence[ProxiedAdapter], upstream: Upstream, limits: ServeLimits) -> None:
        self.adapters: Mapping[str, ProxiedAdapter] = {one.export.name: one for one in adapters}
        self.upstream = upstream
        self.limits = limits
        self.queue = InFlight(limits.max_queue)
        self.metrics = Metrics()


def make_proxy_app(proxy: Proxy) -> Starlette:
    """Returns the application of a proxy."""
    http = _Http(proxy)

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        yield
        await proxy.upstream.close()

    routes = [
        Route("/v1/chat/completions", answering(counted(proxy.metrics, http.chat)), methods=["POST"]),
        Route("/v1/models", answering(http.list_models), methods=["GET"]),
        Route("/v1/models/{name}", answering(http.show), methods=["GET"]),
        Route("/health", http.health, methods=["GET"]),
        Route("/metrics", http.metrics, methods=["GET"]),
    ]
    return make_starlette(routes, lifespan=lifespan)


class _Http:
    """The handlers of one proxy."""

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy
        # Decoding images is work for the CPU: as many at once as there are cores, and the others wait their turn.
        self._preparing = anyio.CapacityLimiter(os.cpu_count() or 1)

    async def chat(self, request: Request) -> Response:
        proxy = self._proxy
        body = await read_body(request, proxy.limits.max_body_bytes)
        with proxy.queue.one_more():
            asked = await anyio.to_thread.run_sync(self._prepare, body, limiter=self._preparing)
            chat, row = asked
            answer = await self._answer(request, row)
        if answer is None:
            return Response(status_code=CLIENT_LEFT)
        completion = Completion(
            uuid.uuid4().hex, int(time.time()), chat.model, answer.text,
            is_cut=answer.is_cut, prompt_tokens=len(row.ids), completion_tokens=answer.num_tokens,
        )  # fmt: skip
        return completed(completion, chat, row.notes)

    def _prepare(self, body: bytes) -> tuple[ChatRequest, EngineRequest]:
        chat = read_chat(body, max_text=self._proxy.limits.max_text)
        adapter = self._proxy.adapters.get(chat.model)
        if adapter is None:
            raise no_such_model(chat.model, "model")
        return chat, adapter.ask(chat, max_pixels=self._proxy.limits.max_pixels)

    async def _answer(self, request: Request, row: EngineRequest) -> EngineAnswer | None:
        """Waits for the engine; None where the client leaves before, and the engine is left too."""
        answer = asyncio.ensure_future(self._ask(request, row))
        leaving = asyncio.ensure_future(left(request))
        try:
            await asyncio.wait({answer, leaving}, return_when=asyncio.FIRST_COMPLETED)
            return answer.result() if answer.done() else None
        finally:
            leaving.cancel()
            answer.cancel()

    async def _ask(self, request: Request, row: EngineRequest) -> EngineAnswer:
        key = request.headers.get("authorization")
        headers = {} if key is None else {"authorization": key}
        model = await self._proxy.upstream.model(headers)
        return await self._proxy.upstream.answer({**row.body, "model": model}, headers)

    async def list_models(self, _request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [one.describe() for one in self._proxy.adapters.values()]})

    async def show(self, request: Request) -> Response:
        name = request.path_params["name"]
        adapter = self._proxy.adapters.get(name)
        if adapter is None:
            raise no_such_model(name)
        return JSONResponse(adapter.describe())

    async def health(self, _request: Request) -> Response:
        is_draining = self._proxy.queue.is_draining
        return JSONResponse({"status": "shutting down" if is_draining else "ok"}, 503 if is_draining else 200)

    async def metrics(self, _request: Request) -> Response:
        proxy = self._proxy
        text = proxy.metrics.text(queue_length=len(proxy.queue), adapters=len(proxy.adapters))
        return PlainTextResponse(text, media_type="text/plain; version=0.0.4")
