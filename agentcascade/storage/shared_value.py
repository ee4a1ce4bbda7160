"""One named text in the database that many processes change, each change made of the latest; none is lost."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from sqlalchemy import delete, select
from sqlalchemy.dialects import postgresql, sqlite

from agentcascade._util import forking
from agentcascade.storage.database import Database
from agentcascade.storage.tables import settings

log = logging.getLogger("agentcascade.storage")


class SharedValue:
    """A row of the settings. `latest` may be `every` seconds old and never waits."""

    def __init__(self, database: Database, name: str, every: float = 2.0) -> None:
        self._database, self.name, self._every = database, name, every
        self._latest: str | None = None
        self._looked = float("-inf")
        self._looking = forking.lock()
        self._thread: threading.Thread | None = None

    def read(self) -> str | None:
        """What is there now. Raises `StorageError`."""
        with self._database.begin() as connection:
            found = connection.execute(select(settings.c.value).where(settings.c.name == self.name)).scalar()
        return self._seen(found or None)

    def change(self, make: Callable[[str | None], str]) -> str:
        """Replace the text by what `make` makes of it, in one transaction; returns the new one."""
        with self._database.begin(write=True) as connection:
            dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
            connection.execute(dialect.insert(settings).values(name=self.name, value="").on_conflict_do_nothing())
            row = select(settings.c.value).where(settings.c.name == self.name).with_for_update()
            made = make(connection.execute(row).scalar_one() or None)
            connection.execute(settings.update().where(settings.c.name == self.name).values(value=made))
        self._seen(made)
        return made

    def drop(self) -> None:
        with self._database.begin(write=True) as connection:
            connection.execute(delete(settings).where(settings.c.name == self.name))
        self._seen(None)

    @property
    def latest(self) -> str | None:
        """The last known text; an old one is looked up again behind the answer."""
        if time.monotonic() - self._looked > self._every and self._looking.acquire(blocking=False):
            self._thread = threading.Thread(target=self._look, name="agentcascade-kept", daemon=True)
            self._thread.start()
        return self._latest

    def _look(self) -> None:
        try:
            self.read()
        except Exception as error:
            log.warning("%s cannot be read, what was last known counts: %s", self.name, error)
            self._looked = time.monotonic()
        finally:
            self._looking.release()

    def _seen(self, found: str | None) -> str | None:
        self._latest, self._looked = found, time.monotonic()
        return found

    def close(self) -> None:
        """Wait for a look that is under way."""
        if self._thread is not None:
            self._thread.join()
