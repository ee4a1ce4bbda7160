"""Column types: exact dollars, UTC times, growing row keys."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import BigInteger, DateTime, Dialect, Integer, TypeDecorator

PICO = Decimal(10) ** 12
MAX_PICO = 2**63 - 1
RowKey = BigInteger().with_variant(Integer, "sqlite")


class Dollars(TypeDecorator[Decimal]):
    """Exact dollars as an integer number of 10⁻¹² dollars; NULL is an unknown price.

    The cheapest listed token costs more than 10⁻¹¹ dollars; one column holds up to nine million dollars. Raises
    `ValueError` for what does not fit exactly.
    """

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: Decimal | None, dialect: Dialect) -> int | None:
        if value is None:
            return None
        pico = int(value * PICO) if value.is_finite() and abs(value) <= MAX_PICO / PICO else None
        if pico is None or pico / PICO != value:
            raise ValueError(f"{value} dollars cannot be stored exactly as a number of 10^-12 dollars")
        return pico

    def process_result_value(self, value: Any, dialect: Dialect) -> Decimal | None:
        return None if value is None else Decimal(int(value)) / PICO


class UtcTime(TypeDecorator[datetime]):
    """Aware UTC times, also where the database keeps no zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
