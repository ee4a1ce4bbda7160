"""Memory histories that grow in the database, and the recalls that were made of them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, delete, func, or_, select, update

from agentcascade.errors import InvalidRequest
from agentcascade.storage.database import Database
from agentcascade.storage.tables import histories, recalls, turns
from agentcascade.storage.trajectories import chunks
from agentcascade.storage.upsert import upsert
from agentcascade.types import ModuleRun, Recall, Turn, now

__all__ = ["score_recall"]

NAME, ID = 200, 300
"""Characters of a namespace's or a history's name, and of a turn's id."""
PAGE = 1000


class Histories:
    """Histories by namespace and name. Thread-safe; several processes may append to one at once."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def append(self, namespace: str, name: str, added: Sequence[Turn]) -> int:
        """Add turns at the end, all or none, durably; returns how many were new.

        A turn that is there already is passed over. NUL and lone surrogates are replaced, times without a zone
        are UTC. Raises `InvalidRequest` for an id that is there with another content, and for what is too long.
        """
        namespace, name = _storable(namespace), _storable(name)
        for what, value in (("namespace", namespace), ("history", name)):
            if not 0 < len(value) <= NAME:
                raise InvalidRequest(f"a {what}'s name has 1 to {NAME} characters, not {len(value)}: '{value[:60]}'")
        new_rows = _unique(name, [_row(turn) for turn in added])
        if not new_rows:
            return 0
        # One writer at a time: of the whole database on SQLite, of this history on a server, which locks its row.
        with self._database.begin(write=self._database.is_sqlite) as connection:
            history = _locked(connection, namespace, name)
            for part in chunks(list(new_rows)):
                same = (turns.c.history == history) & turns.c.id.in_(part)
                for row in connection.execute(select(turns).where(same)).mappings():
                    _check_same(name, new_rows.pop(row["id"]), dict(row))
            if new_rows:
                last = connection.execute(select(func.max(turns.c.position)).where(turns.c.history == history)).scalar()
                start = -1 if last is None else last
                rows = [row | {"history": history, "position": start + n} for n, row in enumerate(new_rows.values(), 1)]
                connection.execute(turns.insert(), rows)
        return len(new_rows)

    def read(self, namespace: str, name: str, after_position: int = -1) -> list[tuple[int, Turn]]:
        """(position, turn) of all behind `after_position`, in order; nothing of a history that does not exist."""
        fields = tuple(Turn.model_fields)
        query = select(turns.c.position, *(turns.c[f] for f in fields)).join_from(turns, histories)
        query = query.where(*_named(namespace, name), turns.c.position > after_position).order_by(turns.c.position)
        with self._database.begin() as connection:
            return [(row[0], Turn.model_construct(**dict(zip(fields, row[1:])))) for row in connection.execute(query)]

    def follow(self, namespace: str, name: str, after_position: int = -1) -> tuple[int | None, list[tuple[int, Turn]]]:
        """The same, with the history's key: another one, or None, says that the history was removed in between."""
        fields = tuple(Turn.model_fields)
        behind = (turns.c.history == histories.c.pk) & (turns.c.position > after_position)
        query = select(histories.c.pk, turns.c.position, *(turns.c[f] for f in fields))
        query = query.select_from(histories.outerjoin(turns, behind)).where(*_named(namespace, name))
        with self._database.begin() as connection:
            rows = connection.execute(query.order_by(turns.c.position)).all()
        new_turns = [(r[1], Turn.model_construct(**dict(zip(fields, r[2:])))) for r in rows if r[1] is not None]
        return (rows[0][0] if rows else None), new_turns

    def names(self, namespace: str) -> list[str]:
        return sorted(self.sizes(namespace))

    def sizes(self, namespace: str) -> dict[str, int]:
        """Turns of each history."""
        query = select(histories.c.name, func.count().label("turns")).join_from(histories, turns)
        query = query.where(histories.c.namespace == _storable(namespace)).group_by(histories.c.name)
        with self._database.begin() as connection:
            return {row.name: row.turns for row in connection.execute(query)}

    def remove(self, namespace: str, name: str) -> bool:
        """Delete a history with its turns; false where there is none. What was recalled of it stays in the records."""
        with self._database.begin(write=self._database.is_sqlite) as connection:
            return connection.execute(delete(histories).where(*_named(namespace, name))).rowcount > 0


def _named(namespace: str, name: str) -> tuple[Any, ...]:
    return histories.c.namespace == _storable(namespace), histories.c.name == _storable(name)


def _locked(connection: Connection, namespace: str, name: str) -> int:
    """Key of the history, which is made if need be; on a server others wait for this transaction's end."""
    row = {"namespace": namespace, "name": name, "created_at": now()}
    touch = (
        upsert(connection, histories)
        .values(row)
        .on_conflict_do_update(index_elements=["namespace", "name"], set_={"name": name})
    )
    return int(connection.execute(touch.returning(histories.c.pk)).scalar_one())


def _row(turn: Turn) -> dict[str, Any]:
    row = {k: _storable(v) if isinstance(v, str) else v for k, v in turn.model_dump().items()}
    if not 0 < len(row["id"]) <= ID:
        raise InvalidRequest(f"a turn's id has 1 to {ID} characters, not {len(row['id'])}: '{row['id'][:60]}'")
    return row | {"at": _utc(turn)}


def _storable(text: str) -> str:
    """What both databases give back as they got it: neither NUL nor lone surrogates."""
    return text.replace("\0", "\ufffd").encode(errors="replace").decode()


def _utc(turn: Turn) -> datetime | None:
    if turn.at is None or turn.at.tzinfo is None:
        return turn.at and turn.at.replace(tzinfo=UTC)
    try:
        return turn.at.astimezone(UTC)
    except OverflowError:
        raise InvalidRequest(f"turn '{turn.id[:60]}': {turn.at} is before the year 1 or after 9999 in UTC") from None


def _unique(name: str, rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """By id, in order."""
    by_id: dict[str, dict[str, Any]] = {}
    for row in rows:
        _check_same(name, row, by_id.setdefault(row["id"], row))
    return by_id


def _check_same(name: str, row: Mapping[str, Any], stored: Mapping[str, Any]) -> None:
    different = [field for field in Turn.model_fields if row[field] != stored[field]]
    if different:
        raise InvalidRequest(
            f"history '{name[:60]}' has a turn '{row['id'][:60]}' with another {' and '.join(different)}: "
            "a history only grows, give what is new an id of its own"
        )


def score_recall(database: Database, id: str, score: float, *, namespace: str | None = None) -> None:
    """Say how good a recall was: 0 useless, 1 all that was needed. A later score replaces an earlier one.

    Raises `InvalidRequest` for a score that is no number, and for a recall that is not there (in `namespace`).
    """
    if not math.isfinite(score):
        raise InvalidRequest(f"a score is a finite number, such as 1 or 0.5, not {score}")
    conditions = [recalls.c.id == id] if namespace is None else [recalls.c.id == id, recalls.c.namespace == namespace]
    with database.begin(write=database.is_sqlite) as connection:
        if not connection.execute(update(recalls).where(*conditions).values(score=float(score))).rowcount:
            raise InvalidRequest(f"there is no recall '{id[:60]}': it was never made, not written yet, or pruned")


def read_recalls(
    database: Database, *, namespace: str | None = None, since: datetime | None = None
) -> Iterator[tuple[Recall, float | None]]:
    """Recalls, oldest first, with their scores (None where nobody gave one): without their texts and calls."""
    conditions = [] if namespace is None else [recalls.c.namespace == namespace]
    if since is not None:
        conditions.append(recalls.c.created_at >= since)
    query = select(recalls).where(*conditions).order_by(recalls.c.created_at, recalls.c.id).limit(PAGE)
    fields = [f for f in Recall.model_fields if f in recalls.c]
    page = query
    while True:
        with database.begin() as connection:
            rows = connection.execute(page).mappings().all()
        for row in rows:
            lists = {
                "runs": tuple(ModuleRun.model_validate(run) for run in row["runs"]),
                "sources": tuple(row["sources"]),
                "left_out": tuple(row["left_out"]),
            }
            yield Recall.model_construct(**{f: row[f] for f in fields} | lists | {"text": ""}), row["score"]
        if len(rows) < PAGE:
            return
        time, id = rows[-1]["created_at"], rows[-1]["id"]
        later = or_(recalls.c.created_at > time, (recalls.c.created_at == time) & (recalls.c.id > id))
        page = query.where(later)
