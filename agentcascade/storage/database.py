"""Opening a database: checked, migrated, and set up for durable writes."""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, QueuePool, create_engine, event, inspect, make_url, text
from sqlalchemy.exc import ArgumentError, DatabaseError, NoSuchModuleError, OperationalError, SQLAlchemyError

from agentcascade._util import forking, known_secrets
from agentcascade._util.control_characters import visible
from agentcascade.errors import (
    ConfigError,
    CorruptDatabase,
    MissingExtra,
    NewerDatabase,
    StorageError,
    describe,
    without_secrets,
)
from agentcascade.storage.claims import open_private

log = logging.getLogger("agentcascade.storage")

MIGRATIONS = Path(__file__).parent / "migrations"
BUSY_SECONDS = 20
FORK_SECONDS = 2.0
_inherited: list[object] = []
"""Pools of a parent process, kept so that nobody closes their connections."""
PATIENCE = {"connect_timeout": 10, "tcp_user_timeout": 15_000, "keepalives_idle": 15, "keepalives_interval": 5}
"""libpq's: a connection into a network that loses everything ends, instead of waiting for a quarter of an hour."""
UPGRADE_LOCK, WRITE_LOCK = 0x61676361, 0x61676362
"""PostgreSQL's advisory locks of migrations and of writes to the bank."""


class Database:
    """An open database. Thread-safe; open one per process."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._writing = forking.lock()
        self._holds_back = False
        if self.path is not None:
            forking.on_fork(self.forked, before=self._hold_back, parent=self._go_on)
        elif engine.dialect.name != "sqlite":
            forking.on_fork(self.forked)

    @property
    def path(self) -> Path | None:
        """The SQLite file; None for a server or a database in memory."""
        name = self.engine.url.database
        is_file = self.engine.dialect.name == "sqlite" and name and name != ":memory:"
        return Path(name) if is_file and name else None

    @contextmanager
    def begin(self, *, write: bool = False, seconds: float = BUSY_SECONDS) -> Iterator[Connection]:
        """A transaction: committed at the end, or not at all. Raises `StorageError` when the database fails.

        Of `write` transactions there is one at a time, so that rows become visible in the order of their keys. On
        SQLite one waits up to `seconds` for others, here and in other processes.
        """
        if write and self.engine.dialect.name == "sqlite":
            with self._alone(seconds) as left, self._begin(self.engine.execution_options(immediate=left)) as connection:
                yield connection
            return
        with self._begin(self.engine) as connection:
            if write:
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": WRITE_LOCK})
            yield connection

    @contextmanager
    def _alone(self, seconds: float) -> Iterator[float]:
        """SQLite has one writer: threads wait here in turn, and not each with a connection of the pool.

        Gives the seconds that are left to wait for other processes.
        """
        started = time.monotonic()
        if not self._writing.acquire(timeout=seconds):
            where = redacted_url(self.engine.url)
            raise StorageError(f"{where}: database is locked, another writer has not ended within {seconds:g} seconds")
        try:
            waited = round(time.monotonic() - started, 1)
            yield max(0.1, seconds - waited)
        finally:
            self._writing.release()

    @contextmanager
    def _begin(self, engine: Engine) -> Iterator[Connection]:
        try:
            with engine.begin() as connection:
                yield connection
        except SQLAlchemyError as error:
            raise _explain(error, self.engine) from error

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection without a transaction: each statement stands alone, and is one round trip.

        Raises `StorageError` when the database fails.
        """
        try:
            with self.engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
                yield connection
        except SQLAlchemyError as error:
            raise _explain(error, self.engine) from error

    def ping(self) -> None:
        """Raises `StorageError` when the database does not answer."""
        with self.begin() as connection:
            connection.execute(text("SELECT 1"))

    def close(self) -> None:
        self.engine.dispose()

    def _hold_back(self) -> None:
        """SQLite's own notes of its locks must not get into a child process: it forks while no connection is open.

        That takes the end of the transactions under way, which is waited for, though not for ever.
        """
        ends = time.monotonic() + FORK_SECONDS
        self._holds_back = self._writing.acquire(timeout=FORK_SECONDS)
        pool = self.engine.pool
        while isinstance(pool, QueuePool) and pool.checkedout() and time.monotonic() < ends:
            time.sleep(0.001)
        self.engine.dispose()

    def _go_on(self) -> None:
        if self._holds_back:
            self._holds_back = False
            self._writing.release()

    def forked(self) -> None:
        """In a child process: the connections are the parent's, and neither used nor closed."""
        self._holds_back = False
        _inherited.append(self.engine.pool)
        self.engine.dispose(close=False)


def open_database(url: str | Path) -> Database:
    """Open `url` (an SQLAlchemy URL, or the path of an SQLite file) and bring its tables up to date.

    Two processes may open a fresh database at once. Raises `CorruptDatabase`, `NewerDatabase`, `MissingExtra` or
    `StorageError`, each with what to do; passwords are never shown.
    """
    engine = _engine(url)
    try:
        _upgrade(engine)
    except BaseException as error:
        engine.dispose()
        if isinstance(error, (SQLAlchemyError, sqlite3.Error)):
            raise _explain(error, engine) from error
        raise
    return Database(engine)


def _engine(url: str | Path) -> Engine:
    text_url = str(url) if "://" in str(url) else f"sqlite:///{url}"
    for plain in ("postgresql://", "postgres://"):
        if text_url.startswith(plain):
            text_url = "postgresql+psycopg://" + text_url.removeprefix(plain)
    try:
        parsed = make_url(text_url)
    except (ArgumentError, ValueError):
        raise ConfigError("bank.url is not a database URL: e.g. sqlite:///agentcascade.db") from None
    if parsed.get_backend_name() not in ("sqlite", "postgresql"):
        raise ConfigError(f"bank.url names {parsed.get_backend_name()}: only sqlite and postgresql are supported")
    known_secrets.register(str(parsed.password) if parsed.password else None)
    known_secrets.register_fields({k: v for k, v in parsed.query.items() if isinstance(v, str)})
    try:
        if parsed.get_backend_name() == "postgresql":
            patience = {k: v for k, v in PATIENCE.items() if k not in parsed.query}
            engine = create_engine(parsed, pool_pre_ping=True, pool_size=5, max_overflow=10, connect_args=patience)
            event.listen(engine, "connect", _set_up_postgres)
            return engine
    except (ImportError, NoSuchModuleError) as error:
        raise MissingExtra("psycopg", "postgres", "a PostgreSQL database") from error
    if parsed.database and parsed.database != ":memory:":
        folder = Path(parsed.database).parent
        if not folder.is_dir():
            raise StorageError(f"the folder {folder} of the database does not exist: create it, or change bank.url")
        _private(Path(parsed.database))
    options: dict[str, Any] = {}
    if parsed.database in (None, "", ":memory:"):  # one connection, since each would see a database of its own
        options = {"poolclass": QueuePool, "pool_size": 1, "max_overflow": 0}
    arguments = {"timeout": BUSY_SECONDS, "check_same_thread": False}
    engine = create_engine(parsed, connect_args=arguments, **options)
    event.listen(engine, "connect", _set_up_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _private(path: Path) -> None:
    """A new database is its owner's alone to read, whatever the umask, and so are the files that SQLite puts beside it.

    One that others may read stays so, for they may be meant to: the log says it once.
    """
    if "?" in path.name or path.name.startswith("file:") or os.name != "posix":
        return
    with suppress(OSError):
        if not path.exists():
            os.close(open_private(path))
        elif (mode := path.stat().st_mode) & 0o077 and path not in _said:
            _said.add(path)
            log.warning(
                "%s can be read by other users (mode %o): chmod 600 it, unless they are meant to", path, mode & 0o777
            )


_said: set[Path] = set()


def _set_up_postgres(connection: Any, _: Any) -> None:
    """Its texts hold neither NUL nor halves of characters, which tools' outputs may: others stand in for them."""
    from psycopg.adapt import Dumper

    class Texts(Dumper):
        def dump(self, obj: str) -> bytes:
            return obj.replace("\0", "\ufffd").encode(errors="replace")

    connection.adapters.register_dumper(str, Texts)


def _set_up_sqlite(connection: Any, _: Any) -> None:
    """WAL lets readers and one writer work at once; FULL makes a commit survive a power loss too."""
    connection.isolation_level = None  # SQLAlchemy's "begin" event starts transactions, DDL included
    cursor = connection.cursor()
    give_up = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
            break
        except sqlite3.OperationalError as error:  # the one statement that does not wait for other processes by itself
            if "locked" not in str(error) or time.monotonic() > give_up:
                raise
            time.sleep(0.01)
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    """A writer takes its lock at once: one that read first could not wait for another to finish."""
    seconds = connection.get_execution_options().get("immediate")
    wait = round((seconds or BUSY_SECONDS) * 1000)
    if connection.info.get("busy_timeout") != wait:
        connection.exec_driver_sql(f"PRAGMA busy_timeout={wait}")
        connection.info["busy_timeout"] = wait
    connection.exec_driver_sql("BEGIN IMMEDIATE" if seconds else "BEGIN")


def _upgrade(engine: Engine) -> None:
    """Run the migrations that are missing, under a lock."""
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    scripts = ScriptDirectory.from_config(config)
    head = scripts.get_current_head()
    with engine.connect() as connection:
        if _revision(connection) == head:
            return
    with engine.execution_options(immediate=BUSY_SECONDS).connect() as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": UPGRADE_LOCK})
        revision = _revision(connection)
        if revision is not None and revision not in {s.revision for s in scripts.walk_revisions()}:
            raise NewerDatabase(
                f"{redacted_url(engine.url)} was written by a newer agentcascade (revision {revision}): "
                "upgrade with pip install -U agentcascade, or use another bank.url"
            )
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        connection.commit()


def redacted_url(url: URL) -> str:
    """A database's URL without its passwords, those in its query included."""
    hidden = {k: "***" for k in url.query if known_secrets.SECRET_FIELD.fullmatch(k) or "password" in k.lower()}
    return visible(url.update_query_dict(hidden).render_as_string(hide_password=True))


def revision(database: Database) -> str | None:
    """The migration that the tables are at."""
    with database.begin() as connection:
        return _revision(connection)


def _revision(connection: Connection) -> str | None:
    inspector = inspect(connection)
    if not inspector.has_table("alembic_version", schema=inspector.default_schema_name):  # not that of another schema
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def _explain(error: Exception, engine: Engine) -> StorageError:
    """What went wrong and what to do, without the password."""
    where = redacted_url(engine.url)
    cause = getattr(error, "orig", None) or error
    words = without_secrets(str(cause))
    if "not a database" in words or "malformed" in words or "encrypted" in words:
        return CorruptDatabase(f"{where} is not a readable database ({words}): restore a backup, or move it away")
    if isinstance(error, OperationalError) and engine.dialect.name == "postgresql":
        return StorageError(f"{where} cannot be reached ({describe(cause)}): is the server running, and the URL right?")
    if isinstance(error, DatabaseError) and ("readonly" in words or "unable to open" in words):
        return StorageError(f"{where} cannot be opened ({words}): check the path and its permissions")
    return StorageError(f"{where}: {describe(cause)}")
