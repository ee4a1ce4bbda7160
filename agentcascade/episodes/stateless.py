"""Episodes of callers that keep no session: found again in the database when somebody says how they ended.

While such an agent runs, each step of mode ``collect`` is kept as a draft by whichever process answered it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple
from weakref import WeakValueDictionary

from sqlalchemy import delete, func, select

from agentcascade._util.threads import apart
from agentcascade.errors import StorageError, UnknownEpisode
from agentcascade.storage import Database
from agentcascade.storage.tables import decisions, drafts, episodes
from agentcascade.types import Account, Mode, Step

if TYPE_CHECKING:
    from agentcascade.cascade import Cascade


_judging: WeakValueDictionary[tuple[int, str, str], asyncio.Lock] = WeakValueDictionary()
PATIENCE = (0.1, 0.4, 1.0)
"""Seconds to wait for records before an episode is called unknown."""
FLUSH_SECONDS = 10.0
"""For records of this process on their way into a database that is busy."""
log = logging.getLogger("agentcascade.drafts")


class Unfinished(NamedTuple):
    """What the database knows of an episode. `steps` are empty unless it collects."""

    namespace: str
    episode: str
    goal: str
    plan: str
    mode: Mode
    model: str
    cascade: str
    steps: tuple[Step, ...]
    taken: int
    decision: str
    """Of its last step."""
    judged: bool | None = None
    """What became of it, where it ended with its last step already."""
    started: datetime | None = None
    """When its first step began, as far as that is recorded."""


def find(database: Database, namespace: str, episode: str) -> Unfinished:
    """The episode with that id in that namespace. Raises `UnknownEpisode`, also for one of another namespace."""
    kept = (
        select(drafts).where(drafts.c.namespace == namespace, drafts.c.episode == episode).order_by(drafts.c.position)
    )
    own = (decisions.c.namespace == namespace) & (decisions.c.episode == episode)
    last = select(decisions).where(own).order_by(decisions.c.created_at.desc()).limit(1)
    ended = select(episodes.c.success, episodes.c.steps).where(
        episodes.c.namespace == namespace, episodes.c.id == episode
    )
    first = select(decisions.c.created_at, decisions.c.seconds).where(own).order_by(decisions.c.created_at).limit(1)
    with database.begin() as connection:
        steps = connection.execute(kept).mappings().all()
        decided = connection.execute(last).mappings().first()
        begun = connection.execute(first).first()
        taken = connection.execute(select(func.count()).where(own)).scalar_one()
        end = connection.execute(ended).first()
    head = steps[-1] if steps else decided
    if head is None:
        raise UnknownEpisode(
            f"there is no episode '{episode[:80]}' in this namespace: every answer names its own, "
            "in its field agentcascade.episode"
        )
    whole = [s["position"] for s in steps] == list(range(len(steps)))
    if not whole:
        log.warning("episode %s lacks a step, and will not be banked", episode[:80])
    starts = [s["created_at"] for s in steps[:1]]
    starts += [begun.created_at - timedelta(seconds=begun.seconds)] if begun is not None else []
    return Unfinished(
        namespace=namespace,
        episode=episode,
        goal=steps[0]["goal"] if steps else head["goal"],
        plan=steps[0]["plan"] if steps else "",
        mode=head["mode"],
        model=steps[-1]["model"] if steps else "",
        cascade=head["cascade"],
        steps=tuple(
            Step(observation=s["observation"], reasoning=s["reasoning"], action=s["action"]) for s in steps if whole
        ),
        taken=max(len(steps), taken),
        decision=decided["id"] if decided else "",
        judged=end.success if end is not None and end.steps >= max(len(steps), taken) else None,
        started=min(starts, default=None),
    )


async def settled(cascade: Cascade, namespace: str, episode: str) -> Unfinished:
    """The same after a short wait for records that are still on their way, here or in another process.

    Raises `StorageError` when the database does not take them: what it knows may lack the last steps.
    """
    assert cascade.database is not None
    for wait in (*PATIENCE, None):
        if cascade.recorder is not None and not await apart(cascade.recorder.flush, FLUSH_SECONDS):
            raise StorageError("the database does not take the last records of this episode: say how it ended later")
        try:
            return await apart(find, cascade.database, namespace, episode)
        except UnknownEpisode:
            if wait is None:
                raise
            await asyncio.sleep(wait)
    raise AssertionError("unreachable: the last try returns or raises")


async def plan_of(database: Database, namespace: str, episode: str) -> str:
    """The plan made before the first step of an episode that collects; empty when there is none."""
    query = select(drafts.c.plan).where(drafts.c.namespace == namespace, drafts.c.episode == episode).limit(1)

    def read() -> str:
        with database.begin() as connection:
            return connection.execute(query).scalar() or ""

    return await apart(read)


async def finish(cascade: Cascade, found: Unfinished, success: bool | None, accounts: Sequence[Account] = ()) -> bool:
    """Close the episode as `Episode.finish` does, then forget its drafts. Returns whether the bank grew.

    Asked again how an episode ended, the judge's first word stands: it is not bought a second time. The judge must
    fit into `accounts`, beside the configured budgets.
    """
    if success is not None or cascade.judge is None or cascade.database is None:
        return await _finish(cascade, found, success, accounts)
    async with _one_at_a_time(found):
        found = await settled(cascade, found.namespace, found.episode)
        if found.judged is not None:
            return False
        return await _finish(cascade, found, None, accounts)


def _one_at_a_time(found: Unfinished) -> asyncio.Lock:
    """Of those who ask for a judgement of one episode, in this event loop."""
    return _judging.setdefault((id(asyncio.get_running_loop()), found.namespace, found.episode), asyncio.Lock())


async def _finish(cascade: Cascade, found: Unfinished, success: bool | None, accounts: Sequence[Account]) -> bool:
    from agentcascade.episodes.episode import Episode

    episode = Episode.restored(cascade, found)
    episode.accounts = tuple(accounts)
    banked = await episode.finish(success)
    if found.steps and cascade.database is not None:
        await apart(_forget, cascade.database, found)
    return banked


def _forget(database: Database, found: Unfinished) -> None:
    own = (drafts.c.namespace == found.namespace) & (drafts.c.episode == found.episode)
    with database.begin(write=True) as connection:
        connection.execute(delete(drafts).where(own))
