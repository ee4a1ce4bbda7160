"""Bookings that the database does not take: tried again, later and later, counted, and said to be lost if they are."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.exc import OperationalError

from agentcascade.errors import BudgetExceeded, StorageError
from agentcascade.storage import Database, open_database
from agentcascade.storage import budgets as module
from agentcascade.storage.budget_rows import Balance
from agentcascade.storage.budgets import BATCH, DatabaseBudgets
from agentcascade.types import Account

KEY = Account(scope="key", name="k", limit=Decimal(1))


def balance(spent: str = "0", reserved: str = "0") -> Balance:
    return Balance(Decimal(spent), Decimal(reserved))


class Alarm:
    """A timer that goes off when the test says so."""

    def __init__(self, made: list[Alarm], seconds: float, ring: Callable[[], None]) -> None:
        self._made, self.seconds, self.ring, self.daemon = made, seconds, ring, False

    def start(self) -> None:
        assert self.daemon, "a process that ends does not wait for it"
        self._made.append(self)


class Behind:
    """Budgets over a database that can be broken, whose writer runs when the test says so."""

    def __init__(self, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
        self.budgets, self.broken = DatabaseBudgets(database), False
        self.starts: list[Callable[[], None]] = []
        self.alarms: list[Alarm] = []
        monkeypatch.setattr(module, "submit", self.starts.append)
        monkeypatch.setattr(threading, "Timer", lambda seconds, ring: Alarm(self.alarms, seconds, ring))

        @event.listens_for(database.engine, "before_cursor_execute")
        def refuse(*_: object) -> None:
            if self.broken:
                raise OperationalError("database is locked", None, Exception())

    def write(self) -> None:
        (drain,) = self.starts
        self.starts.clear()
        drain()

    def spent(self) -> Decimal:
        return self.budgets.balance(KEY).spent


@pytest.fixture
def behind(monkeypatch: pytest.MonkeyPatch) -> Iterator[Behind]:
    database = open_database("sqlite:///:memory:")
    yield Behind(database, monkeypatch)
    database.close()


async def test_who_waits_for_a_reservation_is_told_that_the_database_is_gone(behind: Behind) -> None:
    behind.broken = True
    wish = asyncio.ensure_future(behind.budgets.reserve([KEY], Decimal("0.5"), 60))
    await asyncio.sleep(0)
    behind.write()
    with pytest.raises(StorageError):
        await wish
    assert not behind.alarms, "nothing was spent"
    behind.broken = False
    assert behind.budgets.balance(KEY) == balance()


async def test_what_was_spent_is_tried_later_and_later_until_it_is_booked(behind: Behind) -> None:
    behind.broken = True
    booked = behind.budgets.book([KEY], Decimal("0.25"))
    for tries in range(8):
        behind.write()
        assert len(behind.alarms) == tries + 1
        behind.alarms[-1].ring()
    assert [a.seconds for a in behind.alarms] == [0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 30.0, 30.0]
    assert not booked.done()
    behind.broken = False
    behind.write()
    await booked
    assert (behind.spent(), behind.starts) == (Decimal("0.25"), [])


async def test_a_new_booking_among_late_ones_does_not_hurry_them(behind: Behind) -> None:
    """Those of a batch are tried together, when the youngest is due; one writer is enough for all that waits."""
    behind.broken = True
    first = behind.budgets.book([KEY], Decimal("0.1"))
    behind.write()
    behind.alarms[0].ring()
    second = behind.budgets.book([KEY], Decimal("0.2"))
    assert len(behind.starts) == 1
    behind.write()
    assert [a.seconds for a in behind.alarms] == [0.1, 0.1]
    behind.broken = False
    behind.alarms[1].ring()
    behind.write()
    await asyncio.gather(first, second)
    assert behind.spent() == Decimal("0.3")


async def test_more_than_can_wait_are_lost_and_said(
    behind: Behind, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "MOST_LATE", 2)
    behind.broken = True
    kept = [behind.budgets.book([KEY], Decimal("0.1"))]
    behind.write()
    kept.append(behind.budgets.book([KEY], Decimal("0.2")))
    lost = behind.budgets.book([KEY], Decimal("0.4"))
    behind.write()
    with pytest.raises(StorageError):
        await lost
    (said,) = [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR]
    assert said.startswith("$0.4 of bk")
    assert "are not booked: StorageError" in said
    also = behind.budgets.book([KEY], Decimal("0.05"))
    behind.write()
    with pytest.raises(StorageError):
        await also
    caplog.clear()
    behind.budgets.close(0.02)
    assert "2 bookings may be lost: the database did not take them in time" in caplog.text
    behind.broken = False
    for alarm in behind.alarms:
        alarm.ring()
    behind.write()
    await asyncio.gather(*kept)
    caplog.clear()
    behind.budgets.close(0.5)
    assert (behind.spent(), caplog.text) == (Decimal("0.3"), "")

    behind.broken = True
    again = [behind.budgets.book([KEY], Decimal("0.1")) for _ in range(2)]  # there is room again
    behind.write()
    behind.broken = False
    behind.alarms[-1].ring()
    behind.write()
    await asyncio.gather(*again)
    assert behind.spent() == Decimal("0.5")


async def test_what_is_being_written_at_the_end_is_said_too(
    behind: Behind, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    booked = [behind.budgets.book([KEY], Decimal("0.001")) for _ in range(2)]
    reserved = asyncio.ensure_future(behind.budgets.reserve([KEY], Decimal("0.001"), 60))
    await asyncio.sleep(0)
    write = behind.budgets._write

    def close_meanwhile(batch: Any) -> None:
        behind.budgets.close(0.02)
        write(batch)

    monkeypatch.setattr(behind.budgets, "_write", close_meanwhile)
    behind.write()
    (said,) = [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR]
    assert said.startswith("2 bookings may be lost"), "the reservation is none"
    await asyncio.gather(*booked, reserved)
    caplog.clear()
    behind.budgets.close(0.5)
    assert caplog.text == ""


async def test_what_still_waits_at_the_end_is_said(behind: Behind, caplog: pytest.LogCaptureFixture) -> None:
    behind.broken = True
    booked = [behind.budgets.book([KEY], Decimal("0.001"))]
    behind.write()
    booked += [behind.budgets.book([KEY], Decimal("0.001")) for _ in range(2)]
    behind.budgets.close(0.02)
    (said,) = [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR]
    assert said == "3 bookings may be lost: the database did not take them in time", "one late, two not tried"
    behind.broken = False
    behind.write()
    behind.alarms[0].ring()
    behind.write()
    await asyncio.gather(*booked)


async def test_one_writer_writes_all_that_waits_in_batches(behind: Behind, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    write = behind.budgets._write

    def measured(batch: list[Any]) -> None:
        sizes.append(len(batch))
        write(batch)

    monkeypatch.setattr(behind.budgets, "_write", measured)
    booked = [behind.budgets.book([KEY], Decimal("0.001")) for _ in range(BATCH + 3)]
    behind.write()
    assert sizes == [BATCH, 3]
    await asyncio.gather(*booked)
    assert behind.spent() == Decimal("0.203")
    await_later = behind.budgets.book([KEY], Decimal("0.001"))
    behind.write()
    await await_later


async def test_a_wish_that_was_given_up_is_not_written_and_one_that_was_written_is_given_back(behind: Behind) -> None:
    early = asyncio.ensure_future(behind.budgets.reserve([KEY], Decimal("0.6"), 60))
    await asyncio.sleep(0)
    early.cancel()
    with pytest.raises(asyncio.CancelledError):
        await early
    behind.write()
    assert behind.budgets.balance(KEY) == balance()
    late = asyncio.ensure_future(behind.budgets.reserve([KEY], Decimal("0.6"), 60))
    await asyncio.sleep(0)
    behind.write()
    late.cancel()
    with pytest.raises(asyncio.CancelledError):
        await late
    assert behind.budgets.balance(KEY) == balance(reserved="0.6")
    behind.write()
    assert behind.budgets.balance(KEY) == balance()


async def test_a_wish_that_is_given_up_while_it_is_written_is_given_back(
    behind: Behind, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = behind.budgets._write

    def give_up_meanwhile(batch: Any) -> None:
        for entry in batch:
            if entry.reserves:
                behind.budgets._give_up(entry)
        write(batch)

    monkeypatch.setattr(behind.budgets, "_write", give_up_meanwhile)
    wishes = [asyncio.ensure_future(behind.budgets.reserve([KEY], Decimal(d), 60)) for d in ("0.6", "0.3", "0.2")]
    await asyncio.sleep(0)
    behind.write()
    assert await asyncio.gather(*wishes[:2])
    with pytest.raises(BudgetExceeded):
        await wishes[2]
    behind.budgets.close(0.5)
    assert behind.budgets.balance(KEY) == (Decimal(0), Decimal(0))


async def test_a_refused_wish_that_was_given_up_gives_nothing_back(behind: Behind) -> None:
    wish = asyncio.ensure_future(behind.budgets.reserve([KEY], Decimal(2), 60))
    await asyncio.sleep(0)
    behind.write()
    wish.cancel()
    with pytest.raises((asyncio.CancelledError, BudgetExceeded)):
        await wish
    assert behind.starts == []


async def test_a_reservation_may_be_named_before_it_is_made(behind: Behind) -> None:
    wish: Any = asyncio.ensure_future(behind.budgets.reserve([KEY], Decimal("0.5"), 60, id="known"))
    await asyncio.sleep(0)
    behind.write()
    assert await wish == "known"
    settled = behind.budgets.settle("known", Decimal("0.2"))
    behind.write()
    await settled
    assert behind.budgets.balance(KEY) == balance("0.2")
    assert await behind.budgets.reserve([], Decimal(1), 60, id="free") == "free"


async def test_a_forked_child_leaves_what_waited_to_its_parent(
    behind: Behind, caplog: pytest.LogCaptureFixture
) -> None:
    behind.budgets.book([KEY], Decimal("0.5"))
    behind.budgets._pid, behind.budgets._late = -1, 3  # as they are in a child
    own = [behind.budgets.book([KEY], Decimal("0.1")) for _ in range(2)]
    assert len(behind.starts) == 2, "the parent's writer does not run here, and one of the child's is enough"
    behind.starts.pop(0)
    behind.write()
    await asyncio.gather(*own)
    behind.budgets.close(0.5)
    assert (behind.spent(), caplog.text) == (Decimal("0.2"), "")


async def test_a_forked_child_s_own_bookings_are_tried_again(behind: Behind, caplog: pytest.LogCaptureFixture) -> None:
    behind.broken = True
    behind.budgets._pid = -1  # as it is in a child
    booked = behind.budgets.book([KEY], Decimal("0.1"))
    behind.budgets.close(0.02)
    assert "1 bookings may be lost" in caplog.text
    behind.write()
    behind.alarms[0].ring()
    behind.broken = False
    behind.write()
    await booked
    assert behind.spent() == Decimal("0.1")


async def test_a_forked_child_that_ends_says_nothing_of_what_waits_in_its_parent(
    behind: Behind, caplog: pytest.LogCaptureFixture
) -> None:
    behind.budgets.book([KEY], Decimal("0.5"))
    behind.budgets._pid, behind.budgets._late = -1, 3
    behind.budgets.close(0.02)
    assert (len(behind.starts), caplog.text) == (1, "")


async def test_a_reservation_whose_commit_was_not_heard_of_is_given_back(
    behind: Behind, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be in the database all the same, where it would count as spent when its time is over."""
    begin = behind.budgets._begin

    @contextmanager
    def cut_off() -> Iterator[Any]:
        with begin() as connection:
            yield connection
        raise StorageError("the connection was lost")

    with monkeypatch.context() as patched:
        patched.setattr(behind.budgets, "_begin", cut_off)
        wishes = [asyncio.ensure_future(behind.budgets.reserve([KEY], Decimal(d), 60)) for d in ("0.5", "0.9")]
        await asyncio.sleep(0)
        behind.write()
    assert behind.budgets.balance(KEY) == balance(reserved="0.5")
    with pytest.raises(StorageError):
        await wishes[0]
    with pytest.raises((StorageError, BudgetExceeded)):
        await wishes[1]
    behind.alarms[0].ring()
    behind.write()
    assert behind.budgets.balance(KEY) == balance()
    behind.budgets.close(0.5)


async def test_where_no_thread_can_wait_the_next_entry_or_the_end_tries_again(
    behind: Behind, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(self: Alarm) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(Alarm, "start", full)
    behind.broken = True
    booked = [behind.budgets.book([KEY], Decimal("0.1"))]
    behind.write()
    booked.append(behind.budgets.book([KEY], Decimal("0.2")))
    behind.write()
    assert not any(one.done() for one in booked)
    behind.budgets.close(0.02)
    assert "2 bookings may be lost" in caplog.text
    caplog.clear()
    behind.write()
    behind.broken = False
    monkeypatch.setattr(module, "submit", lambda drain: drain())
    behind.budgets.close(0.5)
    await asyncio.gather(*booked)
    assert (behind.spent(), caplog.text) == (Decimal("0.3"), "")
