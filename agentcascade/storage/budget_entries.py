"""Budget entries on their way into the database: reservations, settlements and bookings."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from agentcascade.errors import BudgetExceeded
from agentcascade.storage.budget_rows import AccountKey, Balance, account_keys, round_up
from agentcascade.types import Account, new_id


class BudgetEntry:
    """One reservation, settlement or booking on its way into the database."""

    def __init__(
        self,
        id: str,
        dollars: Decimal,
        accounts: Mapping[AccountKey, Account] | None = None,
        seconds: float | None = None,
    ) -> None:
        self.id = id
        self.dollars = dollars
        self.accounts = accounts
        self.seconds = seconds
        self.written: Future[None] = Future()
        self.given_up = False
        self.is_doubtful = False
        """A reservation whose commit was sent: it may be in the database, whatever is heard of it."""
        self.tries = 0

    @property
    def reserves(self) -> bool:
        return self.seconds is not None


def new_reservation(accounts: Sequence[Account], dollars: Decimal, seconds: float, at: datetime) -> BudgetEntry:
    """For `seconds` from when it is written, on the accounts of the period that `at` falls into."""
    return BudgetEntry(new_id("rs"), dollars, account_keys(accounts, at), seconds)


def written_future(entry: BudgetEntry) -> asyncio.Future[None]:
    """A future of the running loop for an entry that is written whether or not somebody waits."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()

    def tell() -> None:
        if future.done():
            return
        error = entry.written.exception()
        future.set_result(None) if error is None else future.set_exception(error)

    def tell_loop(_: object) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(tell)

    future.add_done_callback(lambda f: f.cancelled() or f.exception())  # nobody has to wait
    entry.written.add_done_callback(tell_loop)
    return future


def set_aside(entry: BudgetEntry, balances: dict[AccountKey, Balance]) -> None:
    """Add the reservation to `balances`. Raises `BudgetExceeded` when it does not fit into one of its accounts."""
    assert entry.accounts is not None
    amount = round_up(entry.dollars)
    for key, account in entry.accounts.items():
        if sum(balances[key]) + amount > account.limit:
            raise _exceeded(account, balances[key], amount)
    for key in entry.accounts:
        balances[key] = balances[key]._replace(reserved=balances[key].reserved + amount)


def reservation_rows(entry: BudgetEntry, at: datetime) -> list[dict[str, Any]]:
    """One row for each account."""
    assert entry.seconds is not None
    expires_at = at + timedelta(seconds=entry.seconds)
    return [
        {
            "id": entry.id,
            "dollars": round_up(entry.dollars),
            "expires_at": expires_at,
            "scope": scope,
            "name": name,
            "window": window,
        }
        for scope, name, window in entry.accounts or ()
    ]


def _exceeded(account: Account, balance: Balance, wanted: Decimal) -> BudgetExceeded:
    period = "in all" if account.period == "total" else f"a {account.period}"
    return BudgetExceeded(
        f"the budget of this {account.scope} is ${account.limit:f} {period}: ${balance.spent:.6f} are spent, "
        f"${balance.reserved:.6f} set aside for calls under way, and this call may cost ${wanted:.6f}. "
        f"Raise the budget, lower max_tokens, or wait for the next period",
        account.scope,
    )
