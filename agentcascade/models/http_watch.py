"""What the HTTP behind one model call came to: was it sent, refused, answered, read to its end."""

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


class Watch:
    """What the HTTP exchanges of one model call came to, as far as the hooks saw them."""

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
        if causes & NEVER_SENT:
            return False
        if self.state == "idle":  # nothing went by the hooks: some provider's own way of asking
            return bool(causes & {"CancelledError", "TimeoutError", "Timeout", "APITimeoutError"})
        return True


def current() -> Watch | None:
    return _current.get()


_current: ContextVar[Watch | None] = ContextVar("agentcascade_watch", default=None)


@contextmanager
def watched(streamed: bool = False) -> Iterator[Watch]:
    """One model call, whose answer may be `streamed`: bounds hold inside."""
    watch = Watch(streamed)
    token = _current.set(watch)
    try:
        yield watch
    finally:
        _current.reset(token)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    for _ in range(10):
        if error is None:
            return
        yield error
        error = error.__cause__ or error.__context__
