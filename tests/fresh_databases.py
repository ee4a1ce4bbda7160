"""Fresh databases for tests: what the migrations did to the first is done to each later one, without Alembic.

Alembic takes 0.1 s of CPU for an empty database, and the suite makes thousands. A database that holds anything is
brought up to date by the migrations themselves, and so is whatever another process opens.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Engine, event, inspect, text

from agentcascade.storage import database
from agentcascade.storage.engine import BUSY_SECONDS
from agentcascade.storage.upgrade import UPGRADE_LOCK
from agentcascade.storage.upgrade import upgrade as migrate

Kind = tuple[str, str | None]
_STATEMENTS: dict[Kind, list[tuple[str, Any]]] = {}
"""What the migrations execute, by dialect and schema"""


def replay_migrations() -> None:
    """From now on `open_database` fills an empty database by replaying."""
    database.upgrade = _upgrade  # type: ignore[attr-defined]


def _upgrade(engine: Engine) -> None:
    with engine.connect() as connection:
        kind = _empty(connection)
    if kind is None or (kind in _STATEMENTS and not _replay(engine, kind)):
        migrate(engine)
    elif kind not in _STATEMENTS:
        _record(engine, kind)


def _empty(connection: Connection) -> Kind | None:
    inspector = inspect(connection)
    schema = inspector.default_schema_name
    return None if inspector.get_table_names(schema=schema) else (connection.dialect.name, schema)


def _replay(engine: Engine, kind: Kind) -> bool:
    """False where another was faster."""
    with engine.execution_options(immediate=BUSY_SECONDS).connect() as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": UPGRADE_LOCK})
        if _empty(connection) is None:
            return False
        for statement, parameters in _STATEMENTS[kind]:
            connection.exec_driver_sql(statement, parameters)
        connection.commit()
        return True


def _record(engine: Engine, kind: Kind) -> None:
    executed: list[tuple[str, Any]] = []

    def note(_: Any, __: Any, statement: str, parameters: Any, *more: Any) -> None:
        if statement.split(None, 1)[0].upper() not in ("SELECT", "PRAGMA", "BEGIN"):
            executed.append((statement, parameters))

    event.listen(engine, "before_cursor_execute", note)
    try:
        migrate(engine)
    finally:
        event.remove(engine, "before_cursor_execute", note)
    if executed:  # else another was faster
        _STATEMENTS[kind] = executed
