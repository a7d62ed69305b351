"""What a request is answered with where it cannot be answered: a status and OpenAI's form of an error. No torch."""

from __future__ import annotations

from typing import Any

_TYPES = {429: "rate_limit_error", 500: "server_error", 502: "server_error", 503: "server_error", 504: "server_error"}


class RequestError(Exception):
    """A request is refused.

    Attributes:
        status: Of HTTP.
        param: The field that is at fault; None for the whole request.
        code: A word for programs.
    """

    def __init__(self, status: int, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.param = param
        self.code = code

    def body(self) -> dict[str, Any]:
        """Returns the JSON of the answer."""
        kind = _TYPES.get(self.status, "invalid_request_error")
        return {"error": {"message": str(self), "type": kind, "param": self.param, "code": self.code}}


class QueueFullError(RequestError):
    """As many rows wait as may."""

    def __init__(self, max_queue: int) -> None:
        super().__init__(429, f"{max_queue} requests are waiting; try again in a moment", code="queue_full")


class DrainingError(RequestError):
    """The server is about to end and takes nothing new."""

    def __init__(self) -> None:
        super().__init__(503, "the server is shutting down; ask another one", code="shutting_down")
