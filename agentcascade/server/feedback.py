"""`POST /v1/episodes/{id}/feedback`: how an episode ended. In mode ``collect`` a success becomes demonstrations."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from agentcascade import drafts, identity
from agentcascade.errors import UnknownEpisode
from agentcascade.server import wire
from agentcascade.server.errors import invalid

if TYPE_CHECKING:
    from starlette.requests import Request

    from agentcascade.cascade import Cascade
    from agentcascade.server.auth import Gate, Tenant


class FeedbackRoute:
    """Closes episodes of the caller's own namespace."""

    def __init__(self, cascades: Mapping[str, Cascade], gate: Gate) -> None:
        self._cascades, self._gate = cascades, gate

    async def __call__(self, request: Request, episode: str) -> dict[str, Any]:
        tenant = await self._gate.enter(request.headers)
        data = wire.read(await request.body(), wire.Feedback)
        id = identity.checked_id(episode)
        found = await self._find(tenant, id)
        cascade = self._cascades.get(found.cascade)
        if cascade is None or not tenant.may_use(found.cascade):
            raise UnknownEpisode(f"there is no episode '{id}' here")
        if data.get("success") is None and cascade.judge is None:
            raise invalid("success must be true or false: the cascade has no judge (judge.model)", param="success")
        banked = await drafts.finish(cascade, found, data.get("success"), tenant.accounts)
        return {"episode": id, "banked": banked}

    async def _find(self, tenant: Tenant, episode: str) -> drafts.Unfinished:
        """Looked for once in each namespace and database that the tenant's cascades work with."""
        places = {
            (id(c.database), tenant.namespace or c.config.bank.namespace): c
            for name, c in self._cascades.items()
            if tenant.may_use(name) and c.database is not None
        }
        tries = [drafts.settled(cascade, namespace, episode) for (_, namespace), cascade in places.items()]
        for found in await asyncio.gather(*tries, return_exceptions=True):
            if isinstance(found, drafts.Unfinished):
                return found
            if not isinstance(found, UnknownEpisode):
                raise found
        raise UnknownEpisode(f"there is no episode '{episode}' here")
