"""Shared calls: whatever happens to their caller, each question's part is booked, and nothing stays set aside."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from decimal import Decimal
from pathlib import Path

import pytest

from agentcascade.billing import door
from agentcascade.billing.door import Door, Tab
from agentcascade.billing.shares import Share, SharedBill
from agentcascade.errors import BudgetExceeded
from agentcascade.storage import open_database
from agentcascade.storage.budgets import DatabaseBudgets
from agentcascade.types import Account
from tests.billed import ASK, CancelledAt, Provider, over

ACCOUNTS = [Account(scope="namespace", name=name, limit=Decimal(1000)) for name in ("a", "b", "c")]
WEIGHTS = (5, 3, 2)


@pytest.fixture(params=["sqlite", "postgresql"])
async def budgets(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[DatabaseBudgets]:
    url = tmp_path / "a.db" if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    database = open_database(url)
    yield DatabaseBudgets(database)
    database.close()


async def ask(budgets: DatabaseBudgets, provider: Provider, tabs: list[Tab]) -> None:
    shares = [Share(weight, (account,)) for weight, account in zip(WEIGHTS, ACCOUNTS)]
    await Door(budgets=budgets).call(
        provider,
        ASK,
        {"max_tokens": 40},
        role="teacher",
        purpose="audit",
        bill=SharedBill(tabs, WEIGHTS),
        shares=shares,
    )


@pytest.mark.parametrize("linger", [10.0, 0.0])
async def test_cancelled_at_any_suspension_every_part_is_booked(
    budgets: DatabaseBudgets, linger: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door, "LINGER_SECONDS", linger)
    provider, at = Provider(), 0
    while True:
        work = CancelledAt(ask(budgets, provider, [Tab() for _ in ACCOUNTS]), at)
        with suppress(asyncio.CancelledError):
            await work
        await over(budgets)
        spent, reserved = zip(*(budgets.balance(account) for account in ACCOUNTS))
        assert not any(reserved), f"suspension {at}"
        assert sum(spent) >= provider.bill, f"suspension {at}"
        if linger:
            assert sum(spent) == provider.bill, f"suspension {at}"
            assert spent[0] * 3 == spent[1] * 5, f"suspension {at}"
        if not work.hit:
            break
        at += 1
    assert at == len(ACCOUNTS) + 2  # each reservation, the call, the bookings


async def test_what_one_part_cannot_reserve_no_other_keeps_whatever_cancels_it(tmp_path: Path) -> None:
    budgets, provider = DatabaseBudgets(open_database(tmp_path / "a.db")), Provider()
    poor = Account(scope="namespace", name="poor", limit=Decimal("0.0000001"))
    shares = [*(Share(1, (account,)) for account in ACCOUNTS), Share(1, (poor,))]
    for at in range(8):
        call = Door(budgets=budgets).call(
            provider, ASK, {"max_tokens": 40}, role="teacher", purpose="audit", bill=Tab(), shares=shares
        )
        with suppress(asyncio.CancelledError, BudgetExceeded):
            await CancelledAt(call, at)
        await over(budgets)
        assert not any(budgets.balance(account).reserved for account in (*ACCOUNTS, poor)), at
    assert provider.sent == 0
