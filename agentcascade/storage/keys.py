"""API keys of the proxy: whose they are and what they may do. Only hashes are stored."""

from __future__ import annotations

import asyncio
import hmac
import logging
import re
import secrets
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from datetime import datetime
from decimal import Decimal
from hashlib import sha256
from threading import Thread
from typing import Any, Literal, get_args

from sqlalchemy import select

from agentcascade._util import forking
from agentcascade.errors import ConfigError, InvalidKey, StorageError, describe, did_you_mean
from agentcascade.storage.database import Database
from agentcascade.storage.tables import keys
from agentcascade.types import Account, Frozen, now

log = logging.getLogger("agentcascade.storage")
Period = Literal["total", "day", "month"]
TOKEN = re.compile(r"ac-([a-z0-9]{12})-([A-Za-z0-9_-]{43})")
SESSION = re.compile(r"([a-z0-9]{12})\.([0-9]{1,12})\.([0-9a-f]{64})")
REMEMBERED_SECONDS = 2.0
"""After a revocation a key may work for so long on other replicas."""
NEW_SECONDS = 0.2
"""A key that was just made elsewhere is looked for so often, however many unknown ones are tried."""
WAIT_SECONDS, OUTAGE_SECONDS = 1.0, 900.0
"""A request waits so long for the database; while it does not answer, what is known of the keys counts so long."""
MOST_DOLLARS, MOST_REQUESTS = 1_000_000, 1_000_000
REFUSED = "the API key is not valid: it is unknown, revoked or expired"


class ApiKey(Frozen):
    """A key without its secret."""

    id: str
    name: str
    namespace: str
    cascades: tuple[str, ...] = ()
    admin: bool = False
    budget: Decimal | None = None
    period: Period = "total"
    requests_per_minute: int | None = None
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None

    def account(self) -> Account | None:
        """What the key's calls are paid from; None without a budget."""
        if self.budget is None:
            return None
        return Account(scope="key", name=self.id, limit=self.budget, period=self.period)

    @property
    def valid(self) -> bool:
        return self.revoked_at is None and (self.expires_at is None or self.expires_at > now())


class Keys:
    """The keys in a database. Thread-safe. What is read is remembered for two seconds, all keys at once."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: Mapping[str, tuple[str, ApiKey]] = {}
        self._read = float("-inf")
        self._lock = forking.lock()
        self._reading_keys: tuple[float, Future[None]] | None = None

    def create(
        self,
        name: str,
        *,
        namespace: str = "default",
        cascades: Sequence[str] = (),
        admin: bool = False,
        budget: Decimal | None = None,
        period: Period = "total",
        requests_per_minute: int | None = None,
        expires_at: datetime | None = None,
    ) -> tuple[ApiKey, str]:
        """A new key and its token, which is never shown again. Raises `ConfigError` for an impossible value."""
        for what, value in (("name", name), ("namespace", namespace), *(("cascade", c) for c in cascades)):
            _check_text(what, value)
        if budget is not None and not _storable(budget):
            raise ConfigError(f"budget {budget}: give dollars from 0 to {MOST_DOLLARS:,}, with at most 12 decimals")
        if period not in get_args(Period):
            raise ConfigError(f"period '{period}': {did_you_mean(period, get_args(Period))}")
        if requests_per_minute is not None and not 1 <= requests_per_minute <= MOST_REQUESTS:
            raise ConfigError(f"requests per minute {requests_per_minute}: give 1 to {MOST_REQUESTS:,}")
        if expires_at is not None and expires_at.tzinfo is None:
            raise ConfigError(f"expires_at {expires_at}: give a time with its zone, e.g. {expires_at}+00:00")
        id, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
        key = ApiKey(
            id=id,
            name=name,
            namespace=namespace,
            cascades=tuple(cascades),
            admin=admin,
            budget=budget,
            period=period,
            requests_per_minute=requests_per_minute,
            created_at=now(),
            expires_at=expires_at,
        )
        row = key.model_dump() | {"cascades": list(cascades), "hash": _hash(secret)}
        with self._database.begin(write=True) as connection:
            connection.execute(keys.insert(), row)
        self._read = float("-inf")
        return key, f"ac-{id}-{secret}"

    def list(self) -> list[ApiKey]:
        """All of them, revoked ones too, oldest first."""
        return sorted((key for _, key in self._load().values()), key=lambda key: key.created_at)

    def revoke(self, id: str) -> None:
        """Raises `ConfigError` when there is no such key; revoking twice is no error."""
        stored = self._load()
        if id not in stored:
            raise ConfigError(f"there is no key '{id}': {did_you_mean(id, stored)}")
        with self._database.begin(write=True) as connection:
            unrevoked = (keys.c.id == id) & keys.c.revoked_at.is_(None)
            connection.execute(keys.update().where(unrevoked).values(revoked_at=now()))
        self._read = float("-inf")

    def exist(self) -> bool:
        """Whether there is any key at all, also a revoked one: who revokes the last one does not open the door."""
        return bool(self._remembered())

    def authenticate(self, token: str) -> ApiKey:
        """The key of a token. Raises `InvalidKey`, with the same words and in the same time whatever is wrong."""
        parts = TOKEN.fullmatch(token)
        self._remembered(parts[1] if parts else "")
        return self._verified(token)

    def _verified(self, token: str) -> ApiKey:
        """By what is remembered."""
        parts = TOKEN.fullmatch(token)
        id, secret = parts.groups() if parts else ("", "")
        stored, key = self._known.get(id, ("0" * 64, None))
        same = hmac.compare_digest(stored, _hash(secret))
        if key is None or not same or not key.valid:
            raise InvalidKey(REFUSED)
        return key

    async def any(self) -> bool:
        """`exist` for programs with an event loop."""
        if not self._fresh():
            await self._renew()
        return bool(self._known)

    async def check(self, token: str) -> ApiKey:
        """`authenticate` for programs with an event loop."""
        parts = TOKEN.fullmatch(token)
        id = parts[1] if parts else ""
        if not self._fresh(id):
            await self._renew(id)
        return self._verified(token)

    async def open_session(self, token: str, seconds: float) -> str:
        """A text that stands for a valid key for so long, but is not the key: it is signed with the key's stored hash.

        Raises `InvalidKey`. Revoking the key ends its sessions.
        """
        key = await self.check(token)
        expires = int(time.time() + seconds)
        return f"{key.id}.{expires}.{_signature(self._known[key.id][0], key.id, expires)}"

    async def check_session(self, session: str) -> ApiKey:
        """The key of a session that is not over. Raises `InvalidKey`."""
        parts = SESSION.fullmatch(session)
        id, expires, signature = parts.groups() if parts else ("", "0", "")
        if not self._fresh(id):
            await self._renew(id)
        stored, key = self._known.get(id, ("0" * 64, None))
        same = hmac.compare_digest(_signature(stored, id, int(expires)), signature)
        if key is None or not same or not key.valid or int(expires) < time.time():
            raise InvalidKey("the session is over: sign in again")
        return key

    async def _renew(self, id: str = "") -> None:
        """Look again, in one thread for all who wait for it. Raises `StorageError` where only the database can tell.

        While it does not answer, what was known before counts for `OUTAGE_SECONDS`.
        """
        reading = self._reading_keys
        if reading is None or reading[1].done():
            reading = self._reading_keys = time.monotonic(), Future()
            Thread(target=self._look, args=(reading[1], id), name="agentcascade-keys", daemon=True).start()
        began, read = reading
        try:
            async with asyncio.timeout(max(0.0, began + WAIT_SECONDS - time.monotonic())):
                await asyncio.shield(asyncio.wrap_future(read))
        except (TimeoutError, StorageError) as error:
            unknown = id and id not in self._known
            if unknown or time.monotonic() - self._read > OUTAGE_SECONDS:
                raise StorageError(f"the keys cannot be read: {describe(error)}") from error
            log.warning("the keys cannot be read, what was known of them counts: %s", describe(error))

    def _look(self, read: Future[None], id: str) -> None:
        try:
            self._remembered(id)
        except BaseException as error:
            read.set_exception(error)
        else:
            read.set_result(None)

    def _fresh(self, id: str = "") -> bool:
        """Whether what is known is new enough; for a key that is not known, which may be a new one, only just."""
        max_age = NEW_SECONDS if id and id not in self._known else REMEMBERED_SECONDS
        return time.monotonic() - self._read < max_age

    def _remembered(self, id: str = "") -> Mapping[str, tuple[str, ApiKey]]:
        if not self._fresh(id):
            with self._lock:
                if not self._fresh(id):
                    self._known = self._load()
                    self._read = time.monotonic()
        return self._known

    def _load(self) -> dict[str, tuple[str, ApiKey]]:
        with self._database.begin() as connection:
            rows = connection.execute(select(keys)).mappings().all()
        return {row["id"]: (row["hash"], _key(row)) for row in rows}


def _key(row: Mapping[Any, Any]) -> ApiKey:
    fields = {k: v for k, v in row.items() if k != "hash"}
    return ApiKey(**fields | {"cascades": tuple(row["cascades"])})


def _hash(secret: str) -> str:
    """The secret has 256 random bits: no salt or slow hash makes guessing it any harder."""
    return sha256(secret.encode()).hexdigest()


def _signature(stored: str, id: str, expires: int) -> str:
    return hmac.new(stored.encode(), f"dashboard session {id} {expires}".encode(), "sha256").hexdigest()


def _storable(budget: Decimal) -> bool:
    return budget.is_finite() and 0 <= budget <= MOST_DOLLARS and budget == round(budget, 12)


def _check_text(what: str, value: str) -> None:
    if not value.strip() or len(value) > 200 or not value.isprintable():
        raise ConfigError(f"{what} {value[:40]!r}: give 1 to 200 printable characters")
