"""Failed steps, by the kind of their error: steps that ended in one, and so gave the agent no answer."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import func, select

from agentcascade.storage import Database
from agentcascade.storage.tables import decisions

FAILED = "step: "
"""How a decision begins what its step ended in (`step/record.py`); other failures were worked around."""
MOST_READ = 10_000
"""Steps with a failure that are read, newest first."""


class ErrorKind(NamedTuple):
    """An error's class, how many steps ended in it, and the first words of the newest (without secrets)."""

    name: str
    steps: int
    words: str


def failed_steps(
    database: Database, *, namespace: str | None = None, since: datetime | None = None
) -> Sequence[ErrorKind]:
    """The kinds of errors that steps ended in.

    Args:
        database: An open one.
        namespace: Only of this namespace; None for all of them.
        since: Only of steps since then (an aware time); None for all of them.

    Returns:
        The kinds, most frequent first; none where no step failed.

    Raises:
        StorageError: It cannot be read.
    """
    conditions = [func.json_array_length(decisions.c.failures) > 0]
    conditions += [] if namespace is None else [decisions.c.namespace == namespace]
    conditions += [] if since is None else [decisions.c.created_at >= since]
    newest = select(decisions.c.failures).where(*conditions).order_by(decisions.c.created_at.desc()).limit(MOST_READ)
    counts: dict[str, int] = {}
    words: dict[str, str] = {}
    with database.begin() as connection:
        for failures in connection.execute(newest).scalars():
            failure = next((f for f in failures if f.startswith(FAILED)), None)
            if failure is None:
                continue
            name, _, said = failure.removeprefix(FAILED).partition(": ")
            counts[name] = counts.get(name, 0) + 1
            words.setdefault(name, said)
    ordered = sorted(counts, key=lambda name: (-counts[name], name))
    return [ErrorKind(name, counts[name], words[name]) for name in ordered]
