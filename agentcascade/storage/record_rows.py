"""Rows of records: decisions, shadows, drafts, ends of episodes, recalls, and what each of them is billed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Column, Connection, bindparam, select

from agentcascade.storage import bank_metadata
from agentcascade.storage.tables import calls, decisions, drafts, episodes, outcomes, recall_calls, recalls, shadows
from agentcascade.storage.trajectories import chunks
from agentcascade.storage.upsert import replacing, upsert
from agentcascade.types import Call, Decision, Draft, EpisodeEnd, Outcome, Recall, Shadow

FIND_DECISIONS = select(decisions.c.id).where(decisions.c.id.in_(bindparam("ids", expanding=True)))
INSERTS = {table: table.insert() for table in (decisions, calls, recall_calls)}
Record = Decision | Shadow | Draft | EpisodeEnd | Recall | Outcome


def write_records(connection: Connection, records: Sequence[Record]) -> list[Record]:
    """Write all records with their calls. What is there already is left alone, but for drafts and episode ends.

    Returns the shadows whose decisions are not there yet: they are not written.
    """
    early: list[Record] = []
    ends = [e for e in records if isinstance(e, EpisodeEnd)]
    decided = {d.id: d for d in records if isinstance(d, Decision)}
    for draft in (e for e in records if isinstance(e, Draft)):
        _write_draft(connection, draft)
    if decided:
        stored_ids = set(connection.execute(FIND_DECISIONS, {"ids": list(decided)}).scalars())
        new_decisions = [d for d in decided.values() if d.id not in stored_ids]
        if new_decisions:
            connection.execute(INSERTS[decisions], [_decision_row(d) for d in new_decisions])
        write_bills(connection, calls.c.decision, {d.id: d.calls for d in new_decisions})
    judged = _unbilled(connection, [end for end in ends if end.calls])
    if ends:
        _write_ends(connection, ends)
    if came_out := [r.model_dump() for r in records if isinstance(r, Outcome)]:
        connection.execute(upsert(connection, outcomes).on_conflict_do_nothing(), came_out)
    shadowed = {s.decision: s for s in records if isinstance(s, Shadow)}
    if shadowed:
        early += _write_shadows(connection, shadowed)
    recalled = {r.id: r for r in records if isinstance(r, Recall)}
    if recalled:
        _write_recalls(connection, recalled)
    for end in judged:
        write_bills(connection, calls.c.decision, {end.decision: end.calls})
    return early


def without_outdated(connection: Connection, records: list[Record]) -> list[Record]:
    """Records that were left behind by a crash, without those that the database knows better by now.

    Those are drafts of an episode that was finished since, or begun again, and ends that are not the last word.
    """
    spaces = {(e.namespace, e.episode) for e in records if isinstance(e, (Draft, EpisodeEnd))}
    ended: dict[tuple[str, str], datetime] = {}
    restarted: dict[tuple[str, str], datetime] = {}
    for part in chunks(sorted({episode for _, episode in spaces})):
        query = select(episodes.c.namespace, episodes.c.id, episodes.c.finished_at).where(episodes.c.id.in_(part))
        ended |= {(row[0], row[1]): row[2] for row in connection.execute(query)}
        first = select(drafts.c.namespace, drafts.c.episode, drafts.c.created_at)
        first = first.where(drafts.c.episode.in_(part), drafts.c.position == 0)
        restarted |= {(row[0], row[1]): row[2] for row in connection.execute(first)}

    def is_new(record: Record) -> bool:
        if not isinstance(record, (Draft, EpisodeEnd)):
            return True
        key = record.namespace, record.episode
        at = record.created_at if isinstance(record, Draft) else record.finished_at
        late = key in ended and at < ended[key]
        return not late and not (isinstance(record, Draft) and key in restarted and at <= restarted[key])

    return [record for record in records if is_new(record)]


def _unbilled(connection: Connection, ends: Sequence[EpisodeEnd]) -> list[EpisodeEnd]:
    """Ends whose judge's calls are not in the ledger: those that are newer than what is known of their episodes, or
    whose decision has no such call. A judge that was asked again is paid again; a journal may be taken in twice."""
    if not ends:
        return []
    query = select(episodes.c.namespace, episodes.c.id, episodes.c.finished_at)
    known = {(r[0], r[1]): r[2] for r in connection.execute(query.where(episodes.c.id.in_([e.episode for e in ends])))}
    billed = calls.c.decision.in_([end.decision for end in ends]) & (calls.c.purpose == "judge")
    paid = set(connection.execute(select(calls.c.decision).where(billed)).scalars())

    def is_new(end: EpisodeEnd) -> bool:
        before = known.get((end.namespace, end.episode))
        return end.decision not in paid or (before is not None and before < end.finished_at)

    return [end for end in ends if is_new(end)]


def _write_ends(connection: Connection, ends: Sequence[EpisodeEnd]) -> None:
    """The last word on an episode counts. After its decisions, which say what was shown in it."""
    rows = [e.model_dump(exclude={"episode", "decision", "calls"}) | {"id": e.episode} for e in ends]
    rows.sort(key=lambda row: (row["namespace"], row["id"]))  # two writers in one order do not wait for each other
    connection.execute(upsert(connection, episodes).on_conflict_do_nothing(), rows)
    before = bank_metadata.lock_episodes(connection, ends)
    connection.execute(replacing(connection, episodes, keep=("shown",)), rows)
    bank_metadata.count_uses(connection, ends, before)


def _decision_row(decision: Decision) -> dict[str, Any]:
    row = decision.model_dump(exclude={"calls"})
    return row | {
        "votes": dict(decision.votes),
        "struck": dict(decision.struck),
        "rungs": [rung.model_dump(mode="json") for rung in decision.rungs] or None,
        "verification": decision.verification and decision.verification.model_dump(mode="json"),
        "demonstrations": list(decision.demonstrations),
        "history_carried": None if decision.history_carried is None else decision.history_carried.model_dump(),
        "failures": list(decision.failures),
    }


def write_bills(connection: Connection, owner: Column[Any], bills: Mapping[str, Sequence[Call]]) -> None:
    """Into the table that `owner` is a column of."""
    rows = [
        call.model_dump(exclude={"usage"}) | call.usage.model_dump() | {owner.name: id}
        for id, bill in bills.items()
        for call in bill
    ]
    if rows:
        connection.execute(INSERTS[owner.table], rows)


def _write_shadows(connection: Connection, by_decision: Mapping[str, Shadow]) -> list[Shadow]:
    """Returns those that came before their decisions."""
    ids = list(by_decision)
    stored_ids = set(connection.execute(select(shadows.c.decision).where(shadows.c.decision.in_(ids))).scalars())
    decided = set(connection.execute(select(decisions.c.id).where(decisions.c.id.in_(ids))).scalars())
    new_shadows = [s for s in by_decision.values() if s.decision in decided - stored_ids]
    if new_shadows:
        columns = dict.fromkeys(Shadow.model_fields.keys() - {"calls"})  # a dump leaves some out where they are None
        rows = [columns | s.model_dump(exclude={"calls"}) for s in new_shadows]
        connection.execute(shadows.insert(), [{k: _plain(v) for k, v in row.items()} for row in rows])
    write_bills(connection, calls.c.decision, {s.decision: s.calls for s in new_shadows})
    return [s for s in by_decision.values() if s.decision not in decided]


def _write_recalls(connection: Connection, by_id: Mapping[str, Recall]) -> None:
    """The calls of a recall that was made for a step are in that step's decision."""
    stored_ids = set(connection.execute(select(recalls.c.id).where(recalls.c.id.in_(list(by_id)))).scalars())
    new_recalls = [r for r in by_id.values() if r.id not in stored_ids]
    if new_recalls:
        rows = [{k: _plain(v) for k, v in r.model_dump(exclude={"text", "calls", "runs"}).items()} for r in new_recalls]
        runs = [[run.model_dump(mode="json") for run in r.runs] for r in new_recalls]
        connection.execute(recalls.insert(), [row | {"runs": run} for row, run in zip(rows, runs)])
    write_bills(connection, recall_calls.c.recall, {r.id: r.calls for r in new_recalls if not r.decision})


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _write_draft(connection: Connection, draft: Draft) -> None:
    """A step that is taken again replaces the older one, and an episode that begins again all of them."""
    if draft.position == 0:
        of_episode = (drafts.c.namespace == draft.namespace) & (drafts.c.episode == draft.episode)
        connection.execute(drafts.delete().where(of_episode, drafts.c.created_at < draft.created_at))
    connection.execute(replacing(connection, drafts), draft.model_dump())
