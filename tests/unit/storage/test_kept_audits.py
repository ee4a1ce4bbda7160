"""Rounds of audits as they are stored: hostile texts, entries that cannot be read, rounds that are held for long."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import select, update

from agentcascade.redaction.redactor import Redactor
from agentcascade.storage import Database
from agentcascade.storage.audit_rounds import HOLD, AuditRoundStore, DrawnAudit
from agentcascade.storage.retention import RetentionPolicy, prune
from agentcascade.storage.tables import audit_entries, audit_rounds
from agentcascade.types import Shadow, now


def drawn(observation: str, action: str = "look") -> DrawnAudit:
    shadow = Shadow(decision="d", kind="audit", episode="e", step=0, observation=observation)
    return DrawnAudit(shadow=shadow, is_asked=True, action=action)


def leave(database: Database) -> None:
    """As of a process that is gone for a while."""
    with database.begin(write=True) as connection:
        connection.execute(update(audit_rounds).values(held_until=now() - timedelta(seconds=1)))


def test_any_text_is_kept_and_compared_as_it_is_kept(database: Database) -> None:
    actions = ["type half a \ud83d smile", "\0", "\u2028\u2029\x85", "\udcff\ud800"]
    store = AuditRoundStore(database, Redactor())
    store.put("default", "m", [drawn(action, action) for action in actions])
    leave(database)
    (taken,) = store.take_over("default", "m")
    assert all(audit.drawn.shadow for audit in taken.audits)
    assert [audit.drawn.action for audit in taken.audits] == [store.redacted(action) for action in actions]


def test_an_entry_that_cannot_be_read_holds_up_no_other(database: Database) -> None:
    """Of a newer version, while replicas are renewed one by one."""
    store = AuditRoundStore(database, Redactor())
    first, second = store.put("default", "m", [drawn("a"), drawn("b")]), store.put("default", "m", [drawn("c")])
    with database.begin(write=True) as connection:
        at = (audit_entries.c.round == first) & (audit_entries.c.position == 0)
        line = connection.execute(select(audit_entries.c.drawn).where(at)).scalar_one()
        newer = line.replace('"is_asked":', '"of_a_newer_version":1,"is_asked":')
        connection.execute(update(audit_entries).where(at).values(drawn=newer, asked='{"key":'))
    leave(database)
    taken = {one.id: [audit.drawn for audit in one.audits] for one in store.take_over("default", "m")}
    assert taken[first][0] == DrawnAudit(is_asked=True), "a failed audit"
    assert taken[first][0].shadow is None
    assert [d.shadow.observation for d in (*taken[first][1:], *taken[second]) if d.shadow] == ["b", "c"]


def test_a_round_that_is_held_outlives_a_short_retention(database: Database) -> None:
    """A batch takes a day and more."""
    store, policy = AuditRoundStore(database, Redactor()), RetentionPolicy(drafts=1)
    id = store.put("default", "m", [drawn("a")])
    later = now() + timedelta(days=2)
    with database.begin(write=True) as connection:
        connection.execute(update(audit_rounds).values(held_until=later + HOLD))
    prune(database, policy, at=later)
    assert store.note_judged(id, 0)
    prune(database, policy, at=later + timedelta(days=2))
    assert not store.note_judged(id, 1)
