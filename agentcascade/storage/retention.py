"""Retention: removes old records in small transactions, so that nobody who writes has to wait.

The bank and histories are never touched.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Table, delete, func, select, text, tuple_
from sqlalchemy.exc import SQLAlchemyError

from agentcascade.errors import StorageError, describe
from agentcascade.storage import leases
from agentcascade.storage.database import Database
from agentcascade.storage.tables import (
    accounts,
    audit_rounds,
    batch_requests,
    batches,
    cached_responses,
    computed,
    decisions,
    drafts,
    episodes,
    rates,
    recalls,
    reservations,
    responses,
    settings,
)
from agentcascade.storage.upsert import upsert
from agentcascade.types import Frozen, now

BATCH = 5_000
PAUSE_SECONDS = 0.02
DAILY = "pruned_at"
BATCH_REQUEST_DAYS = 60
"""For which it is remembered what was sent in a batch that has ended: twice as long as providers keep its results."""


class RetentionPolicy(Frozen):
    """Days for which records are kept; None for ever."""

    decisions: int | None = 90
    episodes: int | None = 365
    drafts: int | None = 14
    recalls: int | None = 90
    responses: int | None = 30
    max_decisions: int | None = 5_000_000


class Pruned(Frozen):
    """Rows removed. Calls and shadows go with their decisions and recalls and are not counted."""

    decisions: int = 0
    episodes: int = 0
    drafts: int = 0
    recalls: int = 0
    responses: int = 0
    accounts: int = 0
    rates: int = 0


def prune(
    database: Database,
    policy: RetentionPolicy,
    *,
    at: datetime | None = None,
    dry_run: bool = False,
    stop: Callable[[], bool] = lambda: False,
) -> Pruned:
    """Remove what is older than `policy` allows; `stop` is asked between transactions. A dry run only counts."""
    present = at or now()

    def before(days: int | None) -> datetime | None:
        return None if days is None else present - timedelta(days=days)

    def old(table: Table, column: Any, limit: datetime | None, *more: Any) -> int:
        if limit is None:
            return 0
        return _remove(database, table, (column < limit, *more), dry_run, stop)

    limit = before(policy.decisions)
    overflow = _overflow(database, policy.max_decisions)
    if overflow is not None and (limit is None or overflow > limit):
        limit = overflow
    days = [d for d in (policy.decisions, policy.episodes) if d is not None]
    ended = (accounts.c.window != "total") | (accounts.c.scope == "episode")
    pruned = Pruned(
        decisions=old(decisions, decisions.c.created_at, limit),
        episodes=old(episodes, episodes.c.finished_at, before(policy.episodes)),
        drafts=old(drafts, drafts.c.created_at, before(policy.drafts)),
        recalls=old(recalls, recalls.c.created_at, before(policy.recalls)),
        responses=old(responses, responses.c.created_at, before(policy.responses)),
        accounts=old(accounts, accounts.c.updated_at, before(max([*days, 62])) if days else None, ended),
        rates=_remove(database, rates, (rates.c.minute < present.timestamp() // 60 - 60,), dry_run, stop)
        + _remove(database, reservations, (reservations.c.expires_at < present - timedelta(days=1),), dry_run, stop),
    )
    ended_at = (batches.c.state == "ended") & (batches.c.ended_at < present - timedelta(days=BATCH_REQUEST_DAYS))
    _remove(
        database, batch_requests, (batch_requests.c.batch.in_(select(batches.c.id).where(ended_at)),), dry_run, stop
    )
    old(batches, batches.c.ended_at, before(policy.decisions), batches.c.state == "ended")  # with their bills
    is_left = audit_rounds.c.held_until < present
    old(audit_rounds, audit_rounds.c.created_at, before(policy.drafts), is_left)  # whose cascade did not come back
    leased = settings.c.name.startswith(leases.PREFIX), settings.c.value < present.isoformat()
    _remove(database, settings, leased, dry_run, stop)  # of processes that died
    old(computed, computed.c.created_at, before(policy.recalls))  # a cache, and nothing to count
    old(cached_responses, cached_responses.c.expires_at, present)  # likewise
    return pruned


def _overflow(database: Database, max_decisions: int | None) -> datetime | None:
    """The time before which decisions must go so that `max_decisions` are left; None when they are not too many."""
    if max_decisions is None:
        return None
    with database.begin() as connection:
        newest = (
            select(decisions.c.created_at).order_by(decisions.c.created_at.desc()).offset(max_decisions - 1).limit(1)
        )
        return connection.execute(newest).scalar()


def _remove(
    database: Database, table: Table, conditions: tuple[Any, ...], dry_run: bool, stop: Callable[[], bool]
) -> int:
    if dry_run:
        with database.begin() as connection:
            return connection.execute(select(func.count()).select_from(table).where(*conditions)).scalar_one()
    key = list(table.primary_key.columns)
    removed = 0
    while not stop():
        chosen = select(*key).where(*conditions).limit(BATCH)
        condition = (key[0] if len(key) == 1 else tuple_(*key)).in_(chosen)
        with database.begin(write=database.is_sqlite) as connection:
            count = connection.execute(delete(table).where(condition)).rowcount
        removed += count
        if count < BATCH:
            break
        time.sleep(PAUSE_SECONDS)
    return removed


def prune_daily(
    database: Database, policy: RetentionPolicy, *, at: datetime | None = None, stop: Callable[[], bool] = lambda: False
) -> Pruned | None:
    """Prune if no process has done so for a day; None when it is not time yet."""
    present = at or now()
    stamp = present.isoformat()
    with database.begin(write=True) as connection:
        claim = (
            upsert(connection, settings)
            .values(name=DAILY, value=stamp)
            .on_conflict_do_update(
                index_elements=["name"],
                set_={"value": stamp},
                where=settings.c.value < (present - timedelta(days=1)).isoformat(),
            )
        )
        if connection.execute(claim.returning(settings.c.name)).first() is None:
            return None
    return prune(database, policy, at=present, stop=stop)


def database_bytes(database: Database) -> int:
    """Bytes that the database takes."""
    with database.begin() as connection:
        if not database.is_sqlite:
            return int(connection.execute(text("SELECT pg_database_size(current_database())")).scalar_one())
        pages, each = (connection.execute(text(f"PRAGMA {p}")).scalar_one() for p in ("page_count", "page_size"))
        return int(pages) * int(each)


def vacuum(database: Database) -> tuple[int, int]:
    """Give back the room of removed rows; returns the bytes before and after. Raises `StorageError`."""
    before = database_bytes(database)
    try:
        with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            raw = connection.connection.driver_connection
            assert raw is not None
            if not database.is_sqlite:
                connection.execute(text("VACUUM ANALYZE"))
            else:  # SQLAlchemy has begun a transaction of its own, in which SQLite does not vacuum
                connection.commit()
                raw.execute("VACUUM")
                raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # until then the file is as large as it was
    except (SQLAlchemyError, sqlite3.Error) as error:
        raise StorageError(f"the database cannot be vacuumed ({describe(error)}): try again when it is idle") from error
    return before, database_bytes(database)
