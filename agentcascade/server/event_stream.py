"""Server-sent events, and work that is cancelled when its client goes away or the server stops."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, MutableMapping
from contextlib import AsyncExitStack
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from agentcascade.server.errors import Problem, Refused, Told, explain
from agentcascade.server.keepalive import KeepAlive

T = TypeVar("T")
RunningTasks = set[asyncio.Future[Any]]
"""What requests are waiting for."""
FAILED = "failed"
"""In a request's state: the status of an error that came as an event, by which the request is counted."""


class EventStream(Response):
    """Server-sent events. A client that goes away, also between two events, closes `stack` at once.

    An error that comes after the head was sent is an event too, made by `error_event`, and the last.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        events: AsyncIterator[bytes],
        stack: AsyncExitStack,
        headers: Mapping[str, str],
        all_work: RunningTasks,
        error_event: Callable[[Problem], bytes],
        keepalive: KeepAlive,
    ) -> None:
        super().__init__(headers={**headers, "x-accel-buffering": "no"})
        del self.headers["content-length"]
        self._events = events
        self._stack = stack
        self._all_work = all_work
        self._error_event = error_event
        self._keepalive = keepalive

    async def __call__(
        self,
        scope: MutableMapping[str, Any],
        receive: Callable[[], Awaitable[MutableMapping[str, Any]]],
        send: Callable[[MutableMapping[str, Any]], Awaitable[None]],
    ) -> None:
        async def push() -> None:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            async with self._keepalive.sending(send) as send_event:
                async for event in self._with_error(scope["state"]):
                    await send_event(event)
            await send({"type": "http.response.body", "body": b"", "more_body": False})

        async with self._stack:
            try:
                await unless_gone(Request(scope, receive), push(), self._all_work)
            except Refused as error:  # the answer has begun, and the server is stopping
                scope["state"][FAILED] = error.problem.status
                last = self._error_event(error.problem)
                await send({"type": "http.response.body", "body": last, "more_body": False})

    async def _with_error(self, state: MutableMapping[str, Any]) -> AsyncIterator[bytes]:
        try:
            async for event in self._events:
                yield event
        except Told as error:
            state[FAILED] = error.problem.status
        except Exception as error:
            problem = explain(error)
            state[FAILED] = problem.status
            yield self._error_event(problem)


async def unless_gone(request: Request, work: Awaitable[T], all_work: RunningTasks) -> T:
    """What `work` gives; it is cancelled when the client goes away. Raises `ClientDisconnect` then.

    While it runs it is among `all_work`; raises `Refused` (503) when it is cancelled there.
    """
    task = asyncio.ensure_future(work)
    all_work.add(task)
    watch = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({task, watch}, return_when=asyncio.FIRST_COMPLETED)
        if task.cancelled():
            raise Refused(Problem(503, "the server is stopping: try again", "server_error", "stopping", retry_after=5))
        if task.done():
            return task.result()
        raise ClientDisconnect
    finally:
        all_work.discard(task)
        for unneeded in (task, watch):
            if not unneeded.done():
                unneeded.cancel()
        await asyncio.gather(task, watch, return_exceptions=True)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
