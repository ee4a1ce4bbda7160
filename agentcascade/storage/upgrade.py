"""Schema migrations (Alembic), run under a lock when a database is opened."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, Engine, inspect, text

from agentcascade.errors import NewerDatabase, StorageError
from agentcascade.storage.engine import BUSY_SECONDS, redacted_url

if TYPE_CHECKING:
    from alembic.config import Config
    from alembic.script import ScriptDirectory

MIGRATIONS = Path(__file__).parent / "migrations"
UPGRADE_LOCK = 0x61676361
"""PostgreSQL's advisory lock of migrations."""


def upgrade(engine: Engine) -> None:
    """Run the migrations that are missing, under a lock."""
    with engine.connect() as connection:
        if current_revision(connection) == newest_revision():
            return
    from alembic import command

    config, scripts = _scripts()
    with engine.execution_options(immediate=BUSY_SECONDS).connect() as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": UPGRADE_LOCK})
        _refuse_newer(engine, scripts, current_revision(connection))
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        connection.commit()


def require_current(engine: Engine) -> None:
    """Raises `StorageError` when migrations are missing, `NewerDatabase` when there are unknown ones."""
    with engine.connect() as connection:
        revision = current_revision(connection)
    if revision != (head := newest_revision()):
        _refuse_newer(engine, _scripts()[1], revision)
        state = "has no tables yet" if revision is None else f"has the tables of revision {revision}"
        raise StorageError(
            f"{redacted_url(engine.url)} {state}, and this agentcascade needs revision {head}: "
            "run `agentcascade db upgrade` first (bank.migrate is false)"
        )


def _scripts() -> tuple[Config, ScriptDirectory]:
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    return config, ScriptDirectory.from_config(config)


def _refuse_newer(engine: Engine, scripts: ScriptDirectory, revision: str | None) -> None:
    if revision is not None and revision not in {s.revision for s in scripts.walk_revisions()}:
        raise NewerDatabase(
            f"{redacted_url(engine.url)} was written by a newer agentcascade (revision {revision}): "
            "upgrade with pip install -U agentcascade, or use another bank.url"
        )


def newest_revision() -> str:
    """The last migration, by the names of their files: Alembic, which loads each of them, takes 0.2 s of CPU."""
    return max(file.name.partition("_")[0] for file in (MIGRATIONS / "versions").glob("[0-9]*.py"))


def current_revision(connection: Connection) -> str | None:
    """The migration that the tables are at; None where there are none."""
    inspector = inspect(connection)
    if not inspector.has_table("alembic_version", schema=inspector.default_schema_name):  # not that of another schema
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
