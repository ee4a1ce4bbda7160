"""`POST /v1/episodes/{id}/feedback`: how an episode ended. In mode ``collect`` a success becomes demonstrations."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from agentcascade.episodes import identity, stateless
from agentcascade.episodes.turns import Turns
from agentcascade.errors import UnknownEpisode, describe
from agentcascade.server import wire
from agentcascade.server.errors import Problem, Refused, invalid
from agentcascade.storage.drafts import UnfinishedEpisode

if TYPE_CHECKING:
    from starlette.requests import Request

    from agentcascade.cascade import Cascade
    from agentcascade.server.auth import Gate, Tenant


log = logging.getLogger("agentcascade.server")
AT_WORK, AGAIN = 8, 2
"""Feedbacks that the database is asked for at once, and those on episodes that it did not know."""
WAITING, UNKNOWN = 256, 256
"""Feedbacks that wait for their turn or a judge, and for episodes that nobody knows yet: more are told to come back."""


class FeedbackRoute:
    """Closes episodes of the caller's own namespace, a few at a time, each within `seconds`.

    What takes longer goes on behind the answer (503): who asks again gets its outcome, and nothing is done twice.
    """

    def __init__(self, cascades: Mapping[str, Cascade], gate: Gate, seconds: float) -> None:
        self._cascades = cascades
        self._gate = gate
        self._seconds = seconds
        self._running: dict[tuple[Any, ...], asyncio.Task[dict[str, Any]]] = {}
        self._unknown = 0
        self._turns = Turns(asyncio.Semaphore(AT_WORK), asyncio.Semaphore(AGAIN), self._waiting)

    async def __call__(self, request: Request, episode: str) -> dict[str, Any]:
        tenant = await self._gate.enter(request.headers)
        data = wire.parse_body(await request.body(), wire.Feedback)
        id = identity.checked_id(episode)
        same = (tenant.key, tenant.namespace, id, data.get("success"))
        task = self._running.get(same)
        if task is None:
            if len(self._running) - self._unknown >= WAITING:
                raise _later("too many feedbacks are under way: send this one again", "overloaded")
            task = self._running[same] = asyncio.create_task(self._closed(tenant, data, id))
            task.add_done_callback(lambda done: self._over(same, done))
        await asyncio.wait({task}, timeout=self._seconds)
        if not task.done():
            raise _later(
                f"the feedback took longer than {self._seconds:g} seconds and goes on (server.feedback_seconds): "
                "send it again for its outcome",
                "feedback_pending",
            )
        return task.result()

    async def settle(self, seconds: float) -> None:
        """Wait for those under way, but no longer than `seconds`."""
        if self._running:
            await asyncio.wait(self._running.values(), timeout=seconds)

    def _over(self, same: tuple[Any, ...], task: asyncio.Task[dict[str, Any]]) -> None:
        del self._running[same]
        if not task.cancelled() and (error := task.exception()) is not None:
            log.info("a feedback failed: %s", describe(error))  # perhaps nobody waits for it any more

    async def _closed(self, tenant: Tenant, data: Mapping[str, Any], id: str) -> dict[str, Any]:
        unfinished = await self._find(tenant, id)
        cascade = self._cascades.get(unfinished.cascade)
        if cascade is None or not tenant.may_use(unfinished.cascade):
            raise UnknownEpisode(f"there is no episode '{id}' here")
        if data.get("success") is None and cascade.context.judge is None:
            raise invalid("success must be true or false: the cascade has no judge (judge.model)", param="success")
        reason = await stateless.finish_or_say(
            cascade.engine, unfinished, data.get("success"), tenant.accounts, self._turns
        )
        return {"episode": id, "banked": not reason, **({"reason": reason} if reason else {})}

    @contextmanager
    def _waiting(self) -> Iterator[None]:
        """A wait for an episode that nobody knows yet, which takes no place of those that are known."""
        if self._unknown >= UNKNOWN:
            raise _later("the episode is not known yet: send its feedback again", "overloaded")
        self._unknown += 1
        try:
            yield
        finally:
            self._unknown -= 1

    async def _find(self, tenant: Tenant, episode: str) -> UnfinishedEpisode:
        """Looked for once in each namespace and database that the tenant's cascades work with."""
        places = {
            (id(c.context.database), tenant.namespace or c.config.bank.namespace): c
            for name, c in self._cascades.items()
            if tenant.may_use(name) and c.context.database is not None
        }
        lookups = [
            stateless.find_recorded(cascade.engine, namespace, episode, self._turns)
            for (_, namespace), cascade in places.items()
        ]
        for outcome in await asyncio.gather(*lookups, return_exceptions=True):
            if isinstance(outcome, UnfinishedEpisode):
                return outcome
            if not isinstance(outcome, UnknownEpisode):
                raise outcome
        raise UnknownEpisode(f"there is no episode '{episode}' here")


def _later(message: str, code: str) -> Refused:
    return Refused(Problem(503, message, "server_error", code, retry_after=5))
