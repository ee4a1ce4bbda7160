"""Answers of providers, read within bounds: what a client would choke on is not handed to it."""

import asyncio
from collections.abc import AsyncIterator

import aiohttp
import httpx
import pytest

from agentcascade.models import http_limits
from agentcascade.models.http_exchange import HttpExchange


class Flood(httpx.AsyncByteStream):
    """It always has more, so that whoever reads it never waits."""

    def __init__(self, data: bytes) -> None:
        self.data, self.closed = data, False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            yield self.data

    async def aclose(self) -> None:
        self.closed = True


@pytest.mark.parametrize("lines", [b"data: a\n", b"data: a\r\n", b"data: a\r", b": a\n"])
def test_an_event_has_no_end_of_lines(lines: bytes) -> None:
    exchange = HttpExchange(streamed=True)
    reader = http_limits.BodyReader(exchange, "identity", True)
    handed = sum(len(piece) for _ in range(2000) for piece in reader.read(lines * 3))
    assert "lines" in exchange.broken
    assert handed <= (http_limits.MAX_EVENT_LINES + 10) * len(lines)


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n", b"\r\r"])
@pytest.mark.parametrize("size", [1, 3, 7, 64, 5000])
def test_many_events_are_no_long_one_however_they_are_cut(end: bytes, size: int) -> None:
    exchange = HttpExchange(streamed=True)
    reader = http_limits.BodyReader(exchange, "identity", True)
    data = (b"event: x\ndata: {}" + end) * 3000
    assert b"".join(p for i in range(0, len(data), size) for p in reader.read(data[i : i + size])) == data
    assert not exchange.broken


def test_a_flood_leaves_the_loop_its_turn() -> None:
    async def read() -> int:
        reader = http_limits.BodyReader(HttpExchange(streamed=True), "identity", True)
        return sum([len(piece) async for piece in http_limits._AsyncStream(Flood(b": ping\n\n" * 8000), reader)])

    async def main() -> bool:
        reading, turns = asyncio.create_task(read()), 0
        while not reading.done():
            await asyncio.sleep(0)
            turns += 1
        return turns > 100 and await reading <= http_limits.MAX_BODY

    assert asyncio.run(main())


@pytest.mark.parametrize(("cause", "billed"), [(aiohttp.ClientOSError(104), True), (ConnectionRefusedError(), False)])
def test_a_reset_that_a_transport_calls_a_failed_connection_may_be_billed(cause: Exception, billed: bool) -> None:
    """litellm's and httpx-aiohttp's transports say `ConnectError` and `ConnectTimeout` of connections reset in use."""
    exchange = HttpExchange()
    exchange.state = "sent"
    for kind in (httpx.ConnectError, httpx.ConnectTimeout):
        error = kind("connection reset by peer")
        error.__cause__ = cause
        assert exchange.may_be_billed(error) is billed
