"""Events of a streamed chat completion as plain data: what the SDK's `AsyncStream` reads, without its objects."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from typing import Any, Self

import httpx
from openai import APIError
from openai._streaming import SSEDecoder

END = b"\n\n"
END_SECONDS = 0.25
"""For which the end of a body is waited for behind its last event; a new connection takes about as long."""


class ChunkStream:
    """The chunks of a response whose body is still to be read, which is closed with the context."""

    def __init__(self, response: httpx.Response) -> None:
        self._response = response

    async def __aiter__(self) -> AsyncIterator[Any]:
        """Raises `APIError` for an error that comes as an event, and `ValueError` for data that is no JSON."""
        body = self._response.aiter_bytes()
        async for text in event_data(body):
            if text.startswith("[DONE]"):
                await _read_on(body)
                return
            data = json.loads(text)
            if isinstance(data, Mapping) and data.get("error"):
                error = data["error"]
                said = error.get("message") if isinstance(error, Mapping) else None
                message = said if said and isinstance(said, str) else "An error occurred during streaming"
                raise APIError(message=message, request=self._response.request, body=error)
            yield data

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._response.aclose()


async def _read_on(body: AsyncIterator[bytes]) -> None:
    """Wait for the end of a body whose last event was read: it often comes in a packet of its own.

    A connection that is closed before is not used again, which costs the next stream a handshake.
    """
    with suppress(TimeoutError, httpx.HTTPError):
        async with asyncio.timeout(END_SECONDS):
            async for _ in body:
                pass


async def event_data(body: AsyncIterator[bytes]) -> AsyncIterator[str]:
    """The data of each event.

    Events of one line of data, ended by line feeds, are all that most servers send. From whatever else comes first on,
    the SDK's own decoder reads.
    """
    waiting: list[bytes] = []
    async for piece in body:
        is_end = piece.startswith(b"\n") and bool(waiting) and waiting[-1].endswith(b"\n")
        waiting.append(piece)
        if b"\r" in piece:
            break
        if not is_end and END not in piece:
            continue
        blocks = b"".join(waiting).split(END)
        waiting = [blocks.pop()]
        for index, block in enumerate(blocks):
            if block.startswith(b"data:") and b"\n" not in block:
                yield block[5:].decode().removeprefix(" ")
            elif block and (block[:1] != b":" or b"\n" in block):
                waiting = [END.join([*blocks[index:], *waiting])]
                break
        else:
            continue
        break
    else:
        return
    async for event in SSEDecoder().aiter_bytes(_then(waiting, body)):
        yield event.data


async def _then(first: list[bytes], rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield b"".join(first)
    async for piece in rest:
        yield piece
