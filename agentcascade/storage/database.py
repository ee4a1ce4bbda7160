"""The database: transactions on SQLite or PostgreSQL, safe among threads, processes and forks."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import cached_property
from pathlib import Path

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import SQLAlchemyError

from agentcascade._util import forking
from agentcascade.errors import StorageError
from agentcascade.storage.engine import BUSY_SECONDS, explain, new_engine, redacted_url
from agentcascade.storage.read_limit import limited
from agentcascade.storage.upgrade import current_revision, require_current, upgrade

FORK_SECONDS = 2.0
_inherited: list[object] = []
"""Pools of a parent process, kept so that nobody closes their connections."""
WRITE_LOCK = 0x61676362
"""PostgreSQL's advisory lock of writes to the bank."""


class Database:
    """An open database, SQLite or PostgreSQL. Thread-safe; open one per process with `open_database`.

    Args:
        engine: An engine whose tables are up to date.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._writing = forking.lock()
        self._held_for_fork = False
        self._in_use, self._fork_is_near = 0, False
        self._use = threading.Condition(forking.lock())
        self._mine = threading.local()
        if self.path is not None:
            forking.on_fork(self.forked, before=self._before_fork, parent=self._after_fork)
        elif not self.is_sqlite:
            forking.on_fork(self.forked)

    @property
    def is_sqlite(self) -> bool:
        """Whether it is SQLite, which has one writer at a time; else it is PostgreSQL, which locks rows."""
        return self.engine.dialect.name == "sqlite"

    @property
    def path(self) -> Path | None:
        """The SQLite file; None for a server or a database in memory."""
        name = self.engine.url.database
        return Path(name) if self.is_sqlite and name and name != ":memory:" else None

    @contextmanager
    def begin(self, *, write: bool = False, seconds: float = BUSY_SECONDS) -> Iterator[Connection]:
        """A transaction: committed at the end of the ``with`` block, or not at all.

        Args:
            write: Of these there is one at a time, so that rows become visible in the order of their keys.
            seconds: For which a `write` transaction on SQLite waits for others, here and in other processes; on
                PostgreSQL it waits as long as it takes.

        Raises:
            StorageError: When the database fails, or the wait is over.
        """
        if write and self.is_sqlite:
            with (
                self._sqlite_turn(seconds) as seconds_left,
                self._begin(self.engine.execution_options(immediate=seconds_left)) as connection,
            ):
                yield connection
            return
        # Here, too, threads wait in turn: with a connection each they would leave none to those who read.
        with self._writing if write else nullcontext(), self._begin(self.engine) as connection:
            if write:
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": WRITE_LOCK})
            yield connection

    @contextmanager
    def _sqlite_turn(self, seconds: float) -> Iterator[float]:
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
    def _used(self) -> Iterator[None]:
        """No connection is opened or in use while the process forks: a lock inside SQLite would stay shut in the child.

        A thread that uses one already is let through, so that it comes to its end.
        """
        depth = getattr(self._mine, "depth", 0)
        with self._use:
            if not depth:
                self._use.wait_for(lambda: not self._fork_is_near, FORK_SECONDS)
            self._in_use += 1
        self._mine.depth = depth + 1
        try:
            yield
        finally:
            self._mine.depth = depth
            with self._use:
                self._in_use = max(0, self._in_use - 1)
                self._use.notify_all()

    @contextmanager
    def _begin(self, engine: Engine) -> Iterator[Connection]:
        try:
            with self._used(), engine.begin() as connection, limited(connection):
                yield connection
        except SQLAlchemyError as error:
            raise explain(error, self.engine) from error

    @cached_property
    def _reader(self) -> Engine:
        """The engine, with its connections, for statements that stand alone."""
        return self.engine.execution_options(isolation_level="AUTOCOMMIT")

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection without a transaction: each statement stands alone, and is one round trip.

        Raises:
            StorageError: When the database fails.
        """
        try:
            with self._used(), self._reader.connect() as connection:
                yield connection
        except SQLAlchemyError as error:
            raise explain(error, self.engine) from error

    def ping(self) -> None:
        """Ask the database for nothing.

        Raises:
            StorageError: When it does not answer.
        """
        with self.begin() as connection:
            connection.execute(text("SELECT 1"))

    def refuses_writes(self) -> bool:
        """Whether it is a standby of PostgreSQL, or one that is set to be read only.

        Raises:
            StorageError: When it does not answer.
        """
        if self.is_sqlite:
            return False
        with self.reading() as connection:
            return connection.execute(text("SHOW transaction_read_only")).scalar() == "on"

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()

    def _before_fork(self) -> None:
        """SQLite's own notes of its locks must not get into a child process: it forks while no connection is open.

        That takes the end of the transactions under way, which is waited for, though not for ever.
        """
        ends = time.monotonic() + FORK_SECONDS
        self._held_for_fork = self._writing.acquire(timeout=FORK_SECONDS)
        with self._use:
            self._fork_is_near = True
            self._use.wait_for(lambda: not self._in_use, max(0.0, ends - time.monotonic()))
        self.engine.dispose()

    def _after_fork(self) -> None:
        with self._use:
            self._fork_is_near = False
            self._use.notify_all()
        if self._held_for_fork:
            self._held_for_fork = False
            self._writing.release()

    def forked(self) -> None:
        """In a child process: the connections are the parent's, and neither used nor closed."""
        self._held_for_fork = self._fork_is_near = False
        self._in_use, self._use, self._mine = 0, threading.Condition(forking.lock()), threading.local()
        _inherited.append(self.engine.pool)
        self.engine.dispose(close=False)


def open_database(url: str | Path, *, migrate: bool = True) -> Database:
    """Open a database and bring its tables up to date. Two processes may open a fresh one at once.

    Args:
        url: An SQLAlchemy URL of SQLite or PostgreSQL, or the path of an SQLite file, which is made if need be.
        migrate: False: tables that are not up to date are an error, and left as they are.

    Returns:
        The open database, which is the caller's to close.

    Raises:
        ConfigError: For a URL that is none, or of another database.
        CorruptDatabase: For a file that is no readable database.
        NewerDatabase: For one that a newer agentcascade wrote.
        MissingExtra: For PostgreSQL without its driver.
        StorageError: For one that cannot be reached, or whose tables would have to be migrated and must not be. No
            message shows a password.

    >>> database = open_database("sqlite:///:memory:")
    >>> database.ping()
    >>> database.path is None
    True
    >>> database.close()
    """
    engine = new_engine(url)
    try:
        if migrate:
            upgrade(engine)
        else:
            require_current(engine)
    except BaseException as error:
        engine.dispose()
        if isinstance(error, (SQLAlchemyError, sqlite3.Error)):
            raise explain(error, engine) from error
        raise
    return Database(engine)


def revision(database: Database) -> str | None:
    """The migration that the tables are at."""
    with database.begin() as connection:
        return current_revision(connection)
