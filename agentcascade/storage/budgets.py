"""Budgets and rate limits that hold over threads, processes and replicas: their truth is in the database."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime, timedelta
from decimal import ROUND_CEILING, Decimal
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import Connection, case, delete, func, literal, select
from sqlalchemy.dialects import postgresql, sqlite

from agentcascade.errors import BudgetExceeded, RateLimited, describe
from agentcascade.storage.columns import MAX_PICO, Dollars
from agentcascade.storage.database import Database
from agentcascade.storage.tables import PICO, accounts, rates, reservations
from agentcascade.types import Account, new_id, now

log = logging.getLogger("agentcascade.budgets")
T = TypeVar("T")
SMALLEST = 1 / PICO
LARGEST = Decimal(MAX_PICO // 4) / PICO
"""No account holds more: a column could not. About two million dollars."""
BATCH = 200
"""Bookings of one transaction."""
AGAIN = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
"""Seconds between the tries to book what the database did not take; the last for ever."""
MOST_LATE = 50_000
"""Bookings that wait for the database to come back; more are lost, and said so."""
FOLDED = timedelta(days=1)
"""After that long a reservation that nobody settled is part of what was spent, for good."""

_workers = ThreadPoolExecutor(8, thread_name_prefix="agentcascade-budgets")
"""Of their own: while the database hangs, nothing else shall want for a thread."""


def _forked() -> None:
    """A child has none of its parent's threads."""
    global _workers
    _workers = ThreadPoolExecutor(8, thread_name_prefix="agentcascade-budgets")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


async def _apart(work: Callable[..., T], *arguments: Any) -> T:
    return await asyncio.get_running_loop().run_in_executor(_workers, work, *arguments)


class Balance(NamedTuple):
    """What an account has spent in its present period, and what is set aside for calls under way."""

    spent: Decimal
    reserved: Decimal


def window(account: Account, at: datetime) -> str:
    """The period that `at` falls into: ``total``, a UTC day or a UTC month."""
    return {"total": "total", "day": at.strftime("%Y-%m-%d"), "month": at.strftime("%Y-%m")}[account.period]


Place = tuple[str, str, str]
"""Scope, name and window: the row of an account."""


class _Entry:
    """One reservation, settlement or booking on its way into the database."""

    def __init__(
        self, id: str, dollars: Decimal, wanted: Mapping[Place, Account] | None = None, seconds: float | None = None
    ) -> None:
        self.id, self.dollars, self.wanted, self.seconds = id, dollars, wanted, seconds
        self.done: Future[None] = Future()
        self.given_up = False
        self.tries = 0

    @property
    def reserves(self) -> bool:
        return self.seconds is not None


class DatabaseBudgets:
    """Reserve before a call, settle after it.

    Entries of one process share transactions: a hundred calls at once wait for a few commits, not for two hundred.
    A reservation that nobody settles, since its process died, counts as spent once its time is over: what such a call
    did cost is not known, and more is booked rather than nothing.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: deque[_Entry] = deque()
        self._lock = threading.Lock()
        self._drains = self._late = 0
        self._pid = os.getpid()
        self._folded: datetime | None = None

    async def reserve(self, accounts: Sequence[Account], dollars: Decimal, seconds: float) -> str:
        """Set `dollars` aside on every account or, raising `BudgetExceeded`, on none; returns the reservation's id.

        Nothing stays reserved when the wait for it is cancelled, whatever the database did by then.
        """
        entry = _reservation(accounts, dollars, seconds)
        if not entry.wanted:
            return entry.id
        self._enter(entry)
        try:
            await _waited(entry)
        except asyncio.CancelledError:
            self._give_up(entry)
            raise
        return entry.id

    def settle(self, reservation: str, dollars: Decimal) -> asyncio.Future[None]:
        """Book what the call did cost and release the reservation, also when its time is over by now.

        It is on its way when this returns, and gets there whether or not somebody waits for it. A second time does
        nothing.
        """
        entry = _Entry(reservation, dollars)
        self._enter(entry)
        return _waited(entry)

    def book(self, accounts: Sequence[Account], dollars: Decimal) -> asyncio.Future[None]:
        """Book what was spent without a reservation, in the same way."""
        entry = _Entry(new_id("bk"), dollars, _places(accounts, now()))
        self._enter(entry)
        return _waited(entry)

    def balance(self, account: Account) -> Balance:
        at = now()
        with self._database.begin() as connection:
            return _balance(connection, (account.scope, account.name, window(account, at)), at)

    def close(self, seconds: float = 5.0) -> None:
        """Wait until everything is booked."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            with self._lock:
                if not (self._waiting or self._drains or self._late):
                    return
            time.sleep(0.01)
        log.error("%d bookings may be lost: the database did not take them in time", len(self._waiting) + self._late)

    def _reserve(self, wanted: Sequence[Account], dollars: Decimal, seconds: float) -> str:
        """The same at once, in this thread."""
        entry = _reservation(wanted, dollars, seconds)
        self._write([entry])
        entry.done.result()
        return entry.id

    def _settle(self, reservation: str, dollars: Decimal) -> None:
        self._write([_Entry(reservation, dollars)])

    def _enter(self, entry: _Entry) -> None:
        with self._lock:
            if self._pid != os.getpid():  # forked: what waited is the parent's to write
                self._waiting.clear()
                self._drains, self._late, self._pid = 0, 0, os.getpid()
            self._waiting.append(entry)
            begin, self._drains = not self._drains, 1
        if begin:
            self._begin_draining()

    def _begin_draining(self) -> None:
        try:
            _workers.submit(self._drain)
        except RuntimeError:  # the interpreter is shutting down, and has no threads any more
            self._drain()

    def _give_up(self, entry: _Entry) -> None:
        with self._lock:
            entry.given_up = True
            if not entry.done.done():
                return  # not written yet, or being written: the writer sees to it
        if entry.done.exception() is None:
            self._enter(_Entry(entry.id, Decimal(0)))

    def _drain(self) -> None:
        """Write what waits, transaction by transaction, until nothing does."""
        while True:
            with self._lock:
                batch = [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]
                if not batch:
                    self._drains = 0
                    return
            batch = [entry for entry in batch if not (entry.reserves and entry.given_up)]
            try:
                self._write(batch)
            except BaseException as error:
                self._failed(batch, error)

    def _failed(self, batch: Sequence[_Entry], error: BaseException) -> None:
        """Who waits for a reservation is told; what was spent is tried again."""
        late = [entry for entry in batch if not entry.reserves and not entry.done.done()]
        for entry in batch:
            if entry.reserves and not entry.done.done():
                entry.done.set_exception(error)
        for entry in late:
            entry.tries += 1
        room = max(0, MOST_LATE - self._late)
        again = late[:room]
        for entry in late[room:]:
            log.error("$%s of %s are not booked: %s", entry.dollars, entry.id, describe(error))
            entry.done.set_exception(error)
        if not again:
            return

        def later() -> None:
            with self._lock:
                self._waiting.extend(again)
                self._late -= len(again)
                begin, self._drains = not self._drains, 1
            if begin:
                self._begin_draining()

        with self._lock:
            self._late += len(again)
        tries = min(entry.tries for entry in again)
        timer = threading.Timer(AGAIN[min(tries, len(AGAIN)) - 1], later)
        timer.daemon = True
        timer.start()

    def _write(self, batch: Sequence[_Entry]) -> None:
        """All of `batch` in one transaction: settlements first, since they may make room."""
        refused: dict[str, BudgetExceeded] = {}
        at = now()
        spent: dict[str, Decimal | None] = {
            entry.id: _rounded(entry.dollars) for entry in reversed(batch) if entry.wanted is None
        }
        with self._begin() as connection:
            stale = self._stale(connection, at)
            places = {(r.scope, r.name, r.window) for r in (*_rows(connection, spent), *stale)}
            places |= {place for entry in batch for place in entry.wanted or ()}
            _lock(connection, sorted(places), at)
            bills = _taken(connection, {**{r.id: None for r in stale}, **spent})
            for entry in batch:
                if entry.wanted is not None and not entry.reserves:
                    for place in entry.wanted:
                        bills[place] = bills.get(place, Decimal(0)) + _rounded(entry.dollars)
            _book(connection, bills, at)
            asking = [entry for entry in batch if entry.reserves]
            balances = {p: _balance(connection, p, at) for p in sorted({p for e in asking for p in e.wanted or ()})}
            for entry in asking:
                try:
                    _set_aside(entry, balances)
                except BudgetExceeded as error:
                    refused[entry.id] = error
            rows = [row for entry in asking if entry.id not in refused for row in _reserved(entry, at)]
            if rows:
                connection.execute(reservations.insert(), rows)
        self._tell(batch, refused)

    def _tell(self, batch: Sequence[_Entry], refused: Mapping[str, BudgetExceeded]) -> None:
        nobodys = []
        for entry in batch:
            with self._lock:
                if entry.reserves and entry.given_up and entry.id not in refused:
                    nobodys.append(entry)
                error = refused.get(entry.id) if entry.reserves else None
                entry.done.set_result(None) if error is None else entry.done.set_exception(error)
        for entry in nobodys:
            self._enter(_Entry(entry.id, Decimal(0)))

    def _stale(self, connection: Connection, at: datetime) -> Sequence[Any]:
        """Now and then: reservations over since long ago, whose processes must be dead."""
        if self._folded is not None and abs(at - self._folded) < timedelta(hours=1):
            return ()
        self._folded = at
        old = select(reservations).where(reservations.c.expires_at < at - FOLDED).limit(1000)
        return connection.execute(old).all()

    def _begin(self) -> Any:
        """SQLite has one writer at a time anyway; PostgreSQL locks the accounts' own rows."""
        return self._database.begin(write=self._database.engine.dialect.name == "sqlite")


def _reservation(wanted: Sequence[Account], dollars: Decimal, seconds: float) -> _Entry:
    return _Entry(new_id("rs"), dollars, _places(wanted, now()), seconds)


def _places(wanted: Sequence[Account], at: datetime) -> dict[Place, Account]:
    """Each account once, in the order in which all lock."""
    own = {(a.scope, a.name): a for a in wanted}
    return dict(sorted(((a.scope, a.name, window(a, at)), a) for a in own.values()))


def _waited(entry: _Entry) -> asyncio.Future[None]:
    """To wait for an entry that goes its way in any case."""
    loop = asyncio.get_running_loop()
    waited: asyncio.Future[None] = loop.create_future()

    def tell() -> None:
        if waited.done():
            return
        error = entry.done.exception()
        waited.set_result(None) if error is None else waited.set_exception(error)

    def written(_: object) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(tell)

    waited.add_done_callback(lambda f: f.cancelled() or f.exception())  # nobody has to wait
    entry.done.add_done_callback(written)
    return waited


def _set_aside(entry: _Entry, balances: dict[Place, Balance]) -> None:
    """Raises `BudgetExceeded` when it does not fit into one of its accounts."""
    assert entry.wanted is not None
    amount = _rounded(entry.dollars)
    for place, account in entry.wanted.items():
        if sum(balances[place]) + amount > account.limit:
            raise BudgetExceeded(_words(account, balances[place], amount), account.scope)
    for place in entry.wanted:
        balances[place] = balances[place]._replace(reserved=balances[place].reserved + amount)


def _reserved(entry: _Entry, at: datetime) -> list[dict[str, Any]]:
    assert entry.seconds is not None
    own = {"id": entry.id, "dollars": _rounded(entry.dollars), "expires_at": at + timedelta(seconds=entry.seconds)}
    return [own | {"scope": s, "name": n, "window": w} for s, n, w in entry.wanted or ()]


def _rows(connection: Connection, ids: Mapping[str, Any]) -> Sequence[Any]:
    return connection.execute(select(reservations).where(reservations.c.id.in_(list(ids)))).all() if ids else ()


def _taken(connection: Connection, bills: Mapping[str, Decimal | None]) -> dict[Place, Decimal]:
    """Remove these reservations; what each account has to pay for them: None stands for all of it."""
    if not bills:
        return {}
    gone = delete(reservations).where(reservations.c.id.in_(list(bills))).returning(reservations)
    paid: dict[Place, Decimal] = {}
    for row in connection.execute(gone).all():
        bill, place = bills[row.id], (row.scope, row.name, row.window)
        paid[place] = paid.get(place, Decimal(0)) + (row.dollars if bill is None else bill)
    return paid


def _book(connection: Connection, bills: Mapping[Place, Decimal], at: datetime) -> None:
    for place, amount in sorted(bills.items()):
        amount = min(amount, LARGEST)
        whole = case((accounts.c.spent > LARGEST - amount, literal(LARGEST, Dollars)), else_=accounts.c.spent + amount)
        connection.execute(accounts.update().where(_same(accounts, place)).values(spent=whole, updated_at=at))


def _lock(connection: Connection, places: Iterable[Place], at: datetime) -> None:
    """Make the accounts' rows if need be, and hold them: always in one order, so that nobody waits in a circle."""
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    for place in places:
        scope, name, period = place
        row = {"scope": scope, "name": name, "window": period, "spent": Decimal(0), "updated_at": at}
        connection.execute(dialect.insert(accounts).on_conflict_do_nothing(), row)
        connection.execute(select(accounts.c.scope).where(_same(accounts, place)).with_for_update())


def _same(table: Any, place: Place) -> Any:
    return (table.c.scope == place[0]) & (table.c.name == place[1]) & (table.c.window == place[2])


def _balance(connection: Connection, place: Place, at: datetime) -> Balance:
    def total(table: Any, column: Any, *more: Any) -> Any:
        return select(func.sum(column)).where(_same(table, place), *more).scalar_subquery()

    held, ends = reservations.c.dollars, reservations.c.expires_at
    # Of one moment: between two statements a call may be settled, and then it would count as live and as spent.
    parts = (accounts, accounts.c.spent), (reservations, held, ends <= at), (reservations, held, ends > at)
    sums = [total(*part) for part in parts]
    spent, over, live = (value or Decimal(0) for value in connection.execute(select(*sums)).one())
    return Balance(spent + over, live)


def _rounded(dollars: Decimal) -> Decimal:
    """Up to a whole number of 10⁻¹² dollars, of a bill that can be one."""
    return min(max(dollars, Decimal(0)), LARGEST).quantize(SMALLEST, rounding=ROUND_CEILING)


def _words(account: Account, balance: Balance, wanted: Decimal) -> str:
    period = "in all" if account.period == "total" else f"a {account.period}"
    return (
        f"the budget of this {account.scope} is ${account.limit:f} {period}: ${balance.spent:.6f} are spent, "
        f"${balance.reserved:.6f} set aside for calls under way, and this call may cost ${wanted:.6f}. "
        f"Raise the budget, lower max_tokens, or wait for the next period"
    )


class RateLimiter:
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
