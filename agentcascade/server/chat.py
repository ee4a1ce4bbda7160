"""`POST /v1/chat/completions`: one step of some agent, as JSON or as server-sent events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, MutableMapping
from contextlib import AsyncExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic_core import to_json
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from agentcascade.episodes import identity
from agentcascade.episodes.responses import as_json
from agentcascade.server import wire
from agentcascade.server.errors import Problem, Refused, explain, invalid
from agentcascade.types import Decision

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agentcascade.cascade import Cascade
    from agentcascade.episodes.episode import Episode
    from agentcascade.episodes.stream import StepStream
    from agentcascade.server.auth import Gate, Tenant

T = TypeVar("T")
RunningTasks = set[asyncio.Future[Any]]
"""What requests are waiting for."""


class Chat:
    """Answers chat requests with the cascade that their `model` names; at most `max_requests` at once."""

    def __init__(self, cascades: Mapping[str, Cascade], gate: Gate, max_requests: int) -> None:
        self._cascades = cascades
        self._gate = gate
        self._max = max_requests
        self._under_way = 0
        self._work: RunningTasks = set()
        self._nobody = asyncio.Event()
        self._nobody.set()

    async def __call__(self, request: Request) -> Response:
        tenant = await self._gate.enter(request.headers)
        body = await request.body()  # only of those who may ask, and without a place for as long as it takes
        with self._place():
            data = wire.parse_body(body, wire.ChatRequest)
            del body
            cascade = self.find(data["model"], tenant)
            episode = identity.episode_of(
                cascade.engine,
                data["messages"],
                metadata=data.get("metadata"),
                headers=request.headers,
                namespace=tenant.namespace,
                accounts=tenant.accounts,
            )
            request.state.log_fields = {"cascade": cascade.name, "key": tenant.key, "episode": episode.id}
            options, ignored = wire.options_of(data)
            if metadata := identity.provider_metadata(data.get("metadata")):
                options["metadata"] = metadata
            if not data.get("stream"):
                response = await self._whole(request, episode, data, options)
        if data.get("stream"):
            response = await self._streamed(request, episode, data, options)
        if ignored:
            response.headers["x-agentcascade-ignored"] = ",".join(ignored)
        return response

    async def idle(self, seconds: float = 3.0) -> None:
        """Wait until what a stopping server has cancelled is over and recorded, but no longer than `seconds`."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._nobody.wait()

    def cancel(self) -> None:
        """End what is under way: its clients see the connection break off, its bills are booked."""
        for task in self._work:
            task.cancel()

    def find(self, name: str, tenant: Tenant) -> Cascade:
        """The cascade of that name, if the tenant may use it."""
        cascade = self._cascades.get(name)
        if cascade is None or not tenant.may_use(name):
            raise invalid(
                f"there is no model '{name[:80]}' here: GET /v1/models lists those that there are",
                param="model", status=404, code="model_not_found",
            )  # fmt: skip
        return cascade

    async def _whole(
        self, request: Request, episode: Episode, data: Mapping[str, Any], options: Mapping[str, Any]
    ) -> Response:
        work = episode.answer(data["messages"], tools=data.get("tools"), options=options)
        completion, messages, decision = await _unless_gone(request, work, self._work)
        body = as_json(completion, messages, decision, wire.decision_fields(decision))
        return Response(to_json(body), media_type="application/json", headers=_headers(decision))

    async def _streamed(
        self, request: Request, episode: Episode, data: Mapping[str, Any], options: Mapping[str, Any]
    ) -> Response:
        stream_options = {"stream_options": data.get("stream_options") or {}, **options}
        async with AsyncExitStack() as stack:
            stack.enter_context(self._place())
            stream = await stack.enter_async_context(
                episode.stream(
                    data["messages"], tools=data.get("tools"), render_decision=wire.decision_fields, **stream_options
                )
            )
            await _unless_gone(request, stream.begin(), self._work)
            headers = {"x-agentcascade-episode": episode.id}
            return EventStream(_events(stream), stack.pop_all(), headers, self._work)

    @contextmanager
    def _place(self) -> Iterator[None]:
        if self._under_way >= self._max:
            raise Refused(
                Problem(503, "the server is busy: try again", "server_error", "overloaded", retry_after=1)
            )  # fmt: skip
        self._under_way += 1
        self._nobody.clear()
        try:
            yield
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._nobody.set()


async def _unless_gone(request: Request, work: Awaitable[T], all_work: RunningTasks) -> T:
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


def _headers(decision: Decision) -> dict[str, str]:
    return {"x-agentcascade-episode": decision.episode, "x-agentcascade-answered-by": decision.answered_by}


async def _events(stream: StepStream) -> AsyncIterator[bytes]:
    """The chunks as server-sent events; an error that comes after the first one is an event too, and the last."""
    try:
        async for chunk in stream:
            yield b"data: " + to_json(chunk) + b"\n\n"
    except Exception as error:
        yield b"data: " + to_json(explain(error).body()) + b"\n\n"
        return
    yield b"data: [DONE]\n\n"


class EventStream(Response):
    """Server-sent events. A client that goes away, also between two events, closes `stack` at once."""

    media_type = "text/event-stream"

    def __init__(
        self, events: AsyncIterator[bytes], stack: AsyncExitStack, headers: Mapping[str, str], all_work: RunningTasks
    ) -> None:
        super().__init__(headers={**headers, "x-accel-buffering": "no"})
        del self.headers["content-length"]
        self._events = events
        self._stack = stack
        self._all_work = all_work

    async def __call__(
        self,
        scope: MutableMapping[str, Any],
        receive: Callable[[], Awaitable[MutableMapping[str, Any]]],
        send: Callable[[MutableMapping[str, Any]], Awaitable[None]],
    ) -> None:
        async def push() -> None:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            async for event in self._events:
                await send({"type": "http.response.body", "body": event, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})

        async with self._stack:
            try:
                await _unless_gone(Request(scope, receive), push(), self._all_work)
            except Refused as error:  # the answer has begun, and the server is stopping
                last = b"data: " + to_json(error.problem.body()) + b"\n\n"
                await send({"type": "http.response.body", "body": last, "more_body": False})
