"""Split of a shared call's bill: several questions in one call, each with its own bill, budgets and part of the cost.

Tokens are split class by class, dollars to the 10⁻¹² that tables hold, and the parts sum up to the call's own bill.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from decimal import ROUND_DOWN, Decimal
from typing import NamedTuple

from agentcascade.billing.reservation import Reservation
from agentcascade.billing.tab import Bill
from agentcascade.types import Account, Completion, Purpose, Role, Usage

PICO = Decimal(1).scaleb(-12)


class Share(NamedTuple):
    """The part of a shared call that one question bears.

    Args:
        weight: Its part, beside the others' weights: characters of its text.
        accounts: Budgets into which its part must fit.
    """

    weight: int
    accounts: tuple[Account, ...] = ()


def split_int(total: int, weights: Sequence[int]) -> list[int]:
    """`total` in proportion to `weights`; what does not divide goes to the largest remainders.

    >>> split_int(10, [1, 1, 1]), split_int(5, [0, 0])
    ([4, 3, 3], [3, 2])
    """
    if not any(weights):
        weights = [1] * len(weights)
    whole = sum(weights)
    parts = [total * weight // whole for weight in weights]
    order = sorted(range(len(weights)), key=lambda i: (-(total * weights[i] % whole), i))
    for i in order[: total - sum(parts)]:
        parts[i] += 1
    return parts


def split_dollars(total: Decimal, weights: Sequence[int]) -> list[Decimal]:
    """`total` in whole 10⁻¹² dollars, in proportion to `weights`; what is smaller stays with the first part.

    >>> split_dollars(Decimal("0.000000000007"), [2, 1])
    [Decimal('5E-12'), Decimal('2E-12')]
    """
    whole = total.quantize(PICO, ROUND_DOWN)
    parts = [part * PICO for part in split_int(int(whole / PICO), weights)]
    parts[0] += total - whole
    return parts


def split_completion(completion: Completion, weights: Sequence[int]) -> list[Completion]:
    """The bill of a completion in as many parts, which sum up to it; the request itself is the first part's."""
    classes = {name: split_int(getattr(completion.usage, name), weights) for name in Usage.model_fields}
    dollars = _split(completion.dollars, weights)
    avoided = _split(completion.avoided_dollars, weights)
    whole = sum(weights) or 1
    return [
        completion.model_copy(
            update={
                "usage": Usage(**{name: parts[i] for name, parts in classes.items()}),
                "dollars": dollars[i],
                "avoided_dollars": avoided[i],
                "seconds": completion.seconds * weight / whole,
                "calls": completion.calls if i == 0 else 0,
                "lost": completion.lost if i == 0 else 0,
            }
        )
        for i, weight in enumerate(weights)
    ]


def _split(total: Decimal | None, weights: Sequence[int]) -> Sequence[Decimal | None]:
    return [None] * len(weights) if total is None else split_dollars(total, weights)


class SharedBill:
    """Bill of a shared call: each of `bills` gets its part by weight, and every failure.

    A bill that nobody waits for any more (`gone`) gets no part: those that are left bear it, so that the ledger holds
    the whole call.
    """

    def __init__(
        self, bills: Sequence[Bill], weights: Sequence[int], gone: Callable[[int], bool] = lambda _: False
    ) -> None:
        self._bills, self._weights, self._gone = bills, weights, gone

    def add_call(self, role: Role, purpose: Purpose, completion: Completion | None) -> None:
        there = [i for i in range(len(self._bills)) if not self._gone(i)] or list(range(len(self._bills)))
        parts: Sequence[Completion | None] = [None] * len(there)
        if completion is not None:
            parts = split_completion(completion, [self._weights[i] for i in there])
        for i, part in zip(there, parts):
            self._bills[i].add_call(role, purpose, part)

    def add_failure(self, what: str, error: BaseException) -> None:
        for bill in self._bills:
            bill.add_failure(what, error)

    def model_time(self) -> AbstractContextManager[None]:
        return self._model_times()

    @contextmanager
    def _model_times(self) -> Iterator[None]:
        with ExitStack() as stack:
            for bill in self._bills:
                stack.enter_context(bill.model_time())
            yield


class SharedReservation:
    """The money of a shared call: what each set of budgets bears of it, reserved in all of them or in none."""

    def __init__(self, shares: Sequence[Share], make: Callable[[Sequence[Account]], Reservation]) -> None:
        self._shares = shares
        self._parts = {accounts: make(accounts) for accounts in dict.fromkeys(s.accounts for s in shares) if accounts}
        self._abandoned = self._handed_on = False

    @property
    def is_handed_on(self) -> bool:
        """Somebody else settles it: the call goes on behind its caller."""
        return self._handed_on

    @is_handed_on.setter
    def is_handed_on(self, value: bool) -> None:
        self._handed_on = value
        for part in self._parts.values():
            part.is_handed_on = value

    @property
    def is_abandoned(self) -> bool:
        """Nobody waits any more, not even an event loop."""
        return self._abandoned

    @is_abandoned.setter
    def is_abandoned(self, value: bool) -> None:
        self._abandoned = value
        for part in self._parts.values():
            part.is_abandoned = value

    async def reserve(self, dollars: Decimal, seconds: float) -> None:
        """Set the parts of `dollars` aside. Raises `BudgetExceeded`, `StorageError`; then nothing is."""
        held: list[tuple[Reservation, Decimal]] = []
        try:
            for part, share in self._split(dollars):
                await part.reserve(share, seconds)
                held.append((part, Decimal(0)))
        except BaseException:
            await _settle(held)
            raise

    def book(self, dollars: Decimal) -> Awaitable[None]:
        """Book, now and for good; the result says when it is done."""
        return _all([part.book(share) for part, share in self._split(dollars)])

    async def settle(self, dollars: Decimal) -> None:
        """Book what the call has cost: all parts, also where its caller goes before the first is booked."""
        await _settle(self._split(dollars))

    def _split(self, dollars: Decimal) -> list[tuple[Reservation, Decimal]]:
        """What each set of budgets bears: the sum of its questions' parts, as their bills have them."""
        borne = dict.fromkeys(self._parts, Decimal(0))
        for share, part in zip(self._shares, split_dollars(dollars, [s.weight for s in self._shares])):
            if share.accounts:
                borne[share.accounts] += part
        return [(self._parts[accounts], part) for accounts, part in borne.items()]


async def _settle(parts: Sequence[tuple[Reservation, Decimal]]) -> None:
    begun = [(part, part.start_settling(dollars)) for part, dollars in parts]
    waits = [part.wait_for(booking) for part, booking in begun if booking is not None]
    if waits:  # else nobody waits any more, perhaps not even an event loop
        await _all(waits)


async def _all(bookings: Sequence[Awaitable[None]]) -> None:
    await asyncio.gather(*bookings)
