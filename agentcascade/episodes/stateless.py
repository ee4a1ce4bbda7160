"""Episodes of callers that keep no session: found again in the database when somebody says how they ended.

While such an agent runs, each step of mode ``collect`` is kept as a draft by whichever process answers it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from agentcascade._util.threads import apart
from agentcascade.episodes.turns import Turn, Turns
from agentcascade.errors import StorageError, UnknownEpisode
from agentcascade.storage import leases
from agentcascade.storage.drafts import UnfinishedEpisode, delete_drafts, find_unfinished
from agentcascade.types import Account

if TYPE_CHECKING:
    from agentcascade.step.engine import Engine


_judging: WeakValueDictionary[tuple[int, str, str], asyncio.Lock] = WeakValueDictionary()
PATIENCE = (0.1, 0.4, 1.0, 2.0, 4.0)
"""Waits for records, in seconds, before an episode is called unknown or taken without its last step: on a busy
machine another process may take seconds to write what it answered."""
ALL_AT_ONCE = Turns()
FLUSH_SECONDS = 10.0
"""Wait, in seconds, for this process' own records while the database is busy."""
LEASE_SECONDS, AGAIN_SECONDS = 60.0, 0.3
"""Beyond the judge's deadline a judgement is held so long, by a process that died; others look again so often."""
log = logging.getLogger("agentcascade.drafts")


async def find_recorded(engine: Engine, namespace: str, episode: str, turns: Turns = ALL_AT_ONCE) -> UnfinishedEpisode:
    """Find an unfinished episode, after a wait for records that are still on their way, here or elsewhere.

    Each look at the database takes a turn; no wait does, neither for this process' own records nor for others'.

    Raises `UnknownEpisode`, and `StorageError` when the database does not take the records: its last steps may lack.
    """
    recorder, database = engine.context.recorder, engine.context.database
    assert database is not None
    if recorder is not None and not await apart(recorder.flush, FLUSH_SECONDS):
        raise StorageError("the database does not take the last records of this episode: say how it ended later")
    *earlier, last = PATIENCE
    with suppress(UnknownEpisode):
        async with turns.first:
            found = await apart(find_unfinished, database, namespace, episode)
        if not found.lacks_step:
            return found
    with turns.waiting():
        for wait in earlier:
            await asyncio.sleep(wait)
            with suppress(UnknownEpisode):
                async with turns.again:
                    found = await apart(find_unfinished, database, namespace, episode)
                if not found.lacks_step:
                    return found
        await asyncio.sleep(last)
        async with turns.again:
            return await apart(find_unfinished, database, namespace, episode)


async def finish(
    engine: Engine, unfinished: UnfinishedEpisode, success: bool | None, accounts: Sequence[Account] = ()
) -> bool:
    """Finish an episode as `Episode.finish` does, then delete its drafts; returns whether the bank grew."""
    return not await finish_or_say(engine, unfinished, success, accounts)


async def finish_or_say(
    engine: Engine,
    unfinished: UnfinishedEpisode,
    success: bool | None,
    accounts: Sequence[Account] = (),
    turns: Turns = ALL_AT_ONCE,
) -> str:
    """`finish`, which returns why the bank did not grow; nothing where it did.

    A judge is paid once: a second call without `success` changes nothing. The judge must fit into `accounts`, beside
    the configured budgets. What is asked of the database takes a turn, the judge, a model, does not.
    """
    if success is not None or engine.context.judge is None or engine.context.database is None:
        return await _finish(engine, unfinished, success, accounts, turns.first)
    async with _one_at_a_time(unfinished), _leased(engine, unfinished):
        unfinished = await find_recorded(engine, unfinished.namespace, unfinished.episode, turns)
        if unfinished.judged is not None:
            return "it was judged already"
        return await _finish(engine, unfinished, None, accounts, turns.first)


def _one_at_a_time(unfinished: UnfinishedEpisode) -> asyncio.Lock:
    """Lock of those who ask for a judgement of one episode, in this event loop: they wait without the database."""
    return _judging.setdefault(
        (id(asyncio.get_running_loop()), unfinished.namespace, unfinished.episode), asyncio.Lock()
    )


@asynccontextmanager
async def _leased(engine: Engine, unfinished: UnfinishedEpisode) -> AsyncIterator[None]:
    """Hold the episode against other processes, until its end, which says that it was judged, is in the database."""
    database, recorder = engine.context.database, engine.context.recorder
    assert database is not None
    name = f"judge\0{unfinished.namespace}\0{unfinished.episode}"
    seconds = engine.context.config.deadline_seconds + LEASE_SECONDS
    while True:
        if (lease := await apart(leases.take, database, name, seconds)) is not None:
            break
        await asyncio.sleep(AGAIN_SECONDS)
    try:
        yield
        if recorder is not None:
            await apart(recorder.flush, FLUSH_SECONDS)
    finally:
        with suppress(StorageError):  # then its time is over some day
            await apart(leases.give_back, database, name, lease)


async def _finish(
    engine: Engine, unfinished: UnfinishedEpisode, success: bool | None, accounts: Sequence[Account], turn: Turn
) -> str:
    from agentcascade.episodes.episode import Episode

    episode = Episode.restored(engine, unfinished, accounts, turn)
    await episode.finish(success)
    if unfinished.steps and engine.context.database is not None:
        async with turn:
            await apart(delete_drafts, engine.context.database, unfinished)
    return episode.not_banked
