"""Step routes: requests of every wire protocol, each one step of some agent, answered by the cascade they name."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack, contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

from agentcascade.episodes import identity
from agentcascade.server import wire
from agentcascade.server.errors import Problem, Refused, invalid
from agentcascade.server.event_stream import EventStream, RunningTasks, unless_gone
from agentcascade.server.keepalive import KeepAlive
from agentcascade.server.wire_protocol import Caller, StepRequest, WireProtocol
from agentcascade.step.effort_ceiling import HEADER as CEILING_HEADER
from agentcascade.step.effort_ceiling import OPTION as CEILING
from agentcascade.types import Decision

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agentcascade.cascade import Cascade
    from agentcascade.episodes.episode import Episode
    from agentcascade.server.auth import Gate, Tenant
    from agentcascade.server.passthrough import Api, CallersCascade


class StepRoutes:
    """Answers requests with the cascade that their `model` names; at most `max_requests` at once, of all protocols.

    A stream that is silent for `keepalive_seconds` is kept alive; 0: it is not.
    """

    def __init__(
        self,
        cascades: Mapping[str, Cascade],
        gate: Gate,
        max_requests: int,
        keepalive_seconds: float,
        callers: CallersCascade | None = None,
    ) -> None:
        self._cascades = cascades
        self._callers = callers
        self._gate = gate
        self._max, self._keepalive_seconds = max_requests, keepalive_seconds or None
        self._under_way = 0
        self._work: RunningTasks = set()
        self._nobody = asyncio.Event()
        self._nobody.set()

    async def answer(self, request: Request, protocol: WireProtocol) -> Response:
        """The answer to a request of `protocol`; raises what went wrong before its first byte."""
        caller, body = await self.enter(request)
        tenant = caller.tenant
        with self.place():
            model, data = await protocol.read(body, caller)
            del body
            cascade = self.cascade(model, caller, protocol.api)
            step = with_ceiling(await protocol.request(data, cascade, caller), request.headers)
            episode = identity.episode_of(
                cascade.engine,
                step.messages,
                metadata=step.metadata,
                headers=request.headers,
                namespace=tenant.namespace,
                accounts=tenant.accounts,
            )
            request.state.log_fields = {"cascade": cascade.name, "key": tenant.key, "episode": episode.id}
            if not step.stream:
                response = await self._whole(request, episode, step, protocol)
        if step.stream:
            response = await self._streamed(request, episode, step, protocol)
        if step.ignored:
            response.headers["x-agentcascade-ignored"] = ",".join(step.ignored)
        return response

    async def enter(self, request: Request) -> tuple[Caller, bytes]:
        """The caller of a request that counts, and its body: read only of those who may ask, however long it takes."""
        caller = Caller(await self._gate.enter(request.headers), request.headers)
        return caller, await request.body()

    async def idle(self, seconds: float = 3.0) -> None:
        """Wait until what a stopping server has cancelled is over and recorded, but no longer than `seconds`."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._nobody.wait()

    def cancel(self) -> None:
        """End what is under way: its clients see the connection break off, its bills are booked."""
        for task in self._work:
            task.cancel()

    def cascade(self, name: str, caller: Caller, api: Api) -> Cascade:
        """The cascade that a request's `model` names; or, in pass-through, one whose teacher is that model.

        Raises `Refused` (404), and in pass-through `InvalidKey` without a key of the model's provider.
        """
        callers = self._callers
        if callers is None or name in self._cascades or not caller.tenant.may_use(callers.cascade.name):
            return self.find(name, caller.tenant)
        teacher = callers.models.teacher(api, name, caller.headers)
        return callers.cascade.twin(teacher=teacher, response_cache=None)  # what one caller's key paid for is its own

    def find(self, name: str, tenant: Tenant) -> Cascade:
        """The cascade of that name, if the tenant may use it."""
        cascade = self._cascades.get(name)
        if cascade is None or not tenant.may_use(name):
            raise invalid(
                f"there is no model '{name[:80]}' here: GET /v1/models lists those that there are",
                param="model", status=404, code="model_not_found",
            )  # fmt: skip
        return cascade

    @contextmanager
    def place(self) -> Iterator[None]:
        """One of the `max_requests` places; raises `Refused` (503) when all are taken."""
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

    async def _whole(self, request: Request, episode: Episode, step: StepRequest, protocol: WireProtocol) -> Response:
        work = episode.answer(step.messages, tools=step.tools, options=step.options)
        answer = await unless_gone(request, work, self._work)
        body = await protocol.answer(step, answer)
        return Response(to_json(body), media_type="application/json", headers=_headers(answer.decision))

    async def _streamed(
        self, request: Request, episode: Episode, step: StepRequest, protocol: WireProtocol
    ) -> Response:
        async with AsyncExitStack() as stack:
            stack.enter_context(self.place())
            stream = await stack.enter_async_context(
                episode.stream(step.messages, tools=step.tools, render_decision=wire.decision_fields, **step.options)
            )
            await unless_gone(request, stream.begin(self._keepalive_seconds), self._work)
            headers = {"x-agentcascade-episode": episode.id}
            events = protocol.events(step, stream)
            keepalive = KeepAlive(protocol.keepalive, self._keepalive_seconds)
            return EventStream(events, stack.pop_all(), headers, self._work, protocol.error_event, keepalive)


def with_ceiling(step: StepRequest, headers: Mapping[str, str]) -> StepRequest:
    """The request with the ceiling of effort that its headers name, whatever its protocol."""
    ceiling = headers.get(CEILING_HEADER)
    return step if ceiling is None else replace(step, options={**step.options, CEILING: ceiling})


def _headers(decision: Decision) -> dict[str, str]:
    return {"x-agentcascade-episode": decision.episode, "x-agentcascade-answered-by": decision.answered_by}
