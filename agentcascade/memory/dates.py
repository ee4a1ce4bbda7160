"""Time expressions: found by a regular expression, read by dateparser against the day on which they were said."""

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


LONGEST = 100
"""Characters of a timestamp that are read"""
BASES = (datetime(2001, 1, 1, tzinfo=UTC), datetime(2002, 6, 12, tzinfo=UTC))
"""Two days on which only an expression that hangs on neither means the same."""


class Span(NamedTuple):
    """A period of days, both ends included."""

    start: datetime
    end: datetime

    def distance(self, at: datetime) -> float:
        """Days from the period to `at`; 0.0 inside."""
        if at < self.start:
            return (self.start - at).total_seconds() / 86_400
        return max(0.0, (at - self.end).total_seconds() / 86_400)


@lru_cache(maxsize=50_000)
def expressions(text: str) -> tuple[str, ...]:
    """The time expressions of `text` as they stand there."""
    return tuple(m.group() for m in EXPRESSION.finditer(text))


def periods(question: str) -> list[Span]:
    """The days, months and years that a question names outright; a month without a year is left out."""
    found = []
    for match in PERIOD.finditer(question):
        year = match["year"] or match["alone"]
        if year is None:
            continue
        day, month = match["day"] or match["after"], match["month"]
        try:
            if month is None:
                found.append(
                    Span(datetime(int(year), 1, 1, tzinfo=UTC), datetime(int(year), 12, 31, 23, 59, tzinfo=UTC))
                )
                continue
            number = MONTHS.split("|").index(month.casefold()) + 1
            start = datetime(int(year), number, int(day or 1), tzinfo=UTC)
        except ValueError:  # the 31st of June
            continue
        length = timedelta(days=1 if day else monthrange(start.year, number)[1])
        found.append(Span(start, start + length - timedelta(minutes=1)))
    return found


def resolve(expression: str, said: datetime | None) -> datetime | None:
    """The day that `expression` means when it is said at `said`; None where it cannot be told."""
    dateparser = _dateparser()
    settings: dict[str, object] = {"RETURN_AS_TIMEZONE_AWARE": True, "TIMEZONE": "UTC", "PREFER_DATES_FROM": "past"}
    words = re.sub(r"^(?:the|in|since|until|on|by|for)\s+", "", expression.casefold())
    words = re.sub(r"^(?:last|past|previous)\s+", "last ", words).replace("a few", "3").replace("few", "3")
    words = words.replace("couple of", "2").replace("last weekend", "last saturday").replace("last night", "yesterday")
    if said is not None and (m := re.fullmatch(rf"(last|next|this) ({DAYS})", words)):
        return _weekday(m[1], DAYS.split("|").index(m[2]), said)
    found: list[datetime | None] = []
    for base in (said,) if said is not None else BASES:
        settings["RELATIVE_BASE"] = base.replace(tzinfo=None)
        try:
            found.append(dateparser.parse(words, languages=["en"], settings=settings))
        except Exception:  # dateparser lets errors of its parsers through on odd input
            return None
    return found[0] if len(set(found)) == 1 else None


def _dateparser() -> Any:
    try:
        import dateparser
    except ImportError as error:
        raise MissingExtra("dateparser", "memory", "reading dates") from error
    return dateparser


def _weekday(which: str, day: int, said: datetime) -> datetime:
    ahead = (day - said.weekday()) % 7
    if which == "last":
        ahead = ahead - 7 if ahead else -7
    elif which == "next":
        ahead = ahead or 7
    return said + timedelta(days=ahead)


def parse(text: str) -> datetime | None:
    """A timestamp in any usual form, as UTC where it names no zone; None where it does not parse."""
    try:
        found: datetime | None = datetime.fromisoformat(text.strip())
    except ValueError:
        dateparser = _dateparser()
        try:
            found = dateparser.parse(text[:LONGEST], languages=["en"])
        except Exception:
            return None
    if found is None:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)
