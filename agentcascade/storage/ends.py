"""Ends of episodes: rows that say which ended, which may go on, and what is known of those that nobody ended."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import func, select

from agentcascade.storage import Database
from agentcascade.storage.tables import decisions, drafts, episodes

Key = tuple[str, str]
"""Namespace and episode"""


def last_steps(database: Database, namespace: str | None = None) -> dict[Key, datetime]:
    """When the last step of each episode was taken; of all namespaces, or of one."""
    query = select(decisions.c.namespace, decisions.c.episode, func.max(decisions.c.created_at))
    query = query.group_by(decisions.c.namespace, decisions.c.episode)
    if namespace is not None:
        query = query.where(decisions.c.namespace == namespace)
    with database.begin() as connection:
        return {(row[0], row[1]): row[2] for row in connection.execute(query)}


def known_ends(database: Database, namespace: str | None = None) -> dict[Key, bool | None]:
    """What became of each episode that ended; None where nobody said."""
    query = select(episodes.c.namespace, episodes.c.id, episodes.c.success)
    if namespace is not None:
        query = query.where(episodes.c.namespace == namespace)
    with database.begin() as connection:
        return {(row[0], row[1]): row[2] for row in connection.execute(query)}


def drafted_episodes(database: Database, namespace: str | None = None) -> dict[Key, list[Any]]:
    """The drafts of each episode that nobody ended, in the order of its steps."""
    query = select(drafts).order_by(drafts.c.namespace, drafts.c.episode, drafts.c.position)
    if namespace is not None:
        query = query.where(drafts.c.namespace == namespace)
    found: dict[Key, list[Any]] = {}
    with database.begin() as connection:
        for row in connection.execute(query):
            found.setdefault((row.namespace, row.episode), []).append(row)
    return found
