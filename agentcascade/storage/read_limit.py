"""Limit of time for what is read in a context: a question that takes longer is cut off by the database itself."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar

from sqlalchemy import Connection, text
from sqlalchemy.exc import OperationalError

from agentcascade.errors import InvalidRequest

STEPS = 20_000
"""SQLite's instructions, some milliseconds, after which it is asked whether the time is over."""
_until: ContextVar[float | None] = ContextVar("agentcascade_reads_until", default=None)


@contextmanager
def reads_end_within(seconds: float) -> Iterator[None]:
    """Transactions that begin inside the block raise `InvalidRequest` when all of it takes longer."""
    token = _until.set(time.monotonic() + seconds)
    try:
        yield
    finally:
        _until.reset(token)


def limited(connection: Connection) -> AbstractContextManager[None]:
    """The limit of this context, if it has one, for the connection's transaction."""
    until = _until.get()
    return nullcontext() if until is None else _limited(connection, until)


@contextmanager
def _limited(connection: Connection, until: float) -> Iterator[None]:
    is_sqlite = connection.dialect.name == "sqlite"
    driver = connection.connection.driver_connection
    assert driver is not None
    if is_sqlite:
        driver.set_progress_handler(lambda: time.monotonic() > until, STEPS)
    else:
        left = max(1, int((until - time.monotonic()) * 1000))
        connection.execute(text(f"SET LOCAL statement_timeout = {left:d}"))
    try:
        yield
    except OperationalError as error:
        if "interrupted" in str(error.orig) or getattr(error.orig, "sqlstate", "") == "57014":  # query_canceled
            raise InvalidRequest("this takes too long to count: ask for a shorter period, or for one client") from error
        raise
    finally:
        if is_sqlite:
            driver.set_progress_handler(None, 0)
