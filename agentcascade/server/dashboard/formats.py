"""Formats of the dashboard: dollars, shares, times, and recorded texts, bounded and with hidden characters visible."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from agentcascade._util.control_characters import visible

LONGEST = 2000
"""Characters of one recorded text on a page."""


def shown(value: Any) -> Any:
    """What every expression of a template goes through before it is escaped: hostile texts are cut and made visible."""
    if isinstance(value, str) and not hasattr(value, "__html__"):
        return visible(value if len(value) <= LONGEST else value[:LONGEST] + "…")
    return value


def dollars(value: Decimal | float | None) -> str:
    """Dollars with the digits that matter: cents from a dime on, two significant digits below, none from 10,000."""
    if value is None:
        return "unknown"
    amount, sign = abs(float(value)), "−$" if value < 0 else "$"
    if amount == 0:
        return "$0"
    if amount >= 10_000:
        return f"{sign}{amount:,.0f}"
    if amount >= 0.0995:
        return f"{sign}{amount:,.2f}"
    places = max(2, 1 - _exponent(amount))
    return f"{sign}{amount:.{min(places, 12)}f}" if amount >= 1e-12 else f"{sign}0"


def _exponent(amount: float) -> int:
    return int(f"{amount:.1e}".partition("e")[2])


def share(part: float | None, whole: float | None) -> str:
    """Percent with one digit, without it where it is 0; a dash where there is nothing to divide by."""
    if not whole or part is None:
        return "–"
    return f"{100 * part / whole:.1f}".removesuffix(".0") + " %"


def count(number: int) -> str:
    return f"{number:,}"


def seconds(value: float | None) -> str:
    """Milliseconds, seconds or minutes."""
    if value is None:
        return "–"
    if value < 1:
        return f"{value * 1000:.{0 if value >= 0.01 else 1}f} ms"
    return f"{value:.1f} s" if value < 100 else f"{value / 60:.0f} min"


def moment(time: datetime) -> str:
    return f"{time.astimezone(UTC):%-d %b %Y, %H:%M:%S}"


def bucket_time(time: datetime, bucket: str) -> str:
    """A bucket's name in a table or at a chart."""
    return f"{time:%-d %b}" if bucket == "day" else f"{time:%-d %b %H:%M}"


def iso(time: datetime) -> str:
    return time.astimezone(UTC).isoformat(timespec="microseconds")
