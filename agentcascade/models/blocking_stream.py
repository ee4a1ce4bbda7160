"""Streams of a blocking OpenAI client, opened and read in threads for an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import closing
from typing import Any

from agentcascade._util.threads import apart

_END = object()
"""Behind the last chunk: a server may send `null` among them."""


async def open_stream(create: Callable[..., Any], arguments: Mapping[str, Any]) -> Any:
    """The stream that ``create(**arguments)`` gives; one that opens when nobody waits any more is closed at once."""
    opening = asyncio.ensure_future(apart(create, **arguments))
    try:
        return await asyncio.shield(opening)
    except asyncio.CancelledError:
        opening.add_done_callback(_close)
        raise


def _close(opening: asyncio.Future[Any]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()


async def read_in_thread(stream: Any) -> AsyncGenerator[Any, None]:
    """The chunks of `stream` as they come. Raises what reading it raises; closes it also when cancelled."""
    loop = asyncio.get_running_loop()
    chunks: asyncio.Queue[tuple[Any, BaseException | None]] = asyncio.Queue()
    is_abandoned = False

    def put(chunk: Any, error: BaseException | None) -> None:
        loop.call_soon_threadsafe(chunks.put_nowait, (chunk, error))

    def read() -> None:
        try:
            with closing(stream):
                for chunk in stream:
                    if is_abandoned:
                        return
                    put(chunk, None)
            put(_END, None)
        except BaseException as error:
            if not is_abandoned:
                put(None, error)

    reading = asyncio.ensure_future(apart(read))
    try:
        while True:
            chunk, error = await chunks.get()
            if error is not None:
                raise error
            if chunk is _END:
                return
            yield chunk
    finally:
        is_abandoned = True
        if not reading.done():
            stream.close()
