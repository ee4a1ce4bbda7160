"""Records into rows: decisions, shadows, drafts, ends of episodes, recalls, and what each of them is billed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Column, Connection, select
from sqlalchemy.dialects import postgresql, sqlite

from agentcascade.storage import bank_metadata
from agentcascade.storage.tables import calls, decisions, drafts, episodes, recall_calls, recalls, shadows
from agentcascade.storage.trajectories import chunks
from agentcascade.types import Call, Decision, Draft, EpisodeEnd, Recall, Shadow

Record = Decision | Shadow | Draft | EpisodeEnd | Recall


def write_records(connection: Connection, entries: list[Record]) -> list[Record]:
    """Write all entries with their calls. What is there already is left alone, but for drafts and episode ends.

    Returns the shadows whose decisions are not there yet: they are not written.
    """
    early: list[Record] = []
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    ends = [e for e in entries if isinstance(e, EpisodeEnd)]
    made = {d.id: d for d in entries if isinstance(d, Decision)}
    for draft in (e for e in entries if isinstance(e, Draft)):
        _write_draft(connection, dialect.insert(drafts), draft)
    if made:
        there = set(connection.execute(select(decisions.c.id).where(decisions.c.id.in_(list(made)))).scalars())
        fresh = [d for d in made.values() if d.id not in there]
        if fresh:
            connection.execute(decisions.insert(), [_decision_row(d) for d in fresh])
        _write_bills(connection, calls.c.decision, {d.id: d.calls for d in fresh})
    if ends:
        _write_ends(connection, dialect.insert(episodes), ends)
    behind = {s.decision: s for s in entries if isinstance(s, Shadow)}
    if behind:
        early += _write_shadows(connection, behind)
    recalled = {r.id: r for r in entries if isinstance(r, Recall)}
    if recalled:
        _write_recalls(connection, recalled)
    judged = {e.decision: e.calls for e in ends if e.calls}
    if judged:
        billed = (calls.c.decision.in_(list(judged))) & (calls.c.purpose == "judge")
        known = set(connection.execute(select(calls.c.decision).where(billed)).scalars())
        _write_bills(connection, calls.c.decision, {d: made for d, made in judged.items() if d not in known})
    return early


def without_outdated(connection: Connection, entries: list[Record]) -> list[Record]:
    """Entries that were left behind by a crash, without those that the database knows better by now.

    Those are drafts of an episode that was finished since, or begun again, and ends that are not the last word.
    """
    spaces = {(e.namespace, e.episode) for e in entries if isinstance(e, (Draft, EpisodeEnd))}
    ended: dict[tuple[str, str], datetime] = {}
    begun: dict[tuple[str, str], datetime] = {}
    for part in chunks(sorted({episode for _, episode in spaces})):
        query = select(episodes.c.namespace, episodes.c.id, episodes.c.finished_at).where(episodes.c.id.in_(part))
        ended |= {(row[0], row[1]): row[2] for row in connection.execute(query)}
        first = select(drafts.c.namespace, drafts.c.episode, drafts.c.created_at)
        first = first.where(drafts.c.episode.in_(part), drafts.c.position == 0)
        begun |= {(row[0], row[1]): row[2] for row in connection.execute(first)}

    def is_new(entry: Record) -> bool:
        if not isinstance(entry, (Draft, EpisodeEnd)):
            return True
        key = entry.namespace, entry.episode
        at = entry.created_at if isinstance(entry, Draft) else entry.finished_at
        late = key in ended and at < ended[key]
        return not late and not (isinstance(entry, Draft) and key in begun and at <= begun[key])

    return [entry for entry in entries if is_new(entry)]


def _write_ends(connection: Connection, insert: Any, ends: Sequence[EpisodeEnd]) -> None:
    """The last word on an episode counts. After its decisions, which say what was shown in it."""
    rows = [e.model_dump(exclude={"episode", "decision", "calls"}) | {"id": e.episode} for e in ends]
    rows.sort(key=lambda row: (row["namespace"], row["id"]))  # two writers in one order do not wait for each other
    connection.execute(insert.on_conflict_do_nothing(), rows)
    before = bank_metadata.lock_episodes(connection, ends)
    changes = {name: insert.excluded[name] for name in rows[0] if name not in ("namespace", "id")}
    connection.execute(insert.on_conflict_do_update(index_elements=["namespace", "id"], set_=changes), rows)
    bank_metadata.count_uses(connection, ends, before)


def _decision_row(decision: Decision) -> dict[str, Any]:
    row = decision.model_dump(exclude={"calls"})
    return row | {
        "votes": dict(decision.votes),
        "demonstrations": list(decision.demonstrations),
        "failures": list(decision.failures),
    }


def _write_bills(connection: Connection, owner: Column[Any], bills: Mapping[str, Sequence[Call]]) -> None:
    """Into the table that `owner` is a column of."""
    rows = [
        call.model_dump(exclude={"usage"}) | call.usage.model_dump() | {owner.name: id}
        for id, made in bills.items()
        for call in made
    ]
    if rows:
        connection.execute(owner.table.insert(), rows)


def _write_shadows(connection: Connection, behind: Mapping[str, Shadow]) -> list[Shadow]:
    """Returns those that came before their decisions."""
    ids = list(behind)
    there = set(connection.execute(select(shadows.c.decision).where(shadows.c.decision.in_(ids))).scalars())
    decided = set(connection.execute(select(decisions.c.id).where(decisions.c.id.in_(ids))).scalars())
    fresh = [s for s in behind.values() if s.decision in decided - there]
    if fresh:
        rows = [s.model_dump(exclude={"calls"}) for s in fresh]
        connection.execute(shadows.insert(), [{k: _plain(v) for k, v in row.items()} for row in rows])
    _write_bills(connection, calls.c.decision, {s.decision: s.calls for s in fresh})
    return [s for s in behind.values() if s.decision not in decided]


def _write_recalls(connection: Connection, made: Mapping[str, Recall]) -> None:
    """The calls of a recall that was made for a step are in that step's decision."""
    there = set(connection.execute(select(recalls.c.id).where(recalls.c.id.in_(list(made)))).scalars())
    fresh = [r for r in made.values() if r.id not in there]
    if fresh:
        rows = [{k: _plain(v) for k, v in r.model_dump(exclude={"text", "calls", "runs"}).items()} for r in fresh]
        runs = [[run.model_dump(mode="json") for run in r.runs] for r in fresh]
        connection.execute(recalls.insert(), [row | {"runs": own} for row, own in zip(rows, runs)])
    _write_bills(connection, recall_calls.c.recall, {r.id: r.calls for r in fresh if not r.decision})


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _write_draft(connection: Connection, insert: Any, draft: Draft) -> None:
    """A step that is taken again replaces the older one, and an episode that begins again all of them."""
    if draft.position == 0:
        own = (drafts.c.namespace == draft.namespace) & (drafts.c.episode == draft.episode)
        connection.execute(drafts.delete().where(own, drafts.c.created_at < draft.created_at))
    changes = {c.name: insert.excluded[c.name] for c in drafts.c if not c.primary_key}
    position = ["namespace", "episode", "position"]
    connection.execute(insert.on_conflict_do_update(index_elements=position, set_=changes), draft.model_dump())
