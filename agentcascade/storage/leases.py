"""Leases: names that one process of a database holds for a while, as rows, so that nobody keeps a connection for them.

One that is not given back, since its process died, is over when its time is.
"""

from __future__ import annotations

from datetime import timedelta
from hashlib import blake2b

from sqlalchemy import delete

from agentcascade.storage.database import Database
from agentcascade.storage.tables import settings
from agentcascade.storage.upsert import upsert
from agentcascade.types import now

PREFIX = "lease:"


def take(database: Database, name: str, seconds: float) -> str | None:
    """Take a name for so long; returns what gives it back, or None while somebody holds it. Raises `StorageError`."""
    at = now()
    until = (at + timedelta(seconds=seconds)).isoformat()
    with database.begin(write=database.is_sqlite) as connection:
        taken = (
            upsert(connection, settings)
            .values(name=_row(name), value=until)
            .on_conflict_do_update(
                index_elements=["name"], set_={"value": until}, where=settings.c.value < at.isoformat()
            )
        )
        return until if connection.execute(taken.returning(settings.c.name)).first() is not None else None


def give_back(database: Database, name: str, lease: str) -> None:
    """Give back what `take` returned; one that is over, and somebody else's by now, is left alone."""
    with database.begin(write=database.is_sqlite) as connection:
        connection.execute(delete(settings).where(settings.c.name == _row(name), settings.c.value == lease))


def _row(name: str) -> str:
    return PREFIX + blake2b(name.encode(errors="replace"), digest_size=16).hexdigest()
