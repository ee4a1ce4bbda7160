"""The page of the database: every table with its columns, keys and indexes, from the SQLAlchemy tables."""

from __future__ import annotations

from cells import code, table
from sqlalchemy import Column, Table
from sqlalchemy.dialects.postgresql import dialect as postgresql
from sqlalchemy.dialects.sqlite import dialect as sqlite

from agentcascade.storage import tables

HEAD = """\
# Database

One schema for SQLite and PostgreSQL, made from the tables of this version. Migrations bring an older database up to date when
it is opened, or with `agentcascade db upgrade`; a database that a newer version wrote is refused. Read it freely, write it only through
agentcascade: what is in a table may change with any minor version. Where two types are named, the second is
PostgreSQL's. Dollars are whole numbers of 10⁻¹² dollars. Times are UTC. *Contents* are redacted
before they are stored ([Records](../explanation/records.md)).
"""
ABOUT = {
    "settings": "What holds for the whole database: the model that embedded the bank, the switch.",
    "trajectories": "The bank: one successful episode of the teacher each.",
    "steps": "The steps of a banked trajectory: observation, reasoning, action.",
    "shortened": "Reasonings that `agentcascade bank shorten` rewrote.",
    "rewrites": "Runs of commands that rewrite the bank.",
    "rewrite_calls": "What their model calls cost.",
    "batches": "Batches at providers, from *prepared* to *ended*.",
    "batch_requests": "The requests of a batch, known by the digest of their bodies.",
    "audit_rounds": "Audits that wait for their batches, by the rounds in which they are judged, and who holds each.",
    "audit_entries": "The drawn steps of a round, redacted: what is needed to judge them when the answers come.",
    "batch_calls": "What each result of a batch cost.",
    "uses": "Which episode was shown which trajectory, and how it ended.",
    "outcomes": "The second shelf: actions that failed or worked in a situation.",
    "embeddings": "Vectors by content, so that no text is embedded twice.",
    "removals": "What was taken out of the bank, so that other processes follow.",
    "episodes": "Runs of an agent: goal, mode, how they ended.",
    "decisions": "One step each: who answered and why, votes, demonstrations, dollars.",
    "calls": "The model calls of a decision, with tokens and dollars.",
    "shadows": "What student and teacher answered at one step, for `tune` and audits.",
    "drafts": "Unfinished episodes of mode collect.",
    "responses": "Stored responses of the Responses API, sealed.",
    "cached_responses": "The response cache, sealed.",
    "keys": "Keys of the proxy, as hashes, and how often each one's sessions of the dashboard were ended.",
    "accounts": "What each budget has spent.",
    "reservations": "Worst cases of calls under way.",
    "bookings": "What was booked without a reservation, by id, until its process knows that it is: so none is booked "
    "twice.",
    "rates": "Rate limits of keys.",
    "histories": "Long histories of the memory.",
    "turns": "Their turns.",
    "recalls": "Questions to a memory, with the tiers that answered.",
    "recall_calls": "What their model calls cost.",
    "computed": "Answers and vectors of memory modules, by content.",
}


def page() -> str:
    """The page, in Markdown."""
    parts = [HEAD]
    for name, found in tables.metadata.tables.items():  # in the order of their definition
        parts += [f"\n## {name}\n", ABOUT.get(name, ""), _columns(found), _indexes(found)]
    return "\n".join(parts)


def _columns(found: Table) -> str:
    rows = ([code(column.name), _type(column), _notes(column)] for column in found.columns)
    return table(["column", "type", "notes"], rows)


def _type(column: Column[object]) -> str:
    """The type in SQLite and, where it is called otherwise, in PostgreSQL."""
    names = dict.fromkeys(column.type.compile(dialect=d()) for d in (sqlite, postgresql))
    return " / ".join(code(name) for name in names)


def _notes(column: Column[object]) -> str:
    notes = ["primary key"] if column.primary_key else []
    notes += [f"of [{key.column.table.name}](#{key.column.table.name})" for key in column.foreign_keys]
    notes += ["unique"] if column.unique else []
    notes += ["may be null"] if column.nullable else []
    default = getattr(column.server_default, "arg", None)
    notes += [] if default is None else [f"default {code(default)}"]
    return ", ".join(notes)


def _indexes(found: Table) -> str:
    indexes = sorted(
        ", ".join(str(getattr(e, "name", e)) for e in i.expressions) + (" (unique)" if i.unique else "")
        for i in found.indexes
    )
    return f"\nIndexes: {'; '.join(indexes)}.\n" if indexes else ""
