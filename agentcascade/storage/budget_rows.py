"""Rows of budget accounts and their reservations: locked, charged, and added up to balances."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from decimal import ROUND_CEILING, Decimal
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, case, delete, func, literal, select

from agentcascade.storage.columns import MAX_PICO, PICO, Dollars
from agentcascade.storage.tables import accounts, bookings, reservations
from agentcascade.storage.upsert import upsert
from agentcascade.types import Account

SMALLEST = 1 / PICO
LARGEST = Decimal(MAX_PICO // 4) / PICO
"""No account holds more: a column could not. About two million dollars."""

AccountKey = tuple[str, str, str]
"""Scope, name and window: the row of an account."""


class Balance(NamedTuple):
    """Dollars that an account has spent in its present period, and those set aside for calls under way."""

    spent: Decimal
    reserved: Decimal


def account_window(account: Account, at: datetime) -> str:
    """The period that `at` falls into: ``total``, a UTC day or a UTC month."""
    return {"total": "total", "day": at.strftime("%Y-%m-%d"), "month": at.strftime("%Y-%m")}[account.period]


def account_keys(listed: Sequence[Account], at: datetime) -> dict[AccountKey, Account]:
    """Each account once, in the order in which all lock."""
    by_name = {(a.scope, a.name): a for a in listed}
    return dict(sorted(((a.scope, a.name, account_window(a, at)), a) for a in by_name.values()))


def read_reservations(connection: Connection, ids: Iterable[str]) -> Sequence[Row[Any]]:
    listed = list(ids)
    return connection.execute(select(reservations).where(reservations.c.id.in_(listed))).all() if listed else ()


def read_expired(connection: Connection, before: datetime, limit: int) -> Sequence[Row[Any]]:
    """Reservations that were over before then."""
    expired = select(reservations).where(reservations.c.expires_at < before).limit(limit)
    return connection.execute(expired).all()


def release_reservations(connection: Connection, bills: Mapping[str, Decimal | None]) -> dict[AccountKey, Decimal]:
    """Delete reservations by id; returns what each account has to pay for them: None stands for all of it."""
    if not bills:
        return {}
    released = delete(reservations).where(reservations.c.id.in_(list(bills))).returning(reservations)
    charges: dict[AccountKey, Decimal] = {}
    for row in connection.execute(released).all():
        bill, key = bills[row.id], (row.scope, row.name, row.window)
        charges[key] = charges.get(key, Decimal(0)) + (row.dollars if bill is None else bill)
    return charges


def claim_bookings(connection: Connection, ids: Sequence[str], at: datetime) -> set[str]:
    """Those of `ids` that are booked here for the first time: not those of a commit that was not heard of."""
    if not ids:
        return set()
    claimed = upsert(connection, bookings).values([{"id": id, "created_at": at} for id in ids])
    return set(connection.execute(claimed.on_conflict_do_nothing().returning(bookings.c.id)).scalars())


def forget_bookings(connection: Connection, ids: Sequence[str]) -> None:
    """Drop the ids of bookings that nobody will try again."""
    connection.execute(delete(bookings).where(bookings.c.id.in_(list(ids))))


def expire_bookings(connection: Connection, before: datetime) -> None:
    """Drop ids from `before`, whose processes must be dead."""
    connection.execute(delete(bookings).where(bookings.c.created_at < before))


def lock_accounts(connection: Connection, keys: Iterable[AccountKey], at: datetime) -> None:
    """Make the accounts' rows if need be, and hold them: always in one order, so that nobody waits in a circle."""
    for key in keys:
        scope, name, window = key
        row = {"scope": scope, "name": name, "window": window, "spent": Decimal(0), "updated_at": at}
        connection.execute(upsert(connection, accounts).on_conflict_do_nothing(), row)
        connection.execute(select(accounts.c.scope).where(_has_key(accounts, key)).with_for_update())


def charge_accounts(connection: Connection, charges: Mapping[AccountKey, Decimal], at: datetime) -> None:
    """Add dollars to what accounts have spent, up to `LARGEST`."""
    for key, amount in sorted(charges.items()):
        amount = min(amount, LARGEST)
        spent = case((accounts.c.spent > LARGEST - amount, literal(LARGEST, Dollars)), else_=accounts.c.spent + amount)
        connection.execute(accounts.update().where(_has_key(accounts, key)).values(spent=spent, updated_at=at))


def read_balance(connection: Connection, key: AccountKey, at: datetime) -> Balance:
    """An expired reservation counts as spent."""

    def total(table: Any, column: Any, *conditions: Any) -> Any:
        return select(func.sum(column)).where(_has_key(table, key), *conditions).scalar_subquery()

    reserved, ends = reservations.c.dollars, reservations.c.expires_at
    # Of one moment: between two statements a call may be settled, and then it would count as live and as spent.
    sums = (
        total(accounts, accounts.c.spent),
        total(reservations, reserved, ends <= at),
        total(reservations, reserved, ends > at),
    )
    spent, expired, live = (value or Decimal(0) for value in connection.execute(select(*sums)).one())
    return Balance(spent + expired, live)


def round_up(dollars: Decimal) -> Decimal:
    """Up to a whole number of 10⁻¹² dollars, of a bill that can be one."""
    return min(max(dollars, Decimal(0)), LARGEST).quantize(SMALLEST, rounding=ROUND_CEILING)


def _has_key(table: Any, key: AccountKey) -> Any:
    scope, name, window = key
    return (table.c.scope == scope) & (table.c.name == name) & (table.c.window == window)
