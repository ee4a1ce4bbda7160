"""Thread that removes old records once a day, in one of the processes on a database."""

from __future__ import annotations

import logging
import threading

from agentcascade.config.sections import RetentionConfig
from agentcascade.storage.database import Database
from agentcascade.storage.retention import RetentionPolicy, prune_daily

log = logging.getLogger("agentcascade.storage")
HOUR = 3600.0


class RetentionThread:
    """Asks every hour whether it is time to prune, and does so; not in the first seconds of a process."""

    def __init__(self, database: Database, retention: RetentionConfig, *, first: float = 30.0) -> None:
        self._database = database
        self._policy = RetentionPolicy(**retention.model_dump())
        self._first = first
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, name="agentcascade-retention", daemon=True)
        self._thread.start()

    def _work(self) -> None:
        wait = self._first
        while not self._closing.wait(wait):
            wait = HOUR
            try:
                prune_daily(self._database, self._policy, stop=self._closing.is_set)
            except Exception as error:
                log.warning("old records could not be removed: %s", error)

    def close(self) -> None:
        """Stop after the transaction under way."""
        self._closing.set()
        self._thread.join()
