"""Recent decisions, with their demonstrations as the bank holds them now."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, RowMapping, String, and_, func, or_, select

from agentcascade.errors import InvalidRequest
from agentcascade.ledger.dashboard_rows import RecentDecision, ShownDemonstration
from agentcascade.storage.tables import decisions, steps, trajectories
from agentcascade.storage.trajectories import chunks

TEXT = 400
"""Characters of an action or a goal that are worth showing."""


def read_recent_decisions(
    connection: Connection, conditions: list[ColumnElement[bool]], limit: int, before: str | None = None
) -> list[RecentDecision]:
    """Newest first. Raises `InvalidRequest` when `before` is not among those that `conditions` select."""
    time, id = decisions.c.created_at, decisions.c.id
    where = list(conditions)
    if before is not None:
        then = connection.execute(select(time).where(id == before, *conditions)).scalar()
        if then is None:
            raise InvalidRequest(f"there is no decision '{before[:60]}' in this period: start from the newest")
        where.append(or_(time < then, and_(time == then, id < before)))
    query = select(decisions).where(*where).order_by(time.desc(), id.desc()).limit(limit)
    rows = connection.execute(query).mappings().all()
    demonstrations = read_demonstrations(connection, rows)
    return [recent_decision(row, demonstrations) for row in rows]


def demonstrations_of(connection: Connection, row: RowMapping) -> list[ShownDemonstration]:
    """What the student was shown at one decision, in the order in which it was shown."""
    found = read_demonstrations(connection, [row])
    return [found.get((row["namespace"], w), ShownDemonstration(window=w)) for w in row["demonstrations"]]


def read_demonstrations(
    connection: Connection, rows: Sequence[RowMapping]
) -> dict[tuple[str, str], ShownDemonstration]:
    """(namespace, 'trajectory:start-end') → demonstration, of each decision's own namespace alone."""
    refs = {(row["namespace"], window) for row in rows for window in row["demonstrations"]}
    trajectory_ids = {window.rpartition(":")[0] for _, window in refs}
    columns = trajectories.c.pk, trajectories.c.id, trajectories.c.namespace, trajectories.c.goal
    heads: dict[tuple[str, str], Any] = {}
    actions: dict[tuple[int, int], str] = {}
    text = func.substr(steps.c.action, 1, TEXT + 1, type_=String)
    for part in chunks(sorted(trajectory_ids)):
        heads |= {(h.namespace, h.id): h for h in connection.execute(select(*columns).where(columns[1].in_(part)))}
    for part in chunks(sorted({h.pk for h in heads.values()})):
        query = select(steps.c.trajectory, steps.c.position, text).where(steps.c.trajectory.in_(part))
        actions |= {(pk, i): cut(action) for pk, i, action in connection.execute(query)}
    demonstrations = {}
    for namespace, window in refs:
        id, _, span = window.rpartition(":")
        start, _, end = span.partition("-")
        head = heads.get((namespace, id))
        if head is not None and start.isdecimal() and end.isdecimal():
            shown = [actions[head.pk, i] for i in range(int(start), int(end)) if (head.pk, i) in actions]
            demonstrations[namespace, window] = ShownDemonstration(
                window=window, goal=cut(head.goal), actions=tuple(shown)
            )
    return demonstrations


def recent_decision(row: RowMapping, shown: Mapping[tuple[str, str], ShownDemonstration]) -> RecentDecision:
    """The decision of a row, its long texts cut."""
    windows = [shown.get((row["namespace"], w), ShownDemonstration(window=w)) for w in row["demonstrations"]]
    votes: Counter[str] = Counter()
    for action, number in row["votes"].items():
        votes[cut(action)] += number
    shortened = {
        "reason": cut(row["reason"]),
        "votes": dict(votes.most_common()),
        "action": None if row["action"] is None else cut(row["action"]),
        "demonstrations": tuple(windows),
        "failures": tuple(cut(f) for f in row["failures"]),
    }
    return RecentDecision(**{name: row[name] for name in RecentDecision.model_fields} | shortened)


def cut(text: str) -> str:
    """Its first `TEXT` characters."""
    return text if len(text) <= TEXT else text[:TEXT] + "…"
