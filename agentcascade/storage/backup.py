"""Backup of an SQLite database while others write to it: one consistent snapshot, whole or not there."""

from __future__ import annotations

import os
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

from agentcascade._util.files import PRIVATE
from agentcascade.errors import StorageError, describe
from agentcascade.storage.engine import database_url, redacted_url


def backup(url: str, target: Path) -> int:
    """Copy an SQLite database to a new file, by SQLite's backup interface. Its writers go on meanwhile.

    Args:
        url: Of the database, whatever version wrote it: one backs up before an upgrade. What is committed later than
            the start is not in the copy.
        target: Does not exist yet. It will be readable by its owner alone, as a database is.

    Returns:
        The bytes of the copy, which was checked, and is on the disk.

    Raises:
        ConfigError: For what is no database's URL.
        StorageError: For PostgreSQL, a database in memory or none, a target that exists or cannot be written.
    """
    place = database_url(url)
    if place.get_backend_name() != "sqlite":
        raise StorageError(
            f"{redacted_url(place)} is no SQLite file: pg_dump --format=custom backs it up, pg_restore restores it"
        )
    source = Path(place.database or ":memory:")
    if not source.is_file():
        raise StorageError(f"there is no database {source}: give --url or --config")
    is_there = f"{target} exists, and no backup is written over: choose another name"
    if os.path.lexists(target):
        raise StorageError(is_there)
    try:
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")  # its owner's alone
        os.close(handle)
        try:
            _copy(source, temporary)
            _publish(temporary, target)
        finally:
            Path(temporary).unlink(missing_ok=True)
    except FileExistsError as error:
        raise StorageError(is_there) from error
    except (OSError, sqlite3.Error) as error:
        raise StorageError(f"no backup was written to {target} ({describe(error)})") from error
    return target.stat().st_size


def _publish(temporary: str, target: Path) -> None:
    """Give the copy its name. Raises `FileExistsError`, also where another one got it while this one was made."""
    try:
        os.link(temporary, target)  # a rename would write over
    except FileExistsError:
        raise
    except OSError:  # a file system without links
        os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE))
        os.replace(temporary, target)


def _copy(source: Path, target: str) -> None:
    with (
        closing(sqlite3.connect(f"{source.absolute().as_uri()}?mode=ro", uri=True)) as reader,
        closing(sqlite3.connect(target)) as writer,
    ):
        reader.backup(writer)  # in one step: by parts, it begins anew with each commit of another process
        writer.execute("PRAGMA journal_mode=DELETE")  # one file, without a log beside it
        (verdict,) = writer.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise sqlite3.DatabaseError(f"the copy is damaged, as the database must be: {verdict}")
    descriptor = os.open(target, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
