"""Reservation of a model call's worst case in its budgets, settled by what the call did cost, whatever happens."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from contextlib import suppress
from decimal import Decimal
from typing import Any, Protocol

from agentcascade.errors import BudgetExceeded, StorageError
from agentcascade.protocols import Budgets
from agentcascade.types import Account

BUDGET_SECONDS = 5.0
"""For the database that keeps the budgets; after that it counts as unavailable."""
SLACK_SECONDS = 60.0
"""Beyond a call's deadline, before its reservation counts as that of a process that died."""

background: set[asyncio.Future[Any]] = set()
"""Held here, since an event loop does not hold what nobody waits for."""


class FailureLog(Protocol):
    def add_failure(self, what: str, error: BaseException) -> None:
        """Note that the budgets failed, which alone is no reason to fail the call."""


class Reservation:
    """The money of one call. `strict`: a call whose budgets cannot be read is refused."""

    def __init__(self, budgets: Budgets, accounts: Sequence[Account], failures: FailureLog, *, strict: bool) -> None:
        self._budgets, self._accounts, self._failures, self._strict = budgets, accounts, failures, strict
        self._id: str | None = None
        self.is_handed_on = False
        """Somebody else settles it: the call goes on behind its caller."""
        self.is_abandoned = False
        """Nobody waits any more, not even an event loop."""

    async def reserve(self, dollars: Decimal, seconds: float) -> None:
        """Set `dollars` aside for a call of at most `seconds`. Raises `BudgetExceeded`, `StorageError`."""
        try:
            async with asyncio.timeout(BUDGET_SECONDS):
                self._id = await self._budgets.reserve(self._accounts, dollars, seconds + SLACK_SECONDS)
        except BudgetExceeded:
            raise
        except Exception as error:
            if self._strict:
                if isinstance(error, TimeoutError):
                    raise StorageError(f"the budgets were not read within {BUDGET_SECONDS:g} seconds") from error
                raise
            self._failures.add_failure("budget", error)

    def book(self, dollars: Decimal) -> Awaitable[None]:
        """Book, now and for good; the result says when it is done."""
        if self._id is not None:
            return self._budgets.settle(self._id, dollars)
        return self._budgets.book(self._accounts, dollars)

    async def settle(self, dollars: Decimal) -> None:
        """Book what the call has cost; behind the answer, which does not wait, where the database hangs."""
        booking = self.start_settling(dollars)
        if booking is not None:
            await self.wait_for(booking)

    def start_settling(self, dollars: Decimal) -> asyncio.Future[Any] | None:
        """Book what the call has cost, whatever becomes of the caller; None where that is not to be waited for."""
        if self.is_handed_on:
            return None
        if self.is_abandoned:
            with suppress(RuntimeError):
                self.book(dollars)
            return None
        booking = keep_until_done(asyncio.ensure_future(self.book(dollars)))
        return booking if self._id is not None else None  # else the database did not answer before

    async def wait_for(self, booking: asyncio.Future[Any]) -> None:
        """Wait a while for what `start_settling` books."""
        try:
            async with asyncio.timeout(BUDGET_SECONDS):
                await asyncio.shield(booking)
        except Exception as error:
            self._failures.add_failure("budget", error)


def keep_until_done(work: asyncio.Future[Any]) -> asyncio.Future[Any]:
    background.add(work)
    work.add_done_callback(_forget)
    return work


def forget_ended_loops() -> None:
    """Let go of what was under way when its event loop ended, which calls nobody back any more."""
    background.difference_update([work for work in background if work.get_loop().is_closed()])


def _forget(work: asyncio.Future[Any]) -> None:
    background.discard(work)
    if not work.cancelled():
        work.exception()  # it is recorded where somebody still waits for it
