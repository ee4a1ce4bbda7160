"""Episodes of callers that keep no session: found again in the database when somebody says how they ended.

While such an agent runs, each step of mode ``collect`` is kept as a draft by whichever process answers it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from agentcascade._util.threads import apart
from agentcascade.errors import StorageError, UnknownEpisode
from agentcascade.storage.drafts import UnfinishedEpisode, delete_drafts, find_unfinished
from agentcascade.types import Account

if TYPE_CHECKING:
    from agentcascade.step.engine import Engine


_judging: WeakValueDictionary[tuple[int, str, str], asyncio.Lock] = WeakValueDictionary()
PATIENCE = (0.1, 0.4, 1.0, 2.0, 4.0)
"""Waits for records, in seconds, before an episode is called unknown or taken without its last step: on a busy
machine another process may take seconds to write what it answered."""
AT_ONCE = nullcontext()
FLUSH_SECONDS = 10.0
"""Wait, in seconds, for this process' own records while the database is busy."""
log = logging.getLogger("agentcascade.drafts")


async def find_recorded(
    engine: Engine, namespace: str, episode: str, turn: AbstractAsyncContextManager[Any] = AT_ONCE
) -> UnfinishedEpisode:
    """Find an unfinished episode, after a wait for records that are still on their way, here or elsewhere.

    Each look at the database takes a `turn`, no wait between two does.

    Raises `UnknownEpisode`, and `StorageError` when the database does not take the records: its last steps may lack.
    """
    for wait in PATIENCE:
        with suppress(UnknownEpisode):
            if not (found := await _find(engine, namespace, episode, turn)).lacks_last:
                return found
        await asyncio.sleep(wait)
    return await _find(engine, namespace, episode, turn)


async def _find(
    engine: Engine, namespace: str, episode: str, turn: AbstractAsyncContextManager[Any]
) -> UnfinishedEpisode:
    assert engine.context.database is not None
    async with turn:
        if engine.context.recorder is not None and not await apart(engine.context.recorder.flush, FLUSH_SECONDS):
            raise StorageError("the database does not take the last records of this episode: say how it ended later")
        return await apart(find_unfinished, engine.context.database, namespace, episode)


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
