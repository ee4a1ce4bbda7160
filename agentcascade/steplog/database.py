"""Export the step log from the database, and import a log that was made elsewhere.

Rows of `shadows` hold what was said; the bills are in `calls`, the outcome is in `episodes`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, or_, select

from agentcascade.models.pricing import PriceTable
from agentcascade.steplog.records import (
    STUDENT_PURPOSES,
    TEACHER_PURPOSES,
    VERIFIER_PURPOSE,
    PriceLookup,
    decision_and_shadow,
    logged_step,
)
from agentcascade.steplog.types import LoggedStep
from agentcascade.storage import Database
from agentcascade.storage.record_rows import write_records
from agentcascade.storage.tables import calls, decisions, episodes, shadows
from agentcascade.types import Call, Decision, EpisodeEnd, Shadow, Usage, now

__all__ = ["export"]

CHUNK_STEPS = 500


def export(
    database: Database,
    *,
    namespace: str | None = None,
    since: datetime | None = None,
    cascade: str | None = None,
    prices: PriceTable | None = None,
    kinds: Collection[str] = ("shadow", "audit"),
) -> Iterator[LoggedStep]:
    """Export the logged steps, namespace by namespace, oldest first; chunks are read as the iterator goes on.

    Args:
        database: an open database, see `agentcascade.storage.open_database`.
        namespace: of one tenant; None: of all.
        since: steps from this time on.
        cascade: steps of the cascade with this name.
        prices: looked up by the models' names now; without them, and for unknown models, a step has no prices.
        kinds: "shadow" for steps that the teacher took, "audit" for accepted steps that it checked.

    Yields:
        Steps with the student's samples, the teacher's action, token counts by class, and the episode's outcome.

    Raises:
        StorageError: the database cannot be read.
    """
    price_lookup = PriceLookup(prices)
    with database.begin() as connection:
        every = select(shadows.c.namespace).distinct().order_by(shadows.c.namespace)
        spaces = list(connection.execute(every).scalars()) if namespace is None else [namespace]
    for space in spaces:
        conditions = [shadows.c.namespace == space, shadows.c.kind.in_(list(kinds))]
        conditions += [shadows.c.created_at >= since] if since is not None else []
        conditions += [decisions.c.cascade == cascade] if cascade is not None else []
        after: tuple[datetime, str] | None = None
        while True:
            with database.begin() as connection:  # one for each chunk: the reader may take its time
                rows = _select_chunk(connection, conditions, after)
                bills = _select_calls(connection, [row.decision for row in rows])
            yield from (logged_step(_shadow(row), bills[row.decision], row.success, price_lookup) for row in rows)
            if len(rows) < CHUNK_STEPS:
                break
            after = rows[-1].created_at, rows[-1].decision


def _select_chunk(
    connection: Connection, conditions: list[ColumnElement[bool]], after: tuple[datetime, str] | None
) -> Sequence[Any]:
    time = shadows.c.created_at
    if after is not None:  # the first condition is the index's, the second settles ties
        conditions = [*conditions, time >= after[0], or_(time > after[0], shadows.c.decision > after[1])]
    ended = and_(episodes.c.namespace == shadows.c.namespace, episodes.c.id == shadows.c.episode)
    query = (
        select(shadows, episodes.c.success)
        .join(decisions, decisions.c.id == shadows.c.decision)
        .outerjoin(episodes, ended)
        .where(*conditions)
        .order_by(time, shadows.c.decision)
        .limit(CHUNK_STEPS)
    )
    return connection.execute(query).all()


def _select_calls(connection: Connection, ids: Sequence[str]) -> dict[str, list[Call]]:
    bills: dict[str, list[Call]] = defaultdict(list)
    purposes = calls.c.decision.in_(ids) & calls.c.purpose.in_(
        [*STUDENT_PURPOSES, *TEACHER_PURPOSES.values(), VERIFIER_PURPOSE]
    )
    for line in connection.execute(select(calls).where(purposes).order_by(calls.c.pk)):
        bills[line.decision].append(_call(line))
    return bills


def _shadow(row: Any) -> Shadow:
    return Shadow.model_validate({k: v for k, v in row._mapping.items() if k != "success"})


def _call(line: Any) -> Call:
    usage = Usage(**{name: getattr(line, name) for name in Usage.model_fields})
    names = (name for name in Call.model_fields if name != "usage")
    return Call(usage=usage, **{name: getattr(line, name) for name in names})


def import_steps(database: Database, steps: Iterable[LoggedStep]) -> int:
    """Import a log that was made elsewhere into the tables, for dashboard and reports. Returns how many steps were new.

    Steps that are there already are left alone, so that a log can be imported again.
    """
    loaded, start = 0, now()
    ends: dict[tuple[str, str], EpisodeEnd] = {}
    chunk: list[tuple[Decision, Shadow]] = []
    for number, step in enumerate(steps):
        pair = decision_and_shadow(step, start + timedelta(microseconds=number))
        if step.success is not None:
            _note_episode_end(ends, pair[0], step.success)
        chunk.append(pair)
        if len(chunk) == CHUNK_STEPS:
            loaded += _write_steps(database, chunk)
            chunk = []
    loaded += _write_steps(database, chunk)
    episode_ends = list(ends.values())
    for first in range(0, len(episode_ends), CHUNK_STEPS):
        _write_ends(database, episode_ends[first : first + CHUNK_STEPS])
    return loaded


def _write_steps(database: Database, pairs: Sequence[tuple[Decision, Shadow]]) -> int:
    ids = [decision.id for decision, _ in pairs]
    with database.begin(write=True) as connection:
        there = set(connection.execute(select(decisions.c.id).where(decisions.c.id.in_(ids))).scalars())
        fresh = {decision.id: (decision, shadow) for decision, shadow in pairs if decision.id not in there}
        write_records(connection, [record for pair in fresh.values() for record in pair])
    return len(fresh)


def _write_ends(database: Database, ends: Sequence[EpisodeEnd]) -> None:
    """Write the ends of episodes that the database does not have."""
    named = select(episodes.c.namespace, episodes.c.id).where(episodes.c.id.in_([e.episode for e in ends]))
    with database.begin(write=True) as connection:
        there = {(space, id) for space, id in connection.execute(named)}
        write_records(connection, [end for end in ends if (end.namespace, end.episode) not in there])


def _note_episode_end(ends: dict[tuple[str, str], EpisodeEnd], decision: Decision, success: bool) -> None:
    key = decision.namespace, decision.episode
    before = ends.get(key)
    ends[key] = EpisodeEnd(
        episode=decision.episode,
        namespace=decision.namespace,
        goal=decision.goal,
        mode=decision.mode,
        success=success,
        steps=max(decision.step + 1, before.steps if before else 0),
        started_at=min(decision.created_at, before.started_at) if before else decision.created_at,
        finished_at=max(decision.created_at, before.finished_at) if before else decision.created_at,
    )
