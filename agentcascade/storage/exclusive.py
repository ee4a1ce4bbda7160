"""Exclusive names: each held by one at a time over the processes of a database, and free when its holder is gone.

A file lock beside an SQLite file, an advisory lock of PostgreSQL: a killed process leaves none behind. Behind a pooler
the lock is a transaction's, which has one server connection for as long as the name is held. Where neither is there (a
database in memory, Windows) everybody holds what he asks for.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from hashlib import blake2b

from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from agentcascade._util.files import open_private
from agentcascade.errors import StorageError, describe
from agentcascade.storage.claims import is_file_at, try_lock
from agentcascade.storage.database import Database
from agentcascade.storage.engine import POOLED

Release = Callable[[], None]
"""Lets go of a name. A second time does nothing."""


def hold(database: Database, name: str) -> Release | None:
    """Hold a name until it is released; None where somebody else holds it. Blocks.

    Raises:
        StorageError: It cannot be asked for.
    """
    digest = blake2b(name.encode(errors="replace"), digest_size=8)
    if database.is_sqlite:
        return _hold_file(database, digest.hexdigest())
    return _hold_advisory(database, int.from_bytes(digest.digest(), signed=True))


def _hold_file(database: Database, name: str) -> Release | None:
    if database.path is None:
        return lambda: None
    path = database.path.with_name(f"{database.path.name}.{name}.lock")
    while True:
        try:
            descriptor = open_private(path)
        except OSError as error:
            raise StorageError(f"{path} cannot be locked ({describe(error)}): let this process write there") from error
        if not try_lock(descriptor):
            os.close(descriptor)
            return None
        if is_file_at(descriptor, path):
            break
        os.close(descriptor)  # its holder removed it meanwhile

    def release() -> None:
        nonlocal descriptor
        if descriptor >= 0:
            with suppress(OSError):
                path.unlink()
            os.close(descriptor)
            descriptor = -1

    return release


def _hold_advisory(database: Database, key: int) -> Release | None:
    try:
        connection = database.engine.connect()
        pooled = bool(connection.info.get(POOLED))
        if not pooled:
            connection = connection.execution_options(isolation_level="AUTOCOMMIT")
    except SQLAlchemyError as error:
        raise StorageError(f"the database cannot be asked for a lock: {describe(error)}") from error
    try:
        # Without parameters: else its portal keeps a snapshot, and CREATE INDEX CONCURRENTLY waits for it.
        lock = f"SELECT pg_try_advisory{'_xact' if pooled else ''}_lock({key:d})"
        held = bool(connection.exec_driver_sql(lock).scalar())
    except BaseException:
        connection.close()
        raise
    if not held:
        connection.close()
        return None

    def release() -> None:
        if not connection.closed:
            with suppress(SQLAlchemyError):
                if not pooled:  # else it ends with the transaction
                    connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": key})
            connection.close()

    return release
