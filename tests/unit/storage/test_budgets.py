"""Budgets and rates on one SQLite database: exact dollars, periods, and what dies with its process."""

from __future__ import annotations

import asyncio
import contextlib
import random
import sqlite3
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from sqlalchemy import Connection, event, func, select
from sqlalchemy.exc import OperationalError

from agentcascade.errors import BudgetExceeded, RateLimited
from agentcascade.storage import Database, open_database, rate_limiter
from agentcascade.storage import budgets as module
from agentcascade.storage.budget_rows import LARGEST, Balance, account_window
from agentcascade.storage.budgets import DatabaseBudgets
from agentcascade.storage.rate_limiter import RateLimiter
from agentcascade.storage.tables import rates, reservations
from agentcascade.types import Account

KEY = Account(scope="key", name="k", limit=Decimal(1))


def balance(spent: str = "0", reserved: str = "0") -> Balance:
    return Balance(Decimal(spent), Decimal(reserved))


class Clock:
    def __init__(self, at: datetime) -> None:
        self.at = at

    def __call__(self) -> datetime:
        return self.at

    def time(self) -> float:
        return self.at.timestamp()

    def forward(self, **by: float) -> None:
        self.at += timedelta(**by)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock(datetime(2026, 11, 30, 23, 59, 0, tzinfo=UTC))
    monkeypatch.setattr(module, "now", clock)
    monkeypatch.setattr(rate_limiter, "time", clock)
    return clock


@pytest.fixture
def database() -> Iterator[Database]:
    opened = open_database("sqlite:///:memory:")
    yield opened
    opened.close()


@pytest.mark.parametrize(
    ("period", "expected"), [("total", "total"), ("day", "2026-11-23"), ("month", "2026-11")], ids=str
)
def test_a_window_is_a_utc_day_or_month(period: str, expected: str) -> None:
    account = KEY.model_copy(update={"period": period})
    assert account_window(account, datetime(2026, 11, 23, 23, 59, 59, tzinfo=UTC)) == expected


async def test_the_last_cent_can_be_spent_and_not_a_pico_more(database: Database) -> None:
    budgets = DatabaseBudgets(database)
    with pytest.raises(BudgetExceeded):
        await budgets.reserve([KEY], Decimal("1.000000000001"), 60)
    await budgets.settle(await budgets.reserve([KEY], Decimal(1), 60), Decimal(1))
    with pytest.raises(BudgetExceeded):
        await budgets.reserve([KEY], Decimal("1e-12"), 60)
    await budgets.reserve([KEY], Decimal(0), 60)


async def test_what_is_finer_than_the_database_is_rounded_up(database: Database) -> None:
    budgets = DatabaseBudgets(database)
    for _ in range(3):
        await budgets.settle(await budgets.reserve([KEY], Decimal("1e-15"), 60), Decimal("1e-15"))
    assert budgets.balance(KEY) == balance("3e-12")


async def test_a_call_that_cost_more_than_was_set_aside_is_booked_whole(database: Database) -> None:
    budgets = DatabaseBudgets(database)
    await budgets.settle(await budgets.reserve([KEY], Decimal("0.1"), 60), Decimal("1.5"))
    assert budgets.balance(KEY) == balance("1.5")
    with pytest.raises(BudgetExceeded, match=r"\$1\.500000 are spent"):
        await budgets.reserve([KEY], Decimal(0), 60)


async def test_a_call_over_midnight_is_paid_by_the_day_it_began(database: Database, clock: Clock) -> None:
    budgets = DatabaseBudgets(database)
    daily, monthly = (KEY.model_copy(update={"name": p, "period": p}) for p in ("day", "month"))
    under_way = await budgets.reserve([daily, monthly], Decimal("0.9"), 600)
    clock.forward(minutes=2)
    await budgets.settle(under_way, Decimal("0.8"))
    for account in (daily, monthly):
        assert budgets.balance(account) == balance()
    clock.forward(minutes=-2)
    for account in (daily, monthly):
        assert budgets.balance(account) == balance("0.8")


async def test_the_refusal_says_what_there_is_and_what_to_do(database: Database) -> None:
    budgets = DatabaseBudgets(database)
    daily = Account(scope="namespace", name="team", limit=Decimal("2.50"), period="day")
    await budgets.settle(await budgets.reserve([daily], Decimal(1), 60), Decimal("0.5"))
    await budgets.reserve([daily], Decimal(1), 60)
    with pytest.raises(BudgetExceeded) as refused:
        await budgets.reserve([daily], Decimal("1.25"), 60)
    words = str(refused.value)
    for expected in ("namespace", "$2.50 a day", "$0.500000 are spent", "$1.000000 set aside", "$1.250000", "Raise"):
        assert expected in words
    assert refused.value.scope == "namespace"


async def test_a_dead_process_s_reservation_counts_as_spent_and_in_time_is(database: Database, clock: Clock) -> None:
    """Its call may have been billed: more is booked, never nothing."""
    budgets = DatabaseBudgets(database)
    lost = await budgets.reserve([KEY], Decimal("0.9"), 30)
    assert budgets.balance(KEY) == balance(reserved="0.9")
    clock.forward(seconds=31)
    assert budgets.balance(KEY) == balance("0.9")
    with pytest.raises(BudgetExceeded):
        await budgets.reserve([KEY], Decimal("0.2"), 30)
    clock.forward(days=2)
    await budgets.reserve([KEY], Decimal("0.1"), 30)
    with database.begin() as connection:
        assert connection.execute(select(func.count()).select_from(reservations)).scalar() == 1
    assert budgets.balance(KEY) == (Decimal("0.9"), Decimal("0.1"))
    await budgets.settle(lost, Decimal("0.3"))
    assert budgets.balance(KEY) == (Decimal("0.9"), Decimal("0.1")), "a settlement after days comes too late"


async def test_a_call_that_outlives_its_reservation_is_booked_as_what_it_cost(database: Database, clock: Clock) -> None:
    budgets = DatabaseBudgets(database)
    slow = await budgets.reserve([KEY], Decimal("0.9"), 30)
    clock.forward(seconds=31)
    await budgets.settle(slow, Decimal("0.2"))
    assert budgets.balance(KEY) == balance("0.2")


async def test_a_bill_beyond_all_columns_is_booked_as_the_most_that_fits(database: Database) -> None:
    budgets = DatabaseBudgets(database)
    ids = [await budgets.reserve([KEY], Decimal(0), 60) for _ in range(3)]
    for id, absurd in zip(ids, ("1e30", "1e18", "5")):
        await budgets.settle(id, Decimal(absurd))
    assert budgets.balance(KEY).spent == LARGEST
    with pytest.raises(BudgetExceeded):
        await budgets.reserve([KEY.model_copy(update={"name": "other"})], Decimal(10) ** 30, 60)


async def test_what_was_spent_without_a_reservation_is_booked_on_every_account(database: Database) -> None:
    budgets, space = DatabaseBudgets(database), KEY.model_copy(update={"scope": "namespace"})
    await budgets.book([KEY, space], Decimal("0.4"))
    assert (budgets.balance(KEY), budgets.balance(space)) == (balance("0.4"), balance("0.4"))


async def test_a_wait_that_is_cancelled_leaves_nothing_reserved(database: Database) -> None:
    """At any moment: before the writer has seen the wish, while it writes, and after it has."""
    budgets = DatabaseBudgets(database)
    rng = random.Random(7)
    for _ in range(60):
        wish = asyncio.ensure_future(budgets.reserve([KEY], Decimal("0.01"), 60))
        for _ in range(rng.randrange(4)):
            await asyncio.sleep(0)
        await asyncio.sleep(rng.choice([0, 0, 0.0005, 0.002]))
        wish.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await budgets.settle(await wish, Decimal(0))
    budgets.close()
    assert budgets.balance(KEY) == balance()


async def test_entries_of_one_moment_share_transactions_and_each_has_its_own_answer(database: Database) -> None:
    budgets, began = DatabaseBudgets(database), 0

    @event.listens_for(database.engine, "commit")
    def commit(_: object) -> None:
        nonlocal began
        began += 1

    wishes = [budgets.reserve([KEY], Decimal("0.3"), 60) for _ in range(50)]
    answers = await asyncio.gather(*wishes, return_exceptions=True)
    granted = [a for a in answers if isinstance(a, str)]
    assert (len(granted), sum(isinstance(a, BudgetExceeded) for a in answers)) == (3, 47)
    await asyncio.gather(*(budgets.settle(id, Decimal("0.1")) for id in granted))
    assert budgets.balance(KEY) == balance("0.3")
    assert began < 20


async def test_what_was_spent_is_booked_when_the_database_is_back(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RETRY_SECONDS", (0.01,) * 5)
    budgets, broken = DatabaseBudgets(database), [True]
    id = await budgets.reserve([KEY], Decimal("0.5"), 60)

    @event.listens_for(database.engine, "before_cursor_execute")
    def refuse(*_: object) -> None:
        if broken and broken.pop():
            raise OperationalError("database is locked", None, Exception())

    await budgets.settle(id, Decimal("0.2"))
    assert not broken
    assert budgets.balance(KEY) == balance("0.2")


async def test_accounts_of_one_name_in_other_scopes_are_other_accounts(database: Database) -> None:
    budgets = DatabaseBudgets(database)
    space = KEY.model_copy(update={"scope": "namespace"})
    await budgets.settle(await budgets.reserve([KEY], Decimal(1), 60), Decimal(1))
    assert budgets.balance(space) == balance()


async def test_accounts_are_locked_in_one_order_before_they_are_charged(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By reservation, settlement and booking alike: two servers that lock in other orders wait in a circle."""
    seen: list[list[Any]] = []

    def note(name: str) -> None:
        call = getattr(module, name)

        def noted(connection: Connection, keys: Any, at: datetime) -> None:
            seen.append([name, *keys])
            call(connection, keys, at)

        monkeypatch.setattr(module, name, noted)

    note("lock_accounts")
    note("charge_accounts")
    budgets = DatabaseBudgets(database)
    both = [KEY.model_copy(update={"name": name}) for name in "ba"]
    keys = [("key", name, "total") for name in "ab"]
    await budgets.settle(await budgets.reserve(both, Decimal("0.5"), 60), Decimal("0.2"))
    await budgets.book(both, Decimal("0.1"))
    locked = [keys for name, *keys in seen if name == "lock_accounts"]
    charged = [sorted(keys) for name, *keys in seen if name == "charge_accounts"]
    assert (locked, charged) == ([keys] * 3, [[], keys, keys])
    assert [budgets.balance(account).spent for account in both] == [Decimal("0.3")] * 2


def test_sqlite_s_one_writer_is_taken_before_balances_are_read(tmp_path: Path) -> None:
    """Else two processes read the same balance, and the later one's commit is refused."""
    opened = open_database(tmp_path / "a.db")
    with contextlib.closing(sqlite3.connect(tmp_path / "a.db", timeout=0)) as other:
        with DatabaseBudgets(opened)._begin(), pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("BEGIN IMMEDIATE")
        other.execute("BEGIN IMMEDIATE")
    opened.close()


async def test_a_call_that_nobody_limits_is_reserved_nowhere(database: Database) -> None:
    budgets = DatabaseBudgets(database)
    await budgets.settle(await budgets.reserve([], Decimal(5), 60), Decimal(5))


class AnyOrder(RuleBasedStateMachine):
    """Reservations, settlements and passing time, against a plain model of one account and its neighbour."""

    @initialize()
    def open(self) -> None:
        self.clock, self.patch = Clock(datetime(2026, 11, 23, 12, tzinfo=UTC)), pytest.MonkeyPatch()
        self.patch.setattr(module, "now", self.clock)
        self.database = open_database("sqlite:///:memory:")
        self.budgets = DatabaseBudgets(self.database)
        self.accounts = [Account(scope="key", name=n, limit=Decimal(1)) for n in "ab"]
        self.spent = [Decimal(0), Decimal(0)]
        self.open_ones: dict[str, tuple[list[int], Decimal, datetime]] = {}

    def held(self, index: int) -> Decimal:
        live = (d for which, d, end in self.open_ones.values() if index in which and end > self.clock.at)
        return sum(live, Decimal(0))

    def over(self, index: int) -> Decimal:
        ended = (d for which, d, end in self.open_ones.values() if index in which and end <= self.clock.at)
        return sum(ended, Decimal(0))

    @rule(which=st.sampled_from([[0], [1], [0, 1], [1, 0]]), amount=st.decimals("0", "0.7", places=13))
    def reserve(self, which: list[int], amount: Decimal) -> None:
        whole = amount.quantize(Decimal("1e-12"), rounding="ROUND_CEILING")
        fits = all(self.spent[i] + self.over(i) + self.held(i) + whole <= 1 for i in which)
        try:
            id = self.budgets._reserve([self.accounts[i] for i in which], amount, 60)
        except BudgetExceeded:
            assert not fits
        else:
            assert fits
            self.open_ones[id] = (which, whole, self.clock.at + timedelta(seconds=60))

    @precondition(lambda self: self.open_ones)
    @rule(data=st.data(), share=st.sampled_from(["0", "0.3", "1"]), again=st.booleans())
    def settle(self, data: st.DataObject, share: str, again: bool) -> None:
        id = data.draw(st.sampled_from(sorted(self.open_ones)))
        which, amount, _ = self.open_ones.pop(id)
        cost = (amount * Decimal(share)).quantize(Decimal("1e-12"), rounding="ROUND_CEILING")
        for _ in range(1 + again):
            self.budgets._settle(id, cost)
        for index in which:
            self.spent[index] += cost

    @rule(seconds=st.integers(1, 50))
    def wait(self, seconds: int) -> None:
        self.clock.forward(seconds=seconds)

    @invariant()
    def books_agree(self) -> None:
        if hasattr(self, "budgets"):
            for index, account in enumerate(self.accounts):
                assert self.budgets.balance(account) == (self.spent[index] + self.over(index), self.held(index))

    def teardown(self) -> None:
        if hasattr(self, "database"):
            self.patch.undo()
            self.database.close()


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=25, stateful_step_count=20, deadline=None)


async def test_a_minute_s_share_comes_back_with_the_next_minute(database: Database, clock: Clock) -> None:
    allowed = RateLimiter(database)
    for _ in range(3):
        await allowed.allow("k", 3)
    clock.forward(seconds=15)
    for _ in range(2):
        with pytest.raises(RateLimited, match="more than 3 requests") as refused:
            await allowed.allow("k", 3)
        assert refused.value.retry_after == 45
    clock.forward(seconds=refused.value.retry_after)
    await allowed.allow("k", 3)
    with database.begin() as connection:
        counted = connection.execute(select(rates.c.requests).order_by(rates.c.minute)).scalars().all()
    assert list(counted) == [3, 1]


async def test_a_limit_of_nothing_allows_nothing(database: Database) -> None:
    started = time.monotonic()
    with pytest.raises(RateLimited):
        await RateLimiter(database).allow("k", 0)
    assert time.monotonic() - started < 40
