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
from typing import Any, Literal, NamedTuple, get_args

from sqlalchemy import select

from agentcascade._util import forking
from agentcascade.errors import ConfigError, InvalidKey, StorageError, describe, did_you_mean
from agentcascade.storage.database import Database
from agentcascade.storage.tables import keys
from agentcascade.types import Account, Frozen, now

log = logging.getLogger("agentcascade.storage")
Period = Literal["total", "day", "month"]
TOKEN = re.compile(r"ac-([a-z0-9]{12})-([A-Za-z0-9_-]{43})")
REMEMBERED_SECONDS = 2.0
"""After a revocation a key may work for so long on other replicas."""
NEW_SECONDS = 0.2
"""A key that was just made elsewhere is looked for so often, however many unknown ones are tried."""
WAIT_SECONDS, OUTAGE_SECONDS = 1.0, 900.0
"""A request waits so long for the database; while it does not answer, what is known of the keys counts so long."""
UNKNOWN_SECONDS = 5.0
"""A request waits so long where only the database can tell: with a key that is new here, or before any was read."""
MOST_DOLLARS, MOST_REQUESTS = 1_000_000, 1_000_000
REFUSED = "the API key is not valid: it is unknown, revoked or expired"


class ApiKey(Frozen):
    """A key without its secret."""

    id: str
    name: str
    namespace: str
    cascades: tuple[str, ...] = ()
    admin: bool = False
    metrics: bool = False
    """Whether it reads ``/metrics``, and nothing else."""
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


class StoredKey(NamedTuple):
    """A key as its row is."""

    hash: str
    sessions_ended: int
    """How often its sessions of the dashboard were ended."""
    key: ApiKey


class Keys:
    """The keys in a database. Thread-safe. What is read is remembered for two seconds, all keys at once."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: Mapping[str, StoredKey] = {}
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
        metrics: bool = False,
        budget: Decimal | None = None,
        period: Period = "total",
        requests_per_minute: int | None = None,
        expires_at: datetime | None = None,
    ) -> tuple[ApiKey, str]:
        """A new key and its token, which is never shown again. Raises `ConfigError` for an impossible value."""
        if metrics and admin:
            raise ConfigError("a key is an admin's or of metrics alone: an admin's reads metrics, too")
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
            metrics=metrics,
            # a server of the version before, which does not know of such keys, sells it nothing either
            budget=Decimal(0) if metrics else budget,
            period=period,
            requests_per_minute=requests_per_minute,
            created_at=now(),
            expires_at=expires_at,
        )
        row = key.model_dump() | {"cascades": list(cascades), "hash": _hash(secret)}
        with self._database.begin(write=self._database.is_sqlite) as connection:
            connection.execute(keys.insert(), row)
        self._read = float("-inf")
        return key, f"ac-{id}-{secret}"

    def list(self) -> list[ApiKey]:
        """All of them, revoked ones too, oldest first."""
        return sorted((stored.key for stored in self._load().values()), key=lambda key: key.created_at)

    def revoke(self, id: str) -> None:
        """Raises `ConfigError` when there is no such key; revoking twice is no error."""
        stored = self._load()
        if id not in stored:
            raise ConfigError(f"there is no key '{id}': {did_you_mean(id, stored)}")
        with self._database.begin(write=self._database.is_sqlite) as connection:
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
        stored, _, key = self._known.get(id, ("0" * 64, 0, None))
        same = hmac.compare_digest(stored, _hash(secret))
        if key is None or not same or not key.valid:
            raise InvalidKey(REFUSED)
        return key

    async def any(self, token: str = "") -> bool:
        """`exist` for programs with an event loop. For who has a token, the first key may have been made just now."""
        parts = None if self._known else TOKEN.fullmatch(token)
        id = parts[1] if parts else ""
        if not self._fresh(id):
            await self._renew(id)
        return bool(self._known)

    async def check(self, token: str) -> ApiKey:
        """`authenticate` for programs with an event loop."""
        parts = TOKEN.fullmatch(token)
        id = parts[1] if parts else ""
        if not self._fresh(id):
            await self._renew(id)
        return self._verified(token)

    async def stored(self, id: str, max_age: float | None = None) -> StoredKey | None:
        """The row of a key, read at most `max_age` seconds ago. Raises `StorageError` where nobody knows."""
        if not self._fresh(id, max_age):
            await self._renew(id, max_age)
        return self._known.get(id)

    def end_sessions(self, id: str, sessions_ended: int) -> None:
        """End a key's sessions that began when they had been ended so often. Blocks; once more does nothing."""
        counted = (keys.c.id == id) & (keys.c.sessions_ended == sessions_ended)
        with self._database.begin(write=self._database.is_sqlite) as connection:
            connection.execute(keys.update().where(counted).values(sessions_ended=sessions_ended + 1))
        with self._lock:  # a reading that began before is over
            known = self._known.get(id)
            if known is not None and known.sessions_ended == sessions_ended:
                self._known = {**self._known, id: known._replace(sessions_ended=sessions_ended + 1)}

    async def _renew(self, id: str = "", max_age: float | None = None) -> None:
        """Look again, in one thread for all who wait for it. Raises `StorageError` where only the database can tell.

        While it does not answer, what was known before counts for `OUTAGE_SECONDS`.
        """
        reading = self._reading_keys
        if reading is None or reading[1].done():
            reading = self._reading_keys = time.monotonic(), Future()
            Thread(target=self._look, args=(reading[1], id, max_age), name="agentcascade-keys", daemon=True).start()
        began, read = reading
        unknown = (id and id not in self._known) or time.monotonic() - self._read > OUTAGE_SECONDS
        seconds = UNKNOWN_SECONDS if unknown else WAIT_SECONDS
        try:
            async with asyncio.timeout(max(0.0, began + seconds - time.monotonic())):
                await asyncio.shield(asyncio.wrap_future(read))
        except (TimeoutError, StorageError) as error:
            if unknown:
                raise StorageError(f"the keys cannot be read: {describe(error)}") from error
            log.warning("the keys cannot be read, what was known of them counts: %s", describe(error))

    def _look(self, read: Future[None], id: str, max_age: float | None) -> None:
        try:
            self._remembered(id, max_age)
        except BaseException as error:
            read.set_exception(error)
        else:
            read.set_result(None)

    def _fresh(self, id: str = "", max_age: float | None = None) -> bool:
        """Whether what is known is new enough; for a key that is not known, which may be a new one, only just."""
        if max_age is None:
            max_age = NEW_SECONDS if id and id not in self._known else REMEMBERED_SECONDS
        return time.monotonic() - self._read < max_age

    def _remembered(self, id: str = "", max_age: float | None = None) -> Mapping[str, StoredKey]:
        if not self._fresh(id, max_age):
            with self._lock:
                if not self._fresh(id, max_age):
                    self._known = self._load()
                    self._read = time.monotonic()
        return self._known

    def _load(self) -> dict[str, StoredKey]:
        with self._database.begin() as connection:
            rows = connection.execute(select(keys)).mappings().all()
        return {row["id"]: StoredKey(row["hash"], row["sessions_ended"], _key(row)) for row in rows}


def _key(row: Mapping[Any, Any]) -> ApiKey:
    fields = {k: v for k, v in row.items() if k in ApiKey.model_fields}
    return ApiKey(**fields | {"cascades": tuple(row["cascades"])})


def _hash(secret: str) -> str:
    """The secret has 256 random bits: no salt or slow hash makes guessing it any harder."""
    return sha256(secret.encode()).hexdigest()


def _storable(budget: Decimal) -> bool:
    return budget.is_finite() and 0 <= budget <= MOST_DOLLARS and budget == round(budget, 12)


def _check_text(what: str, value: str) -> None:
    if not value.strip() or len(value) > 200 or not value.isprintable():
        raise ConfigError(f"{what} {value[:40]!r}: give 1 to 200 printable characters")
