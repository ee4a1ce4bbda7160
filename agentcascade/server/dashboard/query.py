"""Query of a dashboard's address: filters, kept in the URL, read into a `Selection` and written back."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from urllib.parse import urlencode

from agentcascade.errors import InvalidRequest, did_you_mean
from agentcascade.ledger.selection import Selection
from agentcascade.ledger.spending_series import Bucket
from agentcascade.types import now

PERIODS = {
    "1h": (1, "last hour"),
    "6h": (6, "last 6 hours"),
    "24h": (24, "last 24 hours"),
    "7d": (168, "last 7 days"),
    "30d": (720, "last 30 days"),
    "90d": (2160, "last 90 days"),
    "1y": (8784, "last year"),
}
USUAL = "24h"
TAKEN = {"": "anyone", "student": "student", "deferred": "deferred to teacher"}
MOST_DAYS = 400
TEXT = 200


class ViewQuery(NamedTuple):
    """What a view is asked for; `period` is empty where times are given."""

    selection: Selection
    period: str
    fields: Mapping[str, str]
    """The filters as they stand in the address: those that are set."""

    @property
    def bucket(self) -> Bucket:
        length = self.selection.until - self.selection.since
        if length <= timedelta(hours=2):
            return "minute"
        return "hour" if length <= timedelta(days=3) else "day"

    @property
    def words(self) -> str:
        if self.period:
            return PERIODS[self.period][1]
        return f"{self.selection.since:%-d %b %Y %H:%M} to {self.selection.until:%-d %b %Y %H:%M} UTC"

    def further(self, path: str, until: datetime) -> str:
        """The same view of the rest of its period, before `until`, in times that a form's field takes."""
        since = self.selection.since.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="milliseconds")
        end = (until.astimezone(UTC) + timedelta(microseconds=999)).replace(tzinfo=None)
        return self.address(path, period="", **{"from": since, "until": end.isoformat(timespec="milliseconds")})

    def address(self, path: str, **more: Any) -> str:
        """A path with these filters and `more`; what is None or empty is left out."""
        fields = {**self.fields, **{k: str(v) for k, v in more.items() if v is not None}}
        fields = {k: v for k, v in fields.items() if v}
        return f"{path}?{urlencode(fields)}" if fields else path


def usual_period(oldest: datetime | None) -> str:
    """The period of an address that says none: a day, or the shorter one that holds all there is."""
    if oldest is None:
        return USUAL
    age = now() - oldest
    return next((p for p, (hours, _) in PERIODS.items() if p == USUAL or age < timedelta(hours=hours)), USUAL)


def read_query(query: Mapping[str, str], namespace: str | None, usual: str = USUAL) -> ViewQuery:
    """The view that an address asks for; `namespace` is all that its reader may see, None where that is everything.

    Without a period it is of the `usual` one.

    Raises `InvalidRequest` for what is none.
    """
    fields = {name: query.get(name, "").strip() for name in ("period", "from", "until", "client", "cascade", "model")}
    fields["taken"] = query.get("taken", "")
    for name, value in fields.items():
        if len(value) > TEXT or "\x00" in value:
            raise InvalidRequest(f"{name}={value[:40]!r}…: give at most {TEXT} characters, and no NUL")
    if fields["taken"] not in TAKEN:
        raise InvalidRequest(
            f"taken={fields['taken'][:40]!r}: {did_you_mean(fields['taken'], [t for t in TAKEN if t])}"
        )
    present = now()
    period = "" if fields["from"] else fields["period"] or usual
    if period and period not in PERIODS:
        raise InvalidRequest(f"period={period[:40]!r}: {did_you_mean(period, PERIODS)}")
    since = present - timedelta(hours=PERIODS[period][0]) if period else read_time(fields["from"], "from")
    until = read_time(fields["until"], "until") if fields["until"] and not period else present + timedelta(minutes=1)
    if not since < until:
        raise InvalidRequest("from must be before until")
    if until - since > timedelta(days=MOST_DAYS):
        raise InvalidRequest(f"{(until - since).days} days are too many: ask for at most {MOST_DAYS}")
    selection = Selection(
        namespace=namespace if namespace is not None else fields["client"] or None,
        since=since,
        until=until,
        cascade=fields["cascade"],
        model=fields["model"],
        taken=fields["taken"],
    )
    kept = {k: v for k, v in fields.items() if v and not (k == "client" and namespace is not None)}
    if not fields["from"]:
        kept.pop("until", None)
    else:
        kept.pop("period", None)
    return ViewQuery(selection, period, kept)


def read_time(text: str, name: str) -> datetime:
    """A time in an address, in UTC. Raises `InvalidRequest`."""
    try:
        time = datetime.fromisoformat(text)
        return (time if time.tzinfo else time.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise InvalidRequest(f"{name}={text[:40]!r}: give a time like 2026-11-28T09:30, in UTC") from error


def hours_of(query: Mapping[str, str], most: float) -> float:
    """The number of `hours` in a query, 24 without one. Raises `InvalidRequest`."""
    text = query.get("hours", "24")
    try:
        hours = float(text)
    except ValueError:
        hours = 0.0
    if not 0 < hours <= most:  # not a number fails too
        raise InvalidRequest(f"hours={text[:60]!r}: give a number above 0 and at most {most}")
    return hours
