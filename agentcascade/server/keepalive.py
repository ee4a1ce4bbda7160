"""Keep-alive of event streams: an event that says nothing, whenever nothing came for long.

Balancers and proxies cut a connection off on which nothing comes for a minute or less, while samples are drawn or a
teacher thinks; the client asks again, and pays twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
COMMENT = b": keep-alive\n\n"
"""That no reader of server-sent events hands on."""


class KeepAlive(NamedTuple):
    """What is sent on a stream that was silent for `seconds`; None: nothing ever."""

    event: bytes
    seconds: float | None

    @asynccontextmanager
    async def sending(self, send: Send) -> AsyncIterator[Callable[[bytes], Awaitable[None]]]:
        """Gives what sends an event, by `send` of ASGI. None of this goes out after the block."""

        async def send_event(event: bytes) -> None:
            await send({"type": "http.response.body", "body": event, "more_body": True})

        if self.seconds is None:
            yield send_event
            return
        ticker = _Ticker(send_event, self.event, self.seconds)
        try:
            yield ticker.send
        finally:
            await ticker.stop()


class _Ticker:
    """Sends events, and `keepalive` where none came for `seconds`. It costs a stream a timer, not a task."""

    def __init__(self, send: Callable[[bytes], Awaitable[None]], keepalive: bytes, seconds: float) -> None:
        self._send, self._keepalive, self._seconds = send, keepalive, seconds
        self._loop = asyncio.get_running_loop()
        self._last, self._sends = self._loop.time(), False
        self._pinging: asyncio.Future[None] | None = None
        self._timer = self._loop.call_later(seconds, self._look)

    async def send(self, event: bytes) -> None:
        self._sends = True
        try:
            await self._send(event)
        finally:
            self._last, self._sends = self._loop.time(), False

    def _look(self) -> None:
        silent = 0.0 if self._sends else self._loop.time() - self._last
        if silent >= self._seconds:
            if self._pinging is None or self._pinging.done():  # who does not read is sent no more
                self._pinging = asyncio.ensure_future(self._send(self._keepalive))
                # some servers raise for a client that is gone, of which the stream itself learns elsewhere
                self._pinging.add_done_callback(lambda pinging: pinging.cancelled() or pinging.exception())
            self._last, silent = self._loop.time(), 0.0
        self._timer = self._loop.call_later(self._seconds - silent, self._look)

    async def stop(self) -> None:
        self._timer.cancel()
        if self._pinging is not None:
            self._pinging.cancel()
            await asyncio.gather(self._pinging, return_exceptions=True)
