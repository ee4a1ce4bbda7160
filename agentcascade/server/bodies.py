"""Request bodies as they come in: bounded in size and time each, and in memory all together."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from agentcascade.server.errors import Problem, Refused

SMALL = 64 * 1024
"""A body up to this size is read however many are under way."""
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]


class BodyLimits:
    """Reads bodies for the routes that ask for one, which they do when they know who sends it.

    Each must come whole within `seconds` and `max_bytes`; of those still coming in, `max_incoming` bytes are held.
    """

    def __init__(self, *, max_bytes: int, seconds: float, max_incoming: int) -> None:
        self.max_bytes = max_bytes
        self.seconds = seconds
        self._max_incoming = max(max_incoming, max_bytes)
        self._held = 0

    def bounded(self, announced: bytes, receive: Receive) -> BoundedBody:
        """A request's body; `announced` is its Content-Length header, empty without one."""
        return BoundedBody(self, announced, receive)

    def hold(self, size: int, body_size: int) -> None:
        """Count `size` more bytes of a body that has `body_size` by now. Raises `Refused` (503) for too many."""
        if body_size > SMALL and self._held + size > self._max_incoming:
            raise Refused(
                Problem(503, "too many long requests are coming in: try again", "server_error", "overloaded",
                        retry_after=1)
            )  # fmt: skip
        self._held += size

    def release(self, size: int) -> None:
        """Count them no longer."""
        self._held -= size


class BoundedBody:
    """One request's `receive`, which raises `Refused` (408, 413, 503) when a limit is passed."""

    def __init__(self, bodies: BodyLimits, announced: bytes, receive: Receive) -> None:
        self._bodies = bodies
        self._announced = announced
        self._receive = receive
        self._deadline: float | None = None
        self._size = 0
        self._ended = False

    async def receive(self) -> MutableMapping[str, Any]:
        if self._ended:
            return await self._receive()  # whether the client is still there
        bodies = self._bodies
        if self._announced.isdigit() and int(self._announced) > bodies.max_bytes:
            raise self._too_long()
        if self._deadline is None:
            self._deadline = asyncio.get_running_loop().time() + bodies.seconds
        try:
            async with asyncio.timeout_at(self._deadline):
                message = await self._receive()
        except TimeoutError:
            late = "the request's body did not come in time"
            raise Refused(Problem(408, late, "invalid_request_error", "request_timeout")) from None
        part = len(message.get("body") or b"")
        if self._size + part > bodies.max_bytes:
            raise self._too_long()
        bodies.hold(part, self._size + part)
        self._size += part
        if message["type"] != "http.request" or not message.get("more_body"):
            self.end()
        return message

    def end(self) -> None:
        """It is whole, or nobody wants it any more."""
        if not self._ended:
            self._ended = True
            self._bodies.release(self._size)

    def _too_long(self) -> Refused:
        message = f"the body has more than {self._bodies.max_bytes} bytes (server.max_body_bytes)"
        return Refused(Problem(413, message, "invalid_request_error", "body_too_large"))
