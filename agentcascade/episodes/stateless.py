"""Episodes of callers that keep no session: found again in the database when somebody says how they ended.

While such an agent runs, each step of mode ``collect`` is kept as a draft by whichever process answered it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from agentcascade._util.threads import apart
from agentcascade.errors import StorageError, UnknownEpisode
from agentcascade.storage.drafts import UnfinishedEpisode, delete_drafts, find_unfinished
from agentcascade.types import Account

if TYPE_CHECKING:
    from agentcascade.step.engine import Engine


_judging: WeakValueDictionary[tuple[int, str, str], asyncio.Lock] = WeakValueDictionary()
PATIENCE = (0.1, 0.4, 1.0)
"""Waits for records, in seconds, before an episode is called unknown."""
FLUSH_SECONDS = 10.0
"""Wait, in seconds, for this process' own records while the database is busy."""
log = logging.getLogger("agentcascade.drafts")


async def find_recorded(engine: Engine, namespace: str, episode: str) -> UnfinishedEpisode:
    """Find an unfinished episode, after a short wait for records that are still on their way, here or elsewhere.

    Raises `UnknownEpisode`, and `StorageError` when the database does not take the records: its last steps may lack.
    """
    assert engine.context.database is not None
    for wait in (*PATIENCE, None):
        if engine.context.recorder is not None and not await apart(engine.context.recorder.flush, FLUSH_SECONDS):
            raise StorageError("the database does not take the last records of this episode: say how it ended later")
        try:
            return await apart(find_unfinished, engine.context.database, namespace, episode)
        except UnknownEpisode:
            if wait is None:
                raise
            await asyncio.sleep(wait)
    raise AssertionError("unreachable: the last try returns or raises")


async def finish(
    engine: Engine, unfinished: UnfinishedEpisode, success: bool | None, accounts: Sequence[Account] = ()
) -> bool:
    """Finish an episode as `Episode.finish` does, then delete its drafts; returns whether the bank grew."""
    return not await finish_or_say(engine, unfinished, success, accounts)


async def finish_or_say(
    engine: Engine, unfinished: UnfinishedEpisode, success: bool | None, accounts: Sequence[Account] = ()
) -> str:
    """`finish`, which returns why the bank did not grow; nothing where it did.

    A judge is paid once: a second call without `success` changes nothing. The judge must fit into `accounts`, beside
    the configured budgets.
    """
    if success is not None or engine.context.judge is None or engine.context.database is None:
        return await _finish(engine, unfinished, success, accounts)
    async with _one_at_a_time(unfinished):
        unfinished = await find_recorded(engine, unfinished.namespace, unfinished.episode)
        if unfinished.judged is not None:
            return "it was judged already"
        return await _finish(engine, unfinished, None, accounts)


def _one_at_a_time(unfinished: UnfinishedEpisode) -> asyncio.Lock:
    """Lock of those who ask for a judgement of one episode, in this event loop."""
    return _judging.setdefault(
        (id(asyncio.get_running_loop()), unfinished.namespace, unfinished.episode), asyncio.Lock()
    )


async def _finish(
    engine: Engine, unfinished: UnfinishedEpisode, success: bool | None, accounts: Sequence[Account]
) -> str:
    from agentcascade.episodes.episode import Episode

    episode = Episode.restored(engine, unfinished, accounts)
    await episode.finish(success)
    if unfinished.steps and engine.context.database is not None:
        await apart(delete_drafts, engine.context.database, unfinished)
    return episode.not_banked
