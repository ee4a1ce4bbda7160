"""Drafts: rows of the steps of unfinished episodes, whose callers keep no session."""

from __future__ import annotations

import logging
from collections.abc import Set
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import RowMapping, delete, func, select

from agentcascade._util.threads import apart
from agentcascade.errors import UnknownEpisode
from agentcascade.storage import Database
from agentcascade.storage.tables import decisions, drafts, episodes
from agentcascade.types import Mode, Step

log = logging.getLogger("agentcascade.drafts")


class UnfinishedEpisode(NamedTuple):
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
    lacks_step: bool = False
    """One before others is not there, or that of its last decision, which collects: it is on its way, perhaps."""


def find_unfinished(database: Database, namespace: str, episode: str) -> UnfinishedEpisode:
    """The episode with that id in that namespace. Raises `UnknownEpisode`, also for one of another namespace."""
    drafted_steps = (
        select(drafts).where(drafts.c.namespace == namespace, drafts.c.episode == episode).order_by(drafts.c.position)
    )
    of_episode = (decisions.c.namespace == namespace) & (decisions.c.episode == episode)
    last = select(decisions).where(of_episode).order_by(decisions.c.created_at.desc()).limit(1)
    ended = select(episodes.c.success, episodes.c.steps).where(
        episodes.c.namespace == namespace, episodes.c.id == episode
    )
    first = (
        select(decisions.c.created_at, decisions.c.seconds).where(of_episode).order_by(decisions.c.created_at).limit(1)
    )
    with database.begin() as connection:
        steps = connection.execute(drafted_steps).mappings().all()
        decided = connection.execute(last).mappings().first()
        head = steps[-1] if steps else decided
        if head is None:
            raise UnknownEpisode(
                f"there is no episode '{episode[:80]}' in this namespace: every answer names its own, "
                "in its field agentcascade.episode"
            )
        first_decision = connection.execute(first.order_by(decisions.c.created_at).limit(1)).first()
        decision_count = connection.execute(select(func.count()).where(of_episode)).scalar_one()
        end = connection.execute(ended).first()
        mixed = connection.execute(select(func.count()).where(of_episode, decisions.c.mode == "cascade")).scalar_one()
    # One that ran out of the budget of active collection went on in mode cascade: its drafts are not the whole of it.
    positions = [s["position"] for s in steps]
    has_gap = positions != list(range(len(steps)))
    complete = not has_gap and not (steps and mixed)
    if not complete:
        log.warning("episode %s lacks a step, and will not be banked", episode[:80])
    starts = [s["created_at"] for s in steps[:1]]
    starts += (
        [first_decision.created_at - timedelta(seconds=first_decision.seconds)] if first_decision is not None else []
    )
    taken = max(len(steps), decision_count)
    is_ended = end is not None and end.steps >= taken
    return UnfinishedEpisode(
        namespace=namespace,
        episode=episode,
        goal=steps[0]["goal"] if steps else head["goal"],
        plan=steps[0]["plan"] if steps else "",
        mode=head["mode"],
        model=steps[-1]["model"] if steps else "",
        cascade=head["cascade"],
        steps=tuple(
            Step(observation=s["observation"], reasoning=s["reasoning"], action=s["action"]) for s in steps if complete
        ),
        taken=taken,
        decision=decided["id"] if decided else "",
        judged=end.success if end is not None and is_ended else None,
        started=min(starts, default=None),
        lacks_step=not is_ended and (has_gap or (decided is not None and _lacks_draft(decided, set(positions)))),
    )


def _lacks_draft(decision: RowMapping, positions: Set[int]) -> bool:
    """Whether the draft of a step that was taken is not among those at `positions`; a step that broke has none."""
    broke = any(failure.startswith("step: ") for failure in decision["failures"])
    return decision["mode"] == "collect" and not broke and decision["step"] not in positions


async def read_plan(database: Database, namespace: str, episode: str) -> str:
    """The plan made before the first step of an episode that collects; empty when there is none."""
    query = select(drafts.c.plan).where(drafts.c.namespace == namespace, drafts.c.episode == episode).limit(1)

    def read() -> str:
        with database.begin() as connection:
            return connection.execute(query).scalar() or ""

    return await apart(read)


def delete_drafts(database: Database, unfinished: UnfinishedEpisode) -> None:
    of_episode = (drafts.c.namespace == unfinished.namespace) & (drafts.c.episode == unfinished.episode)
    with database.begin(write=True) as connection:
        connection.execute(delete(drafts).where(of_episode))
