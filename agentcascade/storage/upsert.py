"""Upserts: ``INSERT … ON CONFLICT``, which SQLAlchemy has once for each dialect."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from sqlalchemy import Connection, Insert, Table
from sqlalchemy.dialects import sqlite

if TYPE_CHECKING:
    from sqlalchemy.dialects import postgresql


def upsert(connection: Connection, table: Table) -> postgresql.Insert | sqlite.Insert:
    """An insert into `table` that can take ``on_conflict_do_nothing`` or ``on_conflict_do_update``."""
    return _insert(connection.dialect.name, table)


def replacing(connection: Connection, table: Table, *, keep: tuple[str, ...] = ()) -> Insert:
    """An insert into `table` that replaces a row of the same primary key, but for the columns to `keep`.

    It is made once: that takes a millisecond.
    """
    return _replacing(connection.dialect.name, table, keep)


@cache
def _replacing(dialect: str, table: Table, keep: tuple[str, ...]) -> Insert:
    insert = _insert(dialect, table)
    changed = [column.name for column in table.c if not column.primary_key and column.name not in keep]
    key = [column.name for column in table.primary_key]
    return insert.on_conflict_do_update(index_elements=key, set_={name: insert.excluded[name] for name in changed})


def _insert(dialect: str, table: Table) -> postgresql.Insert | sqlite.Insert:
    if dialect != "postgresql":
        return sqlite.insert(table)
    from sqlalchemy.dialects import postgresql

    return postgresql.insert(table)
