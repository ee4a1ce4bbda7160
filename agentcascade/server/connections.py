"""HTTP connections with limits: uvicorn's protocol by itself waits for slow clients and keeps endless headers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_BYTES, HEADERS = 256 * 1024, 256
"""The longest request head (its line and all headers), and the most headers in it."""
FIRST_SECONDS = 1.0
"""For the first request on a connection that was opened as the server stopped."""
UNREAD_SECONDS = 30.0
"""For the rest of a body that is thrown away, since its request was refused before it was read."""


class LimitedProtocol(HttpToolsProtocol):
    """A client must send its request's head within `header_seconds` and `HEAD_BYTES`, and end what it has begun.

    The body of a request that was answered before it was read is thrown away as it comes: who sends it to its end gets
    to read the answer. At module level, since worker processes get it pickled.
    """

    def __init__(self, *arguments: Any, header_seconds: float, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._header_seconds = header_seconds
        self._cutoff: asyncio.TimerHandle | None = None
        self._in_head = True
        self._begun = False
        self._stopping = False
        self._size = self._count = 0

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._wait(self._header_seconds)

    def data_received(self, data: bytes) -> None:
        waiting = self._in_head
        super().data_received(data)
        if waiting and self._in_head:  # all of it belonged to a head that is still not whole
            self._size += len(data)
            if self._size > HEAD_BYTES:
                self._too_large()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = True
        self._begun = True
        self._size = 0
        self._count = 0
        if self._cutoff is None:  # a further request on a kept connection
            self._wait(self._header_seconds)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Also called for each trailer behind a body."""
        self._count += 1
        self._size += len(name) + len(value) + 4
        if self._count > HEADERS or self._size > HEAD_BYTES:
            self._too_large()
            raise ValueError("the request's head is too large")  # the parser stops, and closes what is not closed yet
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._stop_waiting()
        super().on_headers_complete()
        if self._stopping and self.cycle is not None:
            self.cycle.keep_alive = False

    def on_message_complete(self) -> None:
        self._begun = False
        self._in_head = True
        self._stop_waiting()
        super().on_message_complete()
        if self.cycle is not None and self.cycle.response_complete:  # the data stopped the clock of an idle connection
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._begun:  # the rest of its body is still to come
            self._stop_waiting()
            self._wait(UNREAD_SECONDS)

    def connection_lost(self, error: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(error)

    def shutdown(self) -> None:
        """The server stops. Who has just connected was promised an answer: the request may be on its way."""
        if self.cycle is None and not self.transport.is_closing():
            self._stopping = True
            self._stop_waiting()
            self._wait(min(self._header_seconds, FIRST_SECONDS))
        else:
            super().shutdown()

    def send_400_response(self, msg: str) -> None:
        if self.transport is not None and not self.transport.is_closing():
            super().send_400_response(msg)

    def _too_large(self) -> None:
        if self.transport.is_closing():
            return
        if self._in_head and (self.cycle is None or self.cycle.response_complete):
            body = b"the request's head is too large"
            lines = [b"HTTP/1.1 431 Request Header Fields Too Large", b"content-type: text/plain", b"connection: close"]
            lines.append(b"content-length: %d" % len(body))
            self.transport.write(b"\r\n".join(lines) + b"\r\n\r\n" + body)
        self.transport.close()

    def _wait(self, seconds: float) -> None:
        self._cutoff = self.loop.call_later(seconds, self._too_slow)

    def _stop_waiting(self) -> None:
        if self._cutoff is not None:
            self._cutoff.cancel()
            self._cutoff = None

    def _too_slow(self) -> None:
        self._cutoff = None
        if self.transport is not None and not self.transport.is_closing():
            self.transport.close()


def limited_protocol(header_seconds: float) -> Callable[..., LimitedProtocol]:
    """A factory of protocols for uvicorn's option `http`."""
    return partial(LimitedProtocol, header_seconds=header_seconds)
