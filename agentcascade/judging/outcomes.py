"""Outcomes of stored episodes: a judge's verdict becomes the end of an episode that nobody said anything of."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from agentcascade.bank.bank import Bank
from agentcascade.judging.stored import StoredEpisode
from agentcascade.storage import Database
from agentcascade.storage.drafts import UnfinishedEpisode, delete_drafts, find_unfinished
from agentcascade.storage.record_rows import write_bills, write_records
from agentcascade.storage.tables import calls as calls_table
from agentcascade.types import Call, EpisodeEnd, now


async def keep_outcome(
    database: Database,
    episode: StoredEpisode,
    success: bool | None,
    calls: Sequence[Call],
    bank: Callable[[], Bank],
) -> bool:
    """Write what became of an episode, with the judge's bill; a success of mode ``collect`` is banked.

    Args:
        database: Holds the episode.
        episode: As the judge was shown it.
        success: Its verdict; None where there is none: then only the bill is written.
        calls: The judge's, this episode's part of each.
        bank: Gives the bank where one is needed.

    Returns:
        Whether the bank grew.

    Raises:
        UnknownEpisode: It was removed meanwhile.
        StorageError: The database cannot be written.
    """
    found = find_unfinished(database, episode.trajectory.namespace, episode.id)
    banked = False
    if success and found.mode == "collect" and found.steps:
        banked = await bank().add(episode.trajectory.model_copy(update={"success": True}))
    with database.begin(write=True) as connection:
        write_records(connection, [_end(found, episode, success, calls)])
    if success is not None and found.steps:
        delete_drafts(database, found)
    return banked


def keep_bill(database: Database, episode: StoredEpisode, calls: Sequence[Call]) -> None:
    """Write what a check of the judge on an episode did cost, beside its last decision; its outcome stays as it is.

    Raises `UnknownEpisode`, `StorageError`.
    """
    found = find_unfinished(database, episode.trajectory.namespace, episode.id)
    if found.decision and calls:
        with database.begin(write=True) as connection:
            write_bills(connection, calls_table.c.decision, {found.decision: calls})


def _end(found: UnfinishedEpisode, episode: StoredEpisode, success: bool | None, calls: Sequence[Call]) -> EpisodeEnd:
    at = now()
    return EpisodeEnd(
        episode=episode.id,
        namespace=episode.trajectory.namespace,
        goal=episode.trajectory.goal,
        plan=episode.trajectory.plan,
        mode=found.mode,
        success=success,
        steps=found.taken,
        started_at=found.started or at,
        finished_at=at,
        decision=found.decision,
        calls=tuple(calls),
    )
