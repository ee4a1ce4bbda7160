"""Bookings without a reservation whose commit was not heard of: tried again, and booked once."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import func, select

from agentcascade.errors import StorageError
from agentcascade.storage import Database, open_database
from agentcascade.storage import budgets as module
from agentcascade.storage.budget_entries import BudgetEntry
from agentcascade.storage.budget_rows import account_keys
from agentcascade.storage.budgets import DatabaseBudgets
from agentcascade.storage.tables import bookings
from agentcascade.types import Account, now

KEY = Account(scope="key", name="k", limit=Decimal(1))


def ids(database: Database) -> int:
    with database.begin() as connection:
        return connection.execute(select(func.count()).select_from(bookings)).scalar_one()


@pytest.mark.parametrize("arrives", [True, False])
async def test_a_booking_that_is_tried_again_is_booked_once(
    database: Database, monkeypatch: pytest.MonkeyPatch, arrives: bool
) -> None:
    """Whether the commit that was not heard of took place or not; with others in either transaction."""
    monkeypatch.setattr(module, "RETRY_SECONDS", (0.01,))
    budgets = DatabaseBudgets(database)
    begin, fails = budgets._begin, [True, True]

    @contextmanager
    def cut_off() -> Iterator[Any]:
        with begin() as connection:
            yield connection
            if fails and not arrives:
                fails.pop()
                raise StorageError("the connection was lost before the commit")
        if fails:
            fails.pop()
            raise StorageError("the connection was lost while it committed")

    monkeypatch.setattr(budgets, "_begin", cut_off)
    await asyncio.gather(*(budgets.book([KEY], Decimal("0.1")) for _ in range(3)), budgets.book([KEY], Decimal("0.04")))
    assert not fails
    assert budgets.balance(KEY).spent == Decimal("0.34")
    for _ in range(3):
        await budgets.book([KEY], Decimal("0.01"))
    assert budgets.balance(KEY).spent == Decimal("0.37")
    assert ids(database) == 1, "an id that has served is dropped by the next booking"


async def test_settling_keeps_no_ids_and_old_ones_are_dropped(database: Database) -> None:
    budgets = DatabaseBudgets(database)
    with database.begin(write=True) as connection:
        dead = [{"id": f"bk{i}", "created_at": now() - timedelta(days=i)} for i in (1, 30)]
        connection.execute(bookings.insert(), dead)
    await budgets.settle(await budgets.reserve([KEY], Decimal("0.5"), 60), Decimal("0.2"))
    assert (budgets.balance(KEY).spent, ids(database)) == (Decimal("0.2"), 1)


def test_a_commit_that_is_still_on_its_way_is_waited_for(postgres_url: str) -> None:
    """The server works on it while the client, whose connection broke, tries again."""
    database = open_database(postgres_url)
    accounts = account_keys([KEY], now())
    first, again = (BudgetEntry("bk1", Decimal("0.25"), accounts) for _ in range(2))
    slow, retrying = DatabaseBudgets(database), DatabaseBudgets(database)
    begin, is_held, goes_on = slow._begin, threading.Event(), threading.Event()

    @contextmanager
    def held() -> Iterator[Any]:
        with begin() as connection:
            yield connection
            is_held.set()
            goes_on.wait(20)

    slow._begin = held  # type: ignore[method-assign]
    threads = [threading.Thread(target=b._write, args=([e],)) for b, e in ((slow, first), (retrying, again))]
    threads[0].start()
    assert is_held.wait(20)
    threads[1].start()
    assert not again.written.done()
    goes_on.set()
    for thread in threads:
        thread.join(20)
    assert first.written.done()
    assert again.written.done()
    assert retrying.balance(KEY).spent == Decimal("0.25")
    database.close()
