"""What the bank holds of each namespace, counted within bounds of rows and of time."""

from __future__ import annotations

import time
from collections.abc import Iterator

from sqlalchemy import Connection, func, select

from agentcascade.ledger.dashboard_rows import Banked, BankedNamespace
from agentcascade.storage.tables import trajectories

COUNTED = 100_000
"""Trajectories of a namespace that are counted; where there are more, that is said."""
SECONDS = 2.5
"""After which no further namespace is begun."""
NAMESPACES = 500


def read_banked(
    connection: Connection, namespace: str | None, *, limit: int = NAMESPACES, seconds: float = SECONDS
) -> Banked:
    """Of `namespace`, or of the first `limit` ones by name. Each question is a look-up in an index."""
    found: list[BankedNamespace] = []
    ends = time.monotonic() + seconds
    for name in _names(connection) if namespace is None else (namespace,):
        if len(found) >= limit or (found and time.monotonic() > ends):
            return Banked(found, False)
        counted = select(trajectories.c.length).where(trajectories.c.namespace == name).limit(COUNTED + 1).subquery()
        number, steps = connection.execute(select(func.count(), func.sum(counted.c.length)).select_from(counted)).one()
        if number:
            more = number > COUNTED
            row = BankedNamespace(namespace=name, trajectories=min(number, COUNTED), steps=int(steps), at_least=more)
            found.append(row)
    return Banked(found, True)


def _names(connection: Connection) -> Iterator[str]:
    """Every namespace once, in order, without reading its rows."""
    lowest = select(func.min(trajectories.c.namespace))
    name = connection.execute(lowest).scalar()
    while name is not None:
        yield name
        name = connection.execute(lowest.where(trajectories.c.namespace > name)).scalar()
