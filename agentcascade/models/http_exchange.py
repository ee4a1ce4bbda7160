"""HTTP exchange of one model call: was it sent, refused, answered, read to its end, and so, may it be billed.

`http_limits` fills it in by hooks on the HTTP client; this module is apart since importing httpx takes long.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal

from agentcascade.errors import ProviderError

NEVER_SENT = {
    *("ConnectError", "ConnectTimeout", "PoolTimeout", "ConnectionRefusedError", "gaierror", "UnsupportedProtocol"),
}
"""Names of errors before which nothing of a request went out."""
UNDER_WAY = {"ClientOSError", "ClientConnectionResetError", "ServerDisconnectedError", "ClientPayloadError"}
"""aiohttp's of a connection that broke in use: some transports (litellm's, httpx-aiohttp) say it was never made."""


class HttpExchange:
    """What the HTTP of one model call came to, as far as the hooks saw it."""

    def __init__(self, streamed: bool = False) -> None:
        self.streamed = streamed
        self.state: Literal["idle", "sent", "answering", "refused"] = "idle"
        self.done = False
        """Whether a stream said ``[DONE]``."""
        self.broken = ""
        """Why reading the answer was given up."""

    def check(self) -> None:
        """Raises `ProviderError` for an answer that was not read to its end."""
        if self.broken:
            raise ProviderError(f"the answer was not read to its end: {self.broken}")

    def may_be_billed(self, error: BaseException) -> bool:
        """Whether the call that ended in `error` may have made the provider work."""
        if self.state == "refused":
            return False
        causes = {type(e).__name__ for e in _causes(error)}
        if causes & NEVER_SENT and not causes & UNDER_WAY:
            return False
        if self.state == "idle":  # nothing went by the hooks: some provider's own way of asking
            return bool(causes & {"CancelledError", "TimeoutError", "Timeout", "APITimeoutError"})
        return True


def current_exchange() -> HttpExchange | None:
    """That of the model call under way; None outside `watch_http`."""
    return _current.get()


_current: ContextVar[HttpExchange | None] = ContextVar("agentcascade_http_exchange", default=None)


@contextmanager
def watch_http(streamed: bool = False) -> Iterator[HttpExchange]:
    """One model call, whose answer may be `streamed`: inside, the limits of `http_limits` hold."""
    exchange = HttpExchange(streamed)
    token = _current.set(exchange)
    try:
        yield exchange
    finally:
        _current.reset(token)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    for _ in range(10):
        if error is None:
            return
        yield error
        error = error.__cause__ or error.__context__
