"""A stored decision: found by its id, a prefix, its place in an episode, or as the newest; with bill and shadow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, RowMapping, select

from agentcascade.errors import InvalidRequest
from agentcascade.ledger.dashboard_rows import ShownDemonstration
from agentcascade.ledger.recent_decisions import demonstrations_of
from agentcascade.ledger.recorded_steps import call_of
from agentcascade.storage import Database
from agentcascade.storage.tables import calls, decisions, shadows
from agentcascade.types import Decision, LoggedSample

SHORTEST = 4
"""Characters of a prefix."""
NAMED = 5
"""Decisions that an ambiguous name is answered with."""


class ShadowSeen(NamedTuple):
    """The other model at a step: of a shadow the student's samples, of an audit the teacher's action."""

    kind: str
    accepted: bool
    """Whether the router took, or would have taken, the student's action"""
    teacher_action: str | None
    samples: Sequence[LoggedSample]


class StoredDecision(NamedTuple):
    """A decision as the database holds it."""

    decision: Decision
    demonstrations: Sequence[ShownDemonstration]
    """As the bank holds them now"""
    shadow: ShadowSeen | None


def find_decision(
    database: Database, name: str, *, namespace: str | None = None, deferred: bool = False
) -> StoredDecision:
    """The decision that a name stands for.

    Args:
        database: An open one.
        name: Its id, the beginning of its id, ``EPISODE/STEP`` (steps count from 0), or ``last``.
        namespace: Of one tenant; None: of all.
        deferred: Of ``last``, the newest step that the teacher took in mode ``cascade``.

    Raises:
        InvalidRequest: No decision has this name, or several have; the message names them, or what to ask for.
        StorageError: The database cannot be read.
    """
    own = [] if namespace is None else [decisions.c.namespace == namespace]
    with database.begin() as connection:
        row = _newest(connection, own, deferred) if name == "last" else _named(connection, name, own)
        lines = connection.execute(select(calls).where(calls.c.decision == row["id"]).order_by(calls.c.pk))
        shadow = connection.execute(select(shadows).where(shadows.c.decision == row["id"])).mappings().first()
        shown = demonstrations_of(connection, row)
        fields = {key: row[key] for key in Decision.model_fields if key in row}
        decision = Decision(**fields | {"rungs": row["rungs"] or ()}, calls=tuple(map(call_of, lines)))
    seen = None
    if shadow is not None:
        samples = [LoggedSample(**sample) for sample in shadow["samples"]]
        seen = ShadowSeen(shadow["kind"], shadow["accepted"], shadow["teacher_action"], samples)
    return StoredDecision(decision, shown, seen)


def _newest(connection: Connection, own: list[ColumnElement[bool]], deferred: bool) -> RowMapping:
    where = [*own]
    if deferred:
        where += [decisions.c.mode == "cascade", decisions.c.answered_by == "teacher"]
    found = _first(connection, where)
    if found is None:
        what = "step of mode cascade that the teacher took" if deferred else "decision"
        raise InvalidRequest(f"no {what} is recorded here yet: give --url or --config of the right database")
    return found


def _named(connection: Connection, name: str, own: list[ColumnElement[bool]]) -> RowMapping:
    found = _first(connection, [*own, decisions.c.id == name])
    if found is not None:
        return found
    episode, slash, step = name.rpartition("/")
    if slash and step.isdecimal() and len(step) < 10:
        return _at(connection, episode, int(step), own)
    if len(name) >= SHORTEST:
        starts = [*own, decisions.c.id.startswith(name, autoescape=True)]
        ids = connection.execute(select(decisions.c.id).where(*starts).limit(NAMED + 1)).scalars().all()
        if len(ids) == 1:
            return connection.execute(select(decisions).where(decisions.c.id == ids[0])).mappings().one()
        if ids:
            more = " and more" if len(ids) > NAMED else ""
            raise InvalidRequest(f"'{name[:60]}' begins several decisions, {', '.join(ids[:NAMED])}{more}: give more")
    of_episode = connection.execute(
        select(decisions.c.step).where(*own, decisions.c.episode == name).order_by(decisions.c.step.desc()).limit(1)
    ).scalar()
    if of_episode is not None:
        raise InvalidRequest(
            f"'{name[:60]}' is an episode with steps 0 to {of_episode}: name one, '{name[:60]}/{of_episode}'"
        )
    raise InvalidRequest(
        f"there is no decision '{name[:60]}': give an id (an answer's `agentcascade.id`), its beginning ({SHORTEST} "
        "characters or more), EPISODE/STEP with steps from 0, or last"
    )


def _at(connection: Connection, episode: str, step: int, own: list[ColumnElement[bool]]) -> RowMapping:
    """The newest decision of a step: a step that was asked again has several."""
    where = [*own, decisions.c.episode == episode, decisions.c.step == step]
    spaces = connection.execute(select(decisions.c.namespace).where(*where).distinct().limit(NAMED)).scalars().all()
    if len(spaces) > 1:
        raise InvalidRequest(
            f"'{episode[:60]}/{step}' is in several namespaces, {', '.join(sorted(spaces))}: choose by --namespace"
        )
    found = _first(connection, where)
    if found is None:
        raise InvalidRequest(f"no step {step} of an episode '{episode[:60]}' is recorded: steps count from 0")
    return found


def _first(connection: Connection, where: list[ColumnElement[bool]]) -> RowMapping | None:
    """The newest."""
    query = select(decisions).where(*where).order_by(decisions.c.created_at.desc(), decisions.c.id.desc()).limit(1)
    found: Any = connection.execute(query).mappings().first()
    return found  # type: ignore[no-any-return]
