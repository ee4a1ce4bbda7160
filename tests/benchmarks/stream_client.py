"""Load of streamed requests that costs little itself: bare asyncio protocols, timed to the first event of an answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from functools import partial
from urllib.parse import urlsplit

END = b"0\r\n\r\n"


class Reader(asyncio.Protocol):
    """One connection that asks again and again until `until`; `firsts` takes the seconds to each first event."""

    def __init__(self, requests: Sequence[bytes], start: int, until: float, firsts: list[float]) -> None:
        self._requests, self._next, self._until, self._firsts = requests, start, until, firsts
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._ask()

    def _ask(self) -> None:
        if time.perf_counter() >= self._until:
            self._transport.close()
            return
        self._data, self._first = b"", 0.0
        self._asked = time.perf_counter()
        self._transport.write(self._requests[self._next % len(self._requests)])
        self._next += 1

    def data_received(self, data: bytes) -> None:
        self._data += data
        if not self._first and b"data: " in self._data:
            assert self._data.startswith(b"HTTP/1.1 200"), self._data[:300]
            self._first = time.perf_counter() - self._asked
        if self._data.endswith(END):
            assert b"data: [DONE]" in self._data, self._data[-300:]
            self._firsts.append(self._first)
            self._ask()

    def connection_lost(self, error: Exception | None) -> None:
        if self.over.done():
            return
        if time.perf_counter() < self._until:
            self.over.set_exception(error or ConnectionError("the server closed the connection"))
        else:
            self.over.set_result(None)


async def load(
    url: str, key: str, bodies: Sequence[bytes], connections: int, seconds: float
) -> tuple[list[float], float]:
    """(seconds to the first event, of each request; seconds that all took together)."""
    parts = urlsplit(url)
    head = (
        f"POST {parts.path} HTTP/1.1\r\nhost: {parts.netloc}\r\nauthorization: Bearer {key}\r\n"
        "content-type: application/json\r\ncontent-length: "
    )
    requests = [f"{head}{len(body)}\r\n\r\n".encode() + body for body in bodies]
    started, firsts, loop = time.perf_counter(), list[float](), asyncio.get_running_loop()
    made = [partial(Reader, requests, 7 * i, started + seconds, firsts) for i in range(connections)]
    assert parts.hostname
    assert parts.port
    opened = [await loop.create_connection(make, parts.hostname, parts.port) for make in made]
    await asyncio.gather(*(reader.over for _, reader in opened))
    return firsts, time.perf_counter() - started
