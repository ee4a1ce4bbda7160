"""Authentication by API key: a tenant's namespace, accounts and cascades, or the server's own where none is needed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from agentcascade.errors import InvalidKey, StorageError, describe
from agentcascade.types import Account

if TYPE_CHECKING:
    from agentcascade.storage.keys import ApiKey, Keys
    from agentcascade.storage.rate_limiter import RateLimiter
    from agentcascade.storage.sessions import Sessions


log = logging.getLogger("agentcascade.server")
RATE_SECONDS = 2.0
SESSION_SECONDS = 12 * 3600.0
KEY_HEADER = "x-agentcascade-key"
"""Where the usual headers hold a key of the caller's own provider (`passthrough`)."""


class Tenant(NamedTuple):
    """The caller of a request, and what it may do."""

    namespace: str | None
    """None: that of the cascade."""
    accounts: tuple[Account, ...] = ()
    cascades: tuple[str, ...] = ()
    admin: bool = True
    key: str = ""

    def may_use(self, cascade: str) -> bool:
        """Whether the tenant may use the cascade of that name."""
        return not self.cascades or cascade in self.cascades


OPEN = Tenant(None)


class Gate:
    """Lets requests in. Keys are needed as soon as there is one, unless the server is open."""

    def __init__(self, keys: Keys, rates: RateLimiter, sessions: Sessions, *, open: bool) -> None:
        self._keys = keys
        self._rates = rates
        self._sessions = sessions
        self._open = open

    async def enter(self, headers: Mapping[str, str], *, counted: bool = True) -> Tenant:
        """The tenant of a request. Raises `InvalidKey` and, where the request counts, `RateLimited`."""
        if not await self.guarded(headers):
            return OPEN
        key = _of_all(await self._keys.check(api_key_of(headers)))
        if counted and key.requests_per_minute is not None:
            await self._count(key.id, key.requests_per_minute)
        return tenant_of(key)

    async def scrape(self, headers: Mapping[str, str]) -> None:
        """Let in who reads metrics. Raises `InvalidKey` for all but keys of metrics and admins'."""
        if not await self.guarded(headers):
            return
        key = await self._keys.check(api_key_of(headers))
        if not (key.metrics or key.admin):
            raise InvalidKey("metrics need a key of their own. `agentcascade keys create NAME --metrics` makes one")

    async def viewer(self, headers: Mapping[str, str], session: str | None) -> Tenant:
        """Who looks at the dashboard: by key, or by the session that `sign_in` opened. Raises `InvalidKey`."""
        if not await self.guarded(headers):
            return OPEN
        try:
            token = api_key_of(headers)
        except InvalidKey:
            if not session:
                raise
            return tenant_of(_of_all(await self._sessions.check(session)))
        return tenant_of(_of_all(await self._keys.check(token)))

    async def sign_in(self, token: str) -> str:
        """A session for the holder of a key, good for the dashboard alone. Raises `InvalidKey`."""
        _of_all(await self._keys.check(token))
        return await self._sessions.open(token, SESSION_SECONDS)

    async def sign_out(self, session: str) -> None:
        """End the sessions of the key that this one was opened for. Raises `StorageError`: then none has ended."""
        await self._sessions.end(session)

    async def guarded(self, headers: Mapping[str, str] = MappingProxyType({})) -> bool:
        """Whether a key is needed, by a request with these `headers`. Raises `StorageError` while nobody knows.

        Who sends a key of ours is nobody's guest: another replica may have the first one, made a moment ago.
        """
        if self._open:
            return False
        try:
            token = api_key_of(headers)
        except InvalidKey:
            token = ""
        return await self._keys.any(token)

    async def _count(self, key: str, per_minute: int) -> None:
        """A database that does not answer limits nobody's rate."""
        try:
            async with asyncio.timeout(RATE_SECONDS):
                await self._rates.allow(key, per_minute)
        except (TimeoutError, StorageError) as error:
            log.warning("a request is not counted: %s", describe(error))


def _of_all(key: ApiKey) -> ApiKey:
    """The key, which may do what all may. Raises `InvalidKey` for one that reads metrics and nothing else."""
    if key.metrics:
        raise InvalidKey("this key reads /metrics and nothing else (keys create --metrics)")
    return key


def tenant_of(key: ApiKey) -> Tenant:
    """The tenant that a valid key stands for."""
    account = key.account()
    return Tenant(key.namespace, (account,) if account else (), key.cascades, key.admin, key.id)


def api_key_of(headers: Mapping[str, str]) -> str:
    """The key in `KEY_HEADER`, ``Authorization: Bearer …`` or ``X-Api-Key``; raises `InvalidKey` without one."""
    own = headers.get(KEY_HEADER, "").strip()
    if own.startswith("ac-"):
        return own
    scheme, _, value = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and value.strip():
        return value.strip()
    if sent := headers.get("x-api-key"):
        return sent.strip()
    raise InvalidKey("this server needs an API key, sent as 'Authorization: Bearer ac-…'")
