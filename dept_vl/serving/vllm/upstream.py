"""The engine behind a proxy: the one address that is ever asked. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from dept_vl.errors import first_line, shown
from dept_vl.serving.errors import RequestError
from dept_vl.system.bounded_reading import parse_json

_MAX_ANSWER_BYTES = 4 << 20
_SAID = 300
"""Characters that are repeated of what the engine says."""


@dataclass(frozen=True)
class EngineAnswer:
    """What the engine answers.

    Attributes:
        text: Without blanks around it, as the run's own answers are.
        is_cut: Whether the number of tokens ended it.
        num_tokens: Of the answer.
    """

    text: str
    is_cut: bool
    num_tokens: int


class Upstream:
    """Asks vLLM; no redirect is followed, and no proxy of the environment is used."""

    def __init__(self, address: str, *, model: str | None, timeout_s: float) -> None:
        """Asks nothing yet.

        Args:
            address: Without ``/v1``.
            model: The engine's name of the backbone; None for the first that it lists.
            timeout_s: How long an answer is waited for, in seconds.
        """
        self.address = address
        self._given = model
        self._listed: str | None = None
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=32)
        self._client = httpx.AsyncClient(
            timeout=timeout_s, follow_redirects=False, trust_env=False, limits=limits, base_url=address
        )

    async def model(self, headers: Mapping[str, str]) -> str:
        """Returns the engine's name of the backbone, which it is asked once, and again when it has refused a request.

        Args:
            headers: Sent along.

        Raises:
            RequestError: As `answer`.
        """
        if self._given is not None:
            return self._given
        if self._listed is None:
            listed = await self._ask("GET", "/v1/models", headers)
            try:
                self._listed = str(listed["data"][0]["id"])
            except (KeyError, IndexError, TypeError):
                raise self._odd(listed) from None
        return self._listed

    async def answer(self, body: Mapping[str, Any], headers: Mapping[str, str]) -> EngineAnswer:
        """Returns the engine's answer to a chat request.

        Args:
            body: Of the request.
            headers: Sent along.

        Raises:
            RequestError: It cannot be reached, takes too long, refuses, or answers in another form.
        """
        made = await self._ask("POST", "/v1/chat/completions", headers, body)
        try:
            (choice,) = made["choices"]
            text, num_tokens = choice["message"]["content"] or "", made["usage"]["completion_tokens"]
            return EngineAnswer(str(text).strip(), choice["finish_reason"] == "length", int(num_tokens))
        except (KeyError, TypeError, ValueError, OverflowError):
            raise self._odd(made) from None

    async def close(self) -> None:
        """Closes its connections."""
        await self._client.aclose()

    async def _ask(self, method: str, path: str, headers: Mapping[str, str], body: Any = None) -> Any:
        try:
            sent = httpx.Headers(headers, encoding="latin-1")  # as a client may send them, and Starlette reads them
            async with self._client.stream(method, path, headers=sent, json=body) as response:
                content = b""
                async for chunk in response.aiter_bytes():
                    content += chunk
                    if len(content) > _MAX_ANSWER_BYTES:
                        raise self._failed("answered with more than 4 MiB")
        except httpx.TimeoutException:
            raise RequestError(
                504, f"the engine at {self.address} did not answer in time", code="engine_timeout"
            ) from None
        except (httpx.HTTPError, httpx.StreamError) as error:
            raise self._failed(f"cannot be asked: {first_line(error) or type(error).__name__}") from None
        try:
            value = parse_json(content)
        except ValueError:
            raise self._failed(f"answered {response.status_code} with no JSON") from None
        if response.status_code != 200:
            self._listed = None  # the engine may have been started again with another model
            said = value.get("error", value) if isinstance(value, dict) else value
            said = said.get("message", said) if isinstance(said, dict) else said
            raise self._failed(f"answered {response.status_code}: {said!s:.{_SAID}}")
        return value

    def _odd(self, value: Any) -> RequestError:
        return self._failed(f"answered in another form than OpenAI's: {shown(value)}")

    def _failed(self, what: str) -> RequestError:
        return RequestError(502, f"the engine at {self.address} {what}", code="engine_failed")
