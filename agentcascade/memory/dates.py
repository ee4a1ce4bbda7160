"""Time expressions: matched by a regular expression, resolved by dateparser against the day of their turn."""

from __future__ import annotations

import re
from calendar import monthrange
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, NamedTuple

from agentcascade.errors import MissingExtra

MONTHS = "january|february|march|april|may|june|july|august|september|october|november|december"
DAYS = "monday|tuesday|wednesday|thursday|friday|saturday|sunday"
NUMBER = r"(?:\d+|a|an|one|two|three|four|five|six|seven|eight|nine|ten|few|couple of)"
UNIT = r"(?:day|week|weekend|month|year|hour|minute|night|morning|evening)s?"

EXPRESSION = re.compile(
    rf"\b(?:\d{{1,2}}(?:st|nd|rd|th)?\s+(?:of\s+)?(?:{MONTHS})(?:,?\s+\d{{4}})?"
    rf"|(?:{MONTHS})\s+\d{{1,2}}(?:st|nd|rd|th)?(?:,?\s+\d{{4}})?"
    rf"|(?:{MONTHS})(?:,?\s+(?:19|20)\d\d)"
    r"|\d{4}-\d{2}-\d{2}|\d{1,2}/\d{1,2}/\d{2,4}"
    rf"|(?:the\s+)?(?:last|past|next|this|previous|coming)\s+(?:few\s+)?(?:{UNIT}|{DAYS}|{MONTHS}|summer|winter|spring|fall|autumn)"
    rf"|{NUMBER}\s+{UNIT}\s+(?:ago|later|from now|before)"
    rf"|(?:in|since|until|on|for)\s+(?:{MONTHS}|{DAYS})"
    r"|(?:in|since|until|by)\s+(?:19|20)\d\d"
    r"|yesterday|today|tonight|tomorrow|last night|the other day|recently|nowadays|(?:19|20)\d\d)\b",
    re.IGNORECASE,
)
PERIOD = re.compile(
    rf"\b(?:(?P<day>\d{{1,2}})(?:st|nd|rd|th)?\s+(?:of\s+)?)?(?P<month>{MONTHS})\b(?:\s+(?P<after>\d{{1,2}})(?:st|nd|rd|th)?\b)?(?:,?\s+(?P<year>(?:19|20)\d\d))?|\b(?P<alone>(?:19|20)\d\d)\b",
    re.IGNORECASE,
)


MAX_TIMESTAMP_CHARACTERS = 100
"""Characters of a timestamp that are read"""
PROBE_DAYS = (datetime(2001, 1, 1, tzinfo=UTC), datetime(2002, 6, 12, tzinfo=UTC))
"""Two reference days: an expression that resolves alike against both is absolute."""


class Period(NamedTuple):
    """A period of days, both ends included."""

    start: datetime
    end: datetime

    def distance(self, at: datetime) -> float:
        """Days from the period to `at`; 0.0 inside."""
        if at < self.start:
            return (self.start - at).total_seconds() / 86_400
        return max(0.0, (at - self.end).total_seconds() / 86_400)


@lru_cache(maxsize=50_000)
def time_expressions(text: str) -> tuple[str, ...]:
    """The time expressions of `text` as they stand there."""
    return tuple(m.group() for m in EXPRESSION.finditer(text))


def named_periods(question: str) -> list[Period]:
    """Absolute days, months and years that a question names; a month without a year is left out."""
    named = []
    for match in PERIOD.finditer(question):
        year = match["year"] or match["alone"]
        if year is None:
            continue
        day, month = match["day"] or match["after"], match["month"]
        try:
            if month is None:
                named.append(
                    Period(datetime(int(year), 1, 1, tzinfo=UTC), datetime(int(year), 12, 31, 23, 59, tzinfo=UTC))
                )
                continue
            number = MONTHS.split("|").index(month.casefold()) + 1
            start = datetime(int(year), number, int(day or 1), tzinfo=UTC)
        except ValueError:  # the 31st of June
            continue
        length = timedelta(days=1 if day else monthrange(start.year, number)[1])
        named.append(Period(start, start + length - timedelta(minutes=1)))
    return named


def resolve_expression(expression: str, spoken_at: datetime | None) -> datetime | None:
    """Resolve a time expression that was said at `spoken_at` to a day; None where it is ambiguous."""
    dateparser = _dateparser()
    settings: dict[str, object] = {"RETURN_AS_TIMEZONE_AWARE": True, "TIMEZONE": "UTC", "PREFER_DATES_FROM": "past"}
    words = re.sub(r"^(?:the|in|since|until|on|by|for)\s+", "", expression.casefold())
    words = re.sub(r"^(?:last|past|previous)\s+", "last ", words).replace("a few", "3").replace("few", "3")
    words = words.replace("couple of", "2").replace("last weekend", "last saturday").replace("last night", "yesterday")
    if spoken_at is not None and (m := re.fullmatch(rf"(last|next|this) ({DAYS})", words)):
        return _resolve_weekday(m[1], DAYS.split("|").index(m[2]), spoken_at)
    meanings: list[datetime | None] = []
    for base in (spoken_at,) if spoken_at is not None else PROBE_DAYS:
        settings["RELATIVE_BASE"] = base.replace(tzinfo=None)
        try:
            meanings.append(dateparser.parse(words, languages=["en"], settings=settings))
        except Exception:  # dateparser lets errors of its parsers through on odd input
            return None
    return meanings[0] if len(set(meanings)) == 1 else None


def _dateparser() -> Any:
    try:
        import dateparser
    except ImportError as error:
        raise MissingExtra("dateparser", "memory", "reading dates") from error
    return dateparser


def _resolve_weekday(which: str, day: int, spoken_at: datetime) -> datetime:
    ahead = (day - spoken_at.weekday()) % 7
    if which == "last":
        ahead = ahead - 7 if ahead else -7
    elif which == "next":
        ahead = ahead or 7
    return spoken_at + timedelta(days=ahead)


def parse_timestamp(text: str) -> datetime | None:
    """Parse a timestamp in any usual form, as UTC where it names no zone; None where it does not parse."""
    try:
        moment: datetime | None = datetime.fromisoformat(text.strip())
    except ValueError:
        dateparser = _dateparser()
        try:
            moment = dateparser.parse(text[:MAX_TIMESTAMP_CHARACTERS], languages=["en"])
        except Exception:
            return None
    if moment is None:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
