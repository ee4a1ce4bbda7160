"""Tables of batches at providers: their requests, what these did cost, and audits that wait for them."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, ForeignKey, Index, Integer, String, Table, Text

from agentcascade.storage.columns import Dollars, RowKey, UtcTime
from agentcascade.storage.tables.schema import bill_columns, metadata

batches = Table(
    "batches",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("job", String(200), nullable=False),
    Column("namespace", String(200), nullable=False),
    Column("episode", String(200), nullable=False),
    Column("role", String(20), nullable=False),
    Column("purpose", String(20), nullable=False),
    Column("model", String(200), nullable=False),
    Column("api_base", Text, nullable=False),
    Column("provider_id", String(200), nullable=False),
    Column("state", String(20), nullable=False),
    Column("status", String(40), nullable=False),
    Column("error", Text, nullable=False),
    Column("requests", Integer, nullable=False),
    Column("reserved", Dollars, nullable=True),
    Column("created_at", UtcTime, nullable=False),
    Column("changed_at", UtcTime, nullable=False),
    Column("ended_at", UtcTime, nullable=True),
    Index(None, "namespace", "created_at"),
    Index(None, "state"),
)

batch_requests = Table(
    "batch_requests",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("batch", ForeignKey("batches.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("key", String(64), nullable=False, index=True),
    Column("state", String(20), nullable=False),
    Column("answers", Integer, nullable=False),
    Column("prompt_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Column("error", Text, nullable=False),
)

batch_calls = Table(
    "batch_calls",
    metadata,
    Column("pk", RowKey, primary_key=True),
    Column("batch", ForeignKey("batches.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("request", String(64), nullable=False, unique=True),
    *bill_columns(),
    Column("ordinary", Dollars, nullable=True),
    sqlite_autoincrement=True,
)

audit_rounds = Table(
    "audit_rounds",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("cascade", String(200), nullable=False),
    Column("model", String(200), nullable=False),
    Column("owner", String(40), nullable=False),
    Column("held_until", UtcTime, nullable=False),
    Column("judged", Integer, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Index(None, "created_at"),
)

audit_entries = Table(
    "audit_entries",
    metadata,
    Column("round", ForeignKey("audit_rounds.id", ondelete="CASCADE"), primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("drawn", Text, nullable=False),
    Column("asked", Text, nullable=True),
)
