"""Ends of streams: a connection is kept whose body ends behind its last event, and no end is waited for in vain."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from agentcascade.models import openai_events
from agentcascade.models.openai import OpenAIModel
from agentcascade.types import Delta
from tests.provider import last, part

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


def event(data: Any) -> bytes:
    return chunk(b"data: " + json.dumps(data).encode() + b"\n\n")


class Server:
    """Streams an answer; the end of its body comes when its last event was seen, if `ends`."""

    def __init__(self, ends: bool) -> None:
        self.ends, self.connections, self.seen = ends, 0, asyncio.Event()
        self.gone = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = next(int(h[15:]) for h in head.lower().split(b"\r\n") if h.startswith(b"content-length:"))
                await reader.readexactly(length)
                writer.write(HEAD + event(part({"content": "hello"}, "stop")) + event(last()))
                writer.write(chunk(b"data: [DONE]\n\n"))
                await writer.drain()
                if self.ends:
                    await self.seen.wait()
                    self.seen.clear()
                    writer.write(b"0\r\n\r\n")
                    await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            self.gone.set()
        finally:
            writer.close()


@asynccontextmanager
async def running(ends: bool) -> AsyncIterator[tuple[Server, Any]]:
    server = Server(ends)
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/v1"
    model = OpenAIModel("openai/m", api_base=url, api_key="k", retries=0)
    try:
        yield server, model
    finally:
        await model.aclose()
        listening.close()


async def test_a_connection_is_used_again_whose_end_comes_in_a_packet_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(openai_events, "END_SECONDS", 60.0)
    read_on = openai_events._read_on

    async with running(ends=True) as (server, model):

        async def and_tell(body: AsyncIterator[bytes]) -> None:
            asyncio.get_running_loop().call_soon(server.seen.set)
            await read_on(body)

        monkeypatch.setattr(openai_events, "_read_on", and_tell)
        for _ in range(3):
            deltas: list[Delta] = []
            answer = await model.stream([{"role": "user", "content": "Go."}], deltas.append)
            assert answer.messages[0]["content"] == "hello"
        assert server.connections == 1


async def test_an_end_that_never_comes_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openai_events, "END_SECONDS", 0.01)
    async with running(ends=False) as (server, model):
        answer = await model.stream([{"role": "user", "content": "Go."}], lambda delta: None)
        assert answer.messages[0]["content"] == "hello"
        async with asyncio.timeout(60):
            await server.gone.wait()
