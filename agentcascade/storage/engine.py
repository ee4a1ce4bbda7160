"""SQLAlchemy engines: database URLs checked, connections set up for durable writes, errors explained."""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, ExceptionContext, QueuePool, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DatabaseError, NoSuchModuleError, OperationalError

from agentcascade._util import known_secrets
from agentcascade._util.control_characters import visible
from agentcascade._util.files import open_private
from agentcascade.errors import ConfigError, CorruptDatabase, MissingExtra, StorageError, describe, without_secrets

log = logging.getLogger("agentcascade.storage")

BUSY_SECONDS = 20
LIBPQ_OPTIONS = {"connect_timeout": 10, "tcp_user_timeout": 15_000, "keepalives_idle": 15, "keepalives_interval": 5}
"""A connection into a network that loses everything ends, instead of waiting for a quarter of an hour."""
READ_ONLY = "25006"
"""PostgreSQL's code of a write that is refused by a standby."""
POOLED = "pooled"
"""In the `info` of a connection to PostgreSQL: whether a pooler is in between."""
_warned_of: set[Path] = set()


def database_url(url: str | Path) -> URL:
    """A database's URL; a path stands for an SQLite file. Raises `ConfigError` for any other database's, or none."""
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
    return parsed


def new_engine(url: str | Path) -> Engine:
    parsed = database_url(url)
    known_secrets.register(str(parsed.password) if parsed.password else None, configured=True)
    known_secrets.register_fields({k: v for k, v in parsed.query.items() if isinstance(v, str)}, configured=True)
    try:
        if parsed.get_backend_name() == "postgresql":
            connect = {k: v for k, v in LIBPQ_OPTIONS.items() if k not in parsed.query}
            engine = create_engine(parsed, pool_pre_ping=True, pool_size=5, max_overflow=10, connect_args=connect)
            event.listen(engine, "connect", _set_up_postgres)
            event.listen(engine, "handle_error", _leave_standby)
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
        elif (mode := path.stat().st_mode) & 0o077 and path not in _warned_of:
            _warned_of.add(path)
            log.warning(
                "%s can be read by other users (mode %o): chmod 600 it, unless they are meant to", path, mode & 0o777
            )


def _set_up_postgres(connection: Any, record: Any) -> None:
    """PostgreSQL's texts hold neither NUL nor lone surrogates, which tools' outputs may: they are replaced.

    Behind a pooler (PgBouncer) two transactions may be two servers' sessions: nothing is kept in one, so no statement
    is prepared. It is known by the process that answers, which is not the one that the pooler named.
    """
    from psycopg.adapt import Dumper

    class Texts(Dumper):
        def dump(self, obj: str) -> bytes:
            return obj.replace("\0", "\ufffd").encode(errors="replace")

    connection.adapters.register_dumper(str, Texts)
    row = connection.execute("SELECT pg_backend_pid()").fetchone()
    connection.rollback()
    record.info[POOLED] = row is not None and row[0] != connection.info.backend_pid
    if record.info[POOLED]:
        connection.prepare_threshold = None


def _leave_standby(context: ExceptionContext) -> None:
    """Connect anew after a failover: connections to a server that is a standby now live on, and refuse every write."""
    if getattr(context.original_exception, "sqlstate", None) == READ_ONLY:
        context.is_disconnect = True


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


def redacted_url(url: URL) -> str:
    """A database's URL without its passwords, those in its query included."""
    hidden = {k: "***" for k in url.query if known_secrets.SECRET_FIELD.fullmatch(k) or "password" in k.lower()}
    return visible(url.update_query_dict(hidden).render_as_string(hide_password=True))


def explain(error: Exception, engine: Engine) -> StorageError:
    """A database error as a `StorageError` that says where and what to do, without the password."""
    where = redacted_url(engine.url)
    cause = getattr(error, "orig", None) or error
    words = without_secrets(str(cause))
    if "not a database" in words or "malformed" in words or "encrypted" in words:
        return CorruptDatabase(f"{where} is not a readable database ({words}): restore a backup, or move it away")
    if getattr(cause, "sqlstate", None) == READ_ONLY:
        return StorageError(f"{where} is read-only ({words}): is it a standby?")
    if isinstance(error, OperationalError) and engine.dialect.name == "postgresql":
        return StorageError(f"{where} cannot be reached ({describe(cause)}): is the server running, and the URL right?")
    if isinstance(error, DatabaseError) and ("readonly" in words or "unable to open" in words):
        return StorageError(f"{where} cannot be opened ({words}): check the path and its permissions")
    return StorageError(f"{where}: {describe(cause)}")
