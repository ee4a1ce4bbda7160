"""Shared values: named texts in the database that every process follows and changes, so that nothing need restart."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from sqlalchemy import delete, select

from agentcascade._util import forking
from agentcascade.storage.database import Database
from agentcascade.storage.tables import settings
from agentcascade.storage.upsert import upsert

log = logging.getLogger("agentcascade.storage")


class Setting:
    """A row of the settings. `latest` may be `every` seconds old and never waits: it is read again in a thread.

    `stale` is what the log says when the database does not answer.
    """

    def __init__(self, database: Database, name: str, every: float, stale: str) -> None:
        self._database = database
        self.name = name
        self._every = every
        self._stale = stale
        self._latest: str | None = None
        self._read_at = float("-inf")
        self._reading = forking.lock()
        self._thread: threading.Thread | None = None

    def read(self) -> str | None:
        """What is there now; None where there is no such row. Raises `StorageError`."""
        with self._database.begin() as connection:
            value = connection.execute(select(settings.c.value).where(settings.c.name == self.name)).scalar()
        return self._remember(value)

    def drop(self) -> None:
        """Delete the row."""
        with self._database.begin(write=self._database.is_sqlite) as connection:
            connection.execute(delete(settings).where(settings.c.name == self.name))
        self._remember(None)

    @property
    def latest(self) -> str | None:
        """The last known text; an old one is read again in the background."""
        if time.monotonic() - self._read_at > self._every and self._reading.acquire(blocking=False):
            self._thread = threading.Thread(target=self._read_again, name="agentcascade-setting", daemon=True)
            self._thread.start()
        return self._latest

    def _read_again(self) -> None:
        try:
            self.read()
        except Exception as error:
            log.warning("%s: %s", self._stale, error)
            self._read_at = time.monotonic()
        finally:
            self._reading.release()

    def _remember(self, value: str | None) -> str | None:
        self._latest = value
        self._read_at = time.monotonic()
        return value

    def close(self) -> None:
        """Wait for a reading that is under way."""
        if self._thread is not None:
            self._thread.join()


class SharedValue(Setting):
    """A text that many processes change, each change made of the latest; none is lost. An empty text is none."""

    def __init__(self, database: Database, name: str, every: float = 2.0) -> None:
        super().__init__(database, name, every, f"{name} cannot be read, what was last known counts")

    def change(self, make: Callable[[str | None], str]) -> str:
        """Replace the text by what `make` makes of it, in one transaction; returns the new one."""
        with self._database.begin(write=self._database.is_sqlite) as connection:
            first = upsert(connection, settings).values(name=self.name, value="")
            connection.execute(first.on_conflict_do_nothing())
            row = select(settings.c.value).where(settings.c.name == self.name).with_for_update()
            value = make(connection.execute(row).scalar_one() or None)
            connection.execute(settings.update().where(settings.c.name == self.name).values(value=value))
        self._remember(value)
        return value

    def _remember(self, value: str | None) -> str | None:
        return super()._remember(value or None)
