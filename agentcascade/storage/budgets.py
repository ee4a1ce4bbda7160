"""Budgets and rate limits that hold over threads, processes and replicas: their truth is in the database."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from decimal import ROUND_CEILING, Decimal
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import Connection, delete, func, select
from sqlalchemy.dialects import postgresql, sqlite

from agentcascade.errors import BudgetExceeded, RateLimited
from agentcascade.storage.database import Database
from agentcascade.storage.tables import PICO, accounts, rates, reservations
from agentcascade.types import Account, new_id, now

T = TypeVar("T")
SMALLEST = 1 / PICO


_workers = ThreadPoolExecutor(8, thread_name_prefix="agentcascade-budgets")
"""Of their own: while the database hangs, nothing else shall want for a thread."""


async def _apart(work: Callable[..., T], *arguments: Any) -> T:
    return await asyncio.get_running_loop().run_in_executor(_workers, work, *arguments)


class Balance(NamedTuple):
    """What an account has spent in its present period, and what is set aside for calls under way."""

    spent: Decimal
    reserved: Decimal


def window(account: Account, at: datetime) -> str:
    """The period that `at` falls into: ``total``, a UTC day or a UTC month."""
    return {"total": "total", "day": at.strftime("%Y-%m-%d"), "month": at.strftime("%Y-%m")}[account.period]


class DatabaseBudgets:
    """Reserve before a call, settle after it.

    A reservation whose process died stops counting when its time is over; what such a call did cost is not known.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def reserve(self, accounts: Sequence[Account], dollars: Decimal, seconds: float) -> str:
        """Set `dollars` aside on every account or, raising `BudgetExceeded`, on none; returns the reservation's id."""
        return await _apart(self._reserve, accounts, dollars, seconds)

    async def settle(self, reservation: str, dollars: Decimal) -> None:
        """Book what the call did cost, also when the reservation is over by now; a second time does nothing."""
        await _apart(self._settle, reservation, dollars)

    def balance(self, account: Account) -> Balance:
        at = now()
        with self._database.begin() as connection:
            return _balance(connection, account, window(account, at), at)

    def _reserve(self, wanted: Sequence[Account], dollars: Decimal, seconds: float) -> str:
        at, id, amount = now(), new_id("rs"), _rounded(dollars)
        own = sorted({(a.scope, a.name): a for a in wanted}.values(), key=lambda a: (a.scope, a.name))
        if not own:
            return id
        with self._begin() as connection:
            _lock(connection, ((a.scope, a.name, window(a, at)) for a in own), at)
            connection.execute(delete(reservations).where(reservations.c.expires_at < at - timedelta(days=1)))
            for account in own:
                balance = _balance(connection, account, window(account, at), at)
                if sum(balance) + amount > account.limit:
                    raise BudgetExceeded(_words(account, balance, amount), account.scope)
            rows = [
                {
                    "id": id,
                    "scope": a.scope,
                    "name": a.name,
                    "window": window(a, at),
                    "dollars": amount,
                    "expires_at": at + timedelta(seconds=seconds),
                }
                for a in own
            ]
            connection.execute(reservations.insert(), rows)
        return id

    def _settle(self, reservation: str, dollars: Decimal) -> None:
        amount, at = _rounded(dollars), now()
        own = reservations.c.id == reservation
        with self._begin() as connection:
            rows = connection.execute(select(reservations).where(own)).all()
            keys = sorted((r.scope, r.name, r.window) for r in rows)
            _lock(connection, keys, at)
            if not connection.execute(delete(reservations).where(own)).rowcount:
                return
            for scope, name, period in keys:
                same = (accounts.c.scope == scope) & (accounts.c.name == name) & (accounts.c.window == period)
                connection.execute(accounts.update().where(same).values(spent=accounts.c.spent + amount, updated_at=at))

    def _begin(self) -> Any:
        """SQLite has one writer at a time anyway; PostgreSQL locks the accounts' own rows."""
        return self._database.begin(write=self._database.engine.dialect.name == "sqlite")


def _lock(connection: Connection, keys: Iterable[tuple[str, str, str]], at: datetime) -> None:
    """Make the accounts' rows if need be, and hold them: always in one order, so that nobody waits in a circle."""
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    for scope, name, period in keys:
        row = {"scope": scope, "name": name, "window": period, "spent": Decimal(0), "updated_at": at}
        connection.execute(dialect.insert(accounts).on_conflict_do_nothing(), row)
        same = (accounts.c.scope == scope) & (accounts.c.name == name) & (accounts.c.window == period)
        connection.execute(select(accounts.c.scope).where(same).with_for_update())


def _balance(connection: Connection, account: Account, period: str, at: datetime) -> Balance:
    def total(table: Any, column: Any, *more: Any) -> Any:
        same = (table.c.scope == account.scope) & (table.c.name == account.name) & (table.c.window == period)
        return select(func.sum(column)).where(same, *more).scalar_subquery()

    live = total(reservations, reservations.c.dollars, reservations.c.expires_at > at)
    # Of one moment: between two statements a call may be settled, and then it would count as live and as spent.
    spent, reserved = connection.execute(select(total(accounts, accounts.c.spent), live)).one()
    return Balance(spent or Decimal(0), reserved or Decimal(0))


def _rounded(dollars: Decimal) -> Decimal:
    """Up to a whole number of 10⁻¹² dollars."""
    return dollars.quantize(SMALLEST, rounding=ROUND_CEILING)


def _words(account: Account, balance: Balance, wanted: Decimal) -> str:
    period = "in all" if account.period == "total" else f"a {account.period}"
    return (
        f"the budget of this {account.scope} is ${account.limit:f} {period}: ${balance.spent:.6f} are spent, "
        f"${balance.reserved:.6f} set aside for calls under way, and this call may cost ${wanted:.6f}. "
        f"Raise the budget, lower max_tokens, or wait for the next period"
    )


class Rates:
    """Requests of a key in each minute, counted by all replicas together."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def allow(self, key: str, per_minute: int) -> None:
        """Count one request. Raises `RateLimited`, which is not counted, when the minute has had its share."""
        at = time.time()
        if not await _apart(self._count, key, int(at // 60), per_minute):
            raise RateLimited(
                f"more than {per_minute} requests in a minute: wait for the next one", 60 - at % 60
            )  # fmt: skip

    def _count(self, key: str, minute: int, limit: int) -> bool:
        if limit < 1:
            return False
        sqlite_used = self._database.engine.dialect.name == "sqlite"
        insert = (sqlite if sqlite_used else postgresql).insert(rates)
        counted = insert.values(key=key, minute=minute, requests=1).on_conflict_do_update(
            index_elements=["key", "minute"],
            set_={"requests": rates.c.requests + 1},
            where=rates.c.requests < limit,
        )
        with self._database.begin(write=sqlite_used) as connection:
            return connection.execute(counted.returning(rates.c.requests)).first() is not None
