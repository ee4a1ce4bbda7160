"""The kill switch: a row in the database that every process looks at, so that nothing need be restarted."""

from __future__ import annotations

import logging
import threading
import time

from sqlalchemy import delete, select

from agentcascade._util import forking
from agentcascade.storage.database import Database
from agentcascade.storage.tables import settings

log = logging.getLogger("agentcascade.storage")
NAME = "kill_switch"


class Switch:
    """While it is on, the teacher takes every step. Looks again when its knowledge is older than `every` seconds."""

    def __init__(self, database: Database, every: float = 1.0) -> None:
        self._database, self._every = database, every
        self._on, self._looked = False, 0.0
        self._looking = forking.lock()
        self._thread: threading.Thread | None = None
        self.refresh()

    @property
    def on(self) -> bool:
        """The last known position; an old one is looked up again behind the answer."""
        if time.monotonic() - self._looked > self._every and self._looking.acquire(blocking=False):
            self._thread = threading.Thread(target=self._look_behind, name="agentcascade-switch", daemon=True)
            self._thread.start()
        return self._on

    def _look_behind(self) -> None:
        try:
            self.refresh()
        except Exception as error:
            log.warning("the kill switch cannot be read, its last position counts: %s", error)
        finally:
            self._looked = time.monotonic()
            self._looking.release()

    def refresh(self) -> bool:
        """Look now. Raises `StorageError`."""
        self._on, self._looked = self.reason is not None, time.monotonic()
        return self._on

    @property
    def reason(self) -> str | None:
        """What was said when it was switched on; None while it is off."""
        with self._database.begin() as connection:
            return connection.execute(select(settings.c.value).where(settings.c.name == NAME)).scalar()

    def set(self, on: bool, reason: str = "") -> None:
        """Durable when it returns; other processes see it within about a second of their next step."""
        with self._database.begin(write=True) as connection:
            connection.execute(delete(settings).where(settings.c.name == NAME))
            if on:
                connection.execute(settings.insert().values(name=NAME, value=reason))
        self._on, self._looked = on, time.monotonic()

    def close(self) -> None:
        """Wait for a look that is under way."""
        if self._thread is not None:
            self._thread.join()
