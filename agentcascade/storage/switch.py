"""The kill switch: a row in the database that every process looks at, so that nothing need be restarted."""

from __future__ import annotations

from sqlalchemy import delete

from agentcascade.storage.database import Database
from agentcascade.storage.shared_value import Setting
from agentcascade.storage.tables import settings
from agentcascade.storage.upsert import replacing

NAME = "kill_switch"


class Switch(Setting):
    """While it is on, the teacher takes every step. Read again when its position is older than `every` seconds.

    The row holds the reason; without a row it is off.
    """

    def __init__(self, database: Database, every: float = 1.0) -> None:
        super().__init__(database, NAME, every, "the kill switch cannot be read, its last position counts")
        self.refresh()

    @property
    def on(self) -> bool:
        """The last known position; an old one is read again in the background."""
        return self.latest is not None

    def refresh(self) -> bool:
        """Read the position now. Raises `StorageError`."""
        return self.read() is not None

    @property
    def reason(self) -> str | None:
        """What was said when it was switched on, read now; None while it is off. Raises `StorageError`."""
        return self.read()

    def set(self, on: bool, reason: str = "") -> None:
        """Durable when it returns; other processes see it within about a second of their next step."""
        with self._database.begin(write=self._database.is_sqlite) as connection:
            if on:
                connection.execute(replacing(connection, settings), {"name": NAME, "value": reason})
            else:
                connection.execute(delete(settings).where(settings.c.name == NAME))
        self._remember(reason if on else None)
