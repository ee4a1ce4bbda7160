"""Server-sent events whose data is JSON, read from an HTTP body."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any


async def read_events(body: AsyncIterator[bytes]) -> AsyncIterator[Any]:
    """The data of each event, as plain data; other fields, comments and ``[DONE]`` are passed over.

    Lines end in LF, CRLF or CR, as the standard says. Raises `ValueError` for data that is no JSON. What a hostile body
    may cost is bounded by `http_limits`.
    """
    data: list[str] = []
    async for line in _lines(body):
        if line:
            name, _, value = line.partition(b":")
            if name == b"data":
                data.append(value.removeprefix(b" ").decode("utf-8", errors="replace"))
        elif data:
            text, data = "\n".join(data), []
            if text.strip() != "[DONE]":
                yield json.loads(text)
    if data and (text := "\n".join(data)).strip() != "[DONE]":  # a last one without a blank line behind it
        yield json.loads(text)


async def _lines(body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    rest: list[bytes] = []
    ended_in_return = False
    async for piece in body:
        if ended_in_return and piece.startswith(b"\n"):
            piece = piece[1:]
        ended_in_return = piece.endswith(b"\r")
        *whole, last = piece.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        for line in whole:
            rest.append(line)
            yield b"".join(rest)
            rest = []
        if last:
            rest.append(last)
    if rest:
        yield b"".join(rest)
