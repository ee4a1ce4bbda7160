"""Budgets that hold over threads, processes and replicas: their truth is in the database."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from sqlalchemy import Connection, Row

from agentcascade._util import forking
from agentcascade.errors import BudgetExceeded, describe
from agentcascade.storage.budget_entries import (
    BudgetEntry,
    new_reservation,
    reservation_rows,
    set_aside,
    written_future,
)
from agentcascade.storage.budget_rows import (
    Balance,
    account_keys,
    account_window,
    charge_accounts,
    claim_bookings,
    expire_bookings,
    forget_bookings,
    lock_accounts,
    read_balance,
    read_expired,
    read_reservations,
    release_reservations,
    round_up,
)
from agentcascade.storage.database import Database
from agentcascade.storage.tables import reservations
from agentcascade.storage.thread_pool import submit
from agentcascade.types import Account, new_id, now

log = logging.getLogger("agentcascade.budgets")
BATCH = 200
"""Bookings of one transaction."""
RETRY_SECONDS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
"""Between the tries to book what the database did not take; the last for ever."""
MOST_LATE = 50_000
"""Bookings that wait for the database to come back; more are lost, and said so."""
FOLDED = timedelta(days=1)
"""After that long a reservation that nobody settled is part of what was spent, for good."""
TRIED = timedelta(days=7)
"""For so long a booking whose commit was not heard of can be tried again without being booked twice."""


class DatabaseBudgets:
    """Reserve before a call, settle after it.

    Entries of one process share transactions: a hundred calls at once wait for a few commits, not for two hundred.
    A reservation that nobody settles, since its process died, counts as spent once its time is over: what such a call
    did cost is not known, and more is booked rather than nothing.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: deque[BudgetEntry] = deque()
        self._lock = forking.lock()
        self._drains = False
        self._late = 0
        self._writing: list[BudgetEntry] = []
        self._pid = os.getpid()
        self._folded: datetime | None = None
        self._booked: list[str] = []
        """Bookings that are known to be in the database: their ids there have served."""

    async def reserve(
        self, accounts: Sequence[Account], dollars: Decimal, seconds: float, *, id: str | None = None
    ) -> str:
        """Set `dollars` aside on every account or, raising `BudgetExceeded`, on none; returns the reservation's id.

        With an `id` that is known before, whoever comes after a crash can settle it, whether or not it was written.
        Nothing stays reserved when the wait for it is cancelled, whatever the database did by then.
        """
        entry = new_reservation(accounts, dollars, seconds, now())
        entry.id = id or entry.id
        if not entry.accounts:
            return entry.id
        self._enter(entry)
        try:
            await written_future(entry)
        except asyncio.CancelledError:
            self._give_up(entry)
            raise
        return entry.id

    def settle(self, reservation: str, dollars: Decimal) -> asyncio.Future[None]:
        """Book what the call did cost and release the reservation, also when its time is over by now.

        It is on its way when this returns, and gets there whether or not somebody waits for it. A second time does
        nothing.
        """
        entry = BudgetEntry(reservation, dollars)
        self._enter(entry)
        return written_future(entry)

    def book(self, accounts: Sequence[Account], dollars: Decimal) -> asyncio.Future[None]:
        """Book what was spent without a reservation, in the same way, and once: its id tells a second try."""
        entry = BudgetEntry(new_id("bk"), dollars, account_keys(accounts, now()))
        self._enter(entry)
        return written_future(entry)

    def balance(self, account: Account) -> Balance:
        """Dollars spent and reserved in the account's present period."""
        at = now()
        with self._database.begin() as connection:
            return read_balance(connection, (account.scope, account.name, account_window(account, at)), at)

    def close(self, seconds: float = 5.0) -> None:
        """Wait until everything is booked."""
        end = time.monotonic() + seconds
        with self._lock:
            self._leave_to_parent()
        self._wake()
        while time.monotonic() < end:
            with self._lock:
                if not (self._waiting or self._drains or self._late):
                    return
            time.sleep(0.01)
        with self._lock:
            lost = self._late + sum(not entry.reserves for entry in (*self._waiting, *self._writing))
        log.error("%d bookings may be lost: the database did not take them in time", lost)

    def _reserve(self, accounts: Sequence[Account], dollars: Decimal, seconds: float) -> str:
        """`reserve` at once, in this thread."""
        entry = new_reservation(accounts, dollars, seconds, now())
        self._write([entry])
        entry.written.result()
        return entry.id

    def _settle(self, reservation: str, dollars: Decimal) -> None:
        self._write([BudgetEntry(reservation, dollars)])

    def _enter(self, entry: BudgetEntry) -> None:
        with self._lock:
            self._leave_to_parent()
            self._waiting.append(entry)
        self._wake()

    def _leave_to_parent(self) -> None:
        """In a forked child: what waited is the parent's to write."""
        if self._pid != os.getpid():
            self._waiting.clear()
            self._drains = False
            self._late = 0
            self._writing = []
            self._booked = []
            self._pid = os.getpid()

    def _wake(self) -> None:
        """Start the writer where something waits for one."""
        with self._lock:
            starts = bool(self._waiting) and not self._drains
            self._drains = self._drains or starts
        if starts:
            self._start_draining()

    def _start_draining(self) -> None:
        try:
            submit(self._drain)
        except RuntimeError:  # the interpreter is shutting down, and has no threads any more
            self._drain()

    def _give_up(self, entry: BudgetEntry) -> None:
        with self._lock:
            entry.given_up = True
            if not entry.written.done():
                return  # not written yet, or being written: the writer sees to it
        if entry.written.exception() is None:
            self._enter(BudgetEntry(entry.id, Decimal(0)))

    def _drain(self) -> None:
        """Write what waits, transaction by transaction, until nothing does."""
        while True:
            with self._lock:
                batch = [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]
                self._writing = batch
                if not batch:
                    self._drains = False
                    return
            batch = [entry for entry in batch if not (entry.reserves and entry.given_up)]
            try:
                self._write(batch)
            except BaseException as error:
                if not self._failed(batch, error):
                    return

    def _failed(self, batch: Sequence[BudgetEntry], error: BaseException) -> bool:
        """Who waits for a reservation is told; what was spent is tried again.

        A reservation that may be there all the same is given back, or it would count as spent one day. Returns whether
        the writer goes on: not where no thread is to be had that waits for the next try, which the next entry makes.
        """
        with self._lock:
            self._writing = []
        late = [entry for entry in batch if not entry.reserves and not entry.written.done()]
        late += [BudgetEntry(entry.id, Decimal(0)) for entry in batch if entry.is_doubtful and not entry.written.done()]
        for entry in batch:
            if entry.reserves and not entry.written.done():
                entry.written.set_exception(error)
        for entry in late:
            entry.tries += 1
        room = max(0, MOST_LATE - self._late)
        retried = late[:room]
        for entry in late[room:]:
            log.error("$%s of %s are not booked: %s", entry.dollars, entry.id, describe(error))
            entry.written.set_exception(error)
        if not retried:
            return True

        def retry() -> None:
            with self._lock:
                self._waiting.extend(retried)
                self._late -= len(retried)
            self._wake()

        with self._lock:
            self._late += len(retried)
        tries = min(entry.tries for entry in retried)
        timer = threading.Timer(RETRY_SECONDS[min(tries, len(RETRY_SECONDS)) - 1], retry)
        timer.daemon = True
        try:
            timer.start()
        except RuntimeError:  # too many threads, or the interpreter is shutting down
            with self._lock:
                self._waiting.extend(retried)
                self._late -= len(retried)
                self._drains = False
            return False
        return True

    def _write(self, batch: Sequence[BudgetEntry]) -> None:
        """All of `batch` in one transaction: settlements first, since they may make room."""
        refused: dict[str, BudgetExceeded] = {}
        at = now()
        settled: dict[str, Decimal | None] = {
            entry.id: round_up(entry.dollars) for entry in reversed(batch) if entry.accounts is None
        }
        with self._begin() as connection:
            stale = self._read_stale(connection, at)
            keys = {(r.scope, r.name, r.window) for r in (*read_reservations(connection, settled), *stale)}
            keys |= {key for entry in batch for key in entry.accounts or ()}
            lock_accounts(connection, sorted(keys), at)
            charges = release_reservations(connection, {**{r.id: None for r in stale}, **settled})
            booking = [entry for entry in batch if entry.accounts is not None and not entry.reserves]
            claimed = claim_bookings(connection, [entry.id for entry in booking], at)
            for entry in booking:
                for key in (entry.accounts or ()) if entry.id in claimed else ():
                    charges[key] = charges.get(key, Decimal(0)) + round_up(entry.dollars)
            if booking and self._booked:
                forget_bookings(connection, self._booked)
            charge_accounts(connection, charges, at)
            reserving = [entry for entry in batch if entry.reserves]
            balances = {
                key: read_balance(connection, key, at)
                for key in sorted({key for entry in reserving for key in entry.accounts or ()})
            }
            for entry in reserving:
                try:
                    set_aside(entry, balances)
                except BudgetExceeded as error:
                    refused[entry.id] = error
            rows = [row for entry in reserving if entry.id not in refused for row in reservation_rows(entry, at)]
            if rows:
                connection.execute(reservations.insert(), rows)
            for entry in reserving:
                entry.is_doubtful = entry.id not in refused
        if booking:
            self._booked = [entry.id for entry in booking]
        self._tell(batch, refused)

    def _tell(self, batch: Sequence[BudgetEntry], refused: Mapping[str, BudgetExceeded]) -> None:
        """Those who wait for them how the entries went; what nobody waits for any more is given back."""
        abandoned = []
        for entry in batch:
            with self._lock:
                if entry.reserves and entry.given_up and entry.id not in refused:
                    abandoned.append(entry)
                error = refused.get(entry.id) if entry.reserves else None
                entry.written.set_result(None) if error is None else entry.written.set_exception(error)
        for entry in abandoned:
            self._enter(BudgetEntry(entry.id, Decimal(0)))

    def _read_stale(self, connection: Connection, at: datetime) -> Sequence[Row[Any]]:
        """Now and then: reservations over since long ago, whose processes must be dead."""
        if self._folded is not None and abs(at - self._folded) < timedelta(hours=1):
            return ()
        self._folded = at
        expire_bookings(connection, at - TRIED)
        return read_expired(connection, at - FOLDED, 1000)

    def _begin(self) -> AbstractContextManager[Connection]:
        """SQLite has one writer at a time anyway; PostgreSQL locks the accounts' own rows."""
        return self._database.begin(write=self._database.is_sqlite)
