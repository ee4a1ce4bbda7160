"""Tables of what happened: episodes, decisions and their bills, shadows, drafts, stored and cached responses."""

from __future__ import annotations

from sqlalchemy import JSON, Boolean, Column, Float, ForeignKey, Index, Integer, LargeBinary, String, Table, Text

from agentcascade.storage.columns import Dollars, RowKey, UtcTime
from agentcascade.storage.tables.schema import bill_columns, metadata

episodes = Table(
    "episodes",
    metadata,
    Column("namespace", String(200), primary_key=True),
    Column("id", String(200), primary_key=True),
    Column("goal", Text, nullable=False),
    Column("plan", Text, nullable=False),
    Column("mode", String(20), nullable=False),
    Column("success", Boolean, nullable=True),
    Column("steps", Integer, nullable=False),
    Column("started_at", UtcTime, nullable=False),
    Column("finished_at", UtcTime, nullable=False),
    Column("shown", JSON, nullable=False, server_default="[]"),
    Index(None, "namespace", "finished_at"),
)

decisions = Table(
    "decisions",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("episode", String(200), nullable=False, index=True),
    Column("namespace", String(200), nullable=False),
    Column("step", Integer, nullable=False),
    Column("goal", String(300), nullable=False, server_default=""),
    Column("cascade", String(200), nullable=False, server_default=""),
    Column("mode", String(20), nullable=False),
    Column("answered_by", String(20), nullable=False),
    Column("reason", Text, nullable=False),
    Column("agreement", Float, nullable=True),
    Column("samples", Integer, nullable=False),
    Column("invalid_samples", Integer, nullable=False),
    Column("votes", JSON, nullable=False),
    Column("struck", JSON, nullable=False, server_default="{}"),
    Column("rungs", JSON, nullable=True),
    Column("verification", JSON, nullable=True),
    Column("action", Text, nullable=True),
    Column("demonstrations", JSON, nullable=False),
    Column("dropped_demonstrations", Integer, nullable=False),
    Column("teacher_drafts", Integer, nullable=False, server_default="0"),
    Column("prompts", Integer, nullable=False, server_default="1"),
    Column("retried", Integer, nullable=False, server_default="0"),
    Column("history_carried", JSON, nullable=True),
    Column("dollars", Dollars, nullable=True),
    Column("teacher_dollars", Dollars, nullable=True),
    Column("cache_regret", Dollars, nullable=True),
    Column("overhead_ms", Float, nullable=False),
    Column("embedding_ms", Float, nullable=False),
    Column("seconds", Float, nullable=False, server_default="0"),
    Column("failures", JSON, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Index(None, "created_at"),
    Index(None, "namespace", "created_at"),
)

calls = Table(
    "calls",
    metadata,
    Column("pk", RowKey, primary_key=True),
    Column("decision", ForeignKey("decisions.id", ondelete="CASCADE"), nullable=False, index=True),
    *bill_columns(),
    sqlite_autoincrement=True,
)

shadows = Table(
    "shadows",
    metadata,
    Column("decision", ForeignKey("decisions.id", ondelete="CASCADE"), primary_key=True),
    Column("episode", String(200), nullable=False),
    Column("namespace", String(200), nullable=False),
    Column("step", Integer, nullable=False),
    Column("kind", String(20), nullable=False, server_default="shadow"),
    Column("goal", Text, nullable=False, server_default=""),
    Column("category", String(200), nullable=False, server_default=""),
    Column("observation", Text, nullable=False, server_default=""),
    Column("temperature", Float, nullable=True),
    Column("k", Integer, nullable=True),
    Column("window", String(20), nullable=True),
    Column("vary", String(20), nullable=True),
    Column("history", String(300), nullable=True),
    Column("asked_together", Integer, nullable=True),
    Column("similarity", Float, nullable=True),
    Column("propensity", Float, nullable=False, server_default="1"),
    Column("teacher_action", Text, nullable=True),
    Column("gold", Text, nullable=True),
    Column("samples", JSON, nullable=False),
    Column("accepted", Boolean, nullable=False),
    Column("agreement", Float, nullable=True),
    Column("demonstrations", JSON, nullable=False),
    Column("failures", JSON, nullable=False),
    Column("seconds", Float, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Index(None, "namespace", "created_at"),
)

drafts = Table(
    "drafts",
    metadata,
    Column("namespace", String(200), primary_key=True),
    Column("episode", String(200), primary_key=True),
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("goal", Text, nullable=False),
    Column("plan", Text, nullable=False),
    Column("mode", String(20), nullable=False),
    Column("model", String(200), nullable=False),
    Column("cascade", String(200), nullable=False),
    Column("observation", Text, nullable=False),
    Column("reasoning", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("created_at", UtcTime, nullable=False, index=True),
)

responses = Table(
    "responses",
    metadata,
    Column("key", String(64), primary_key=True),
    Column("namespace", String(200), nullable=False),
    Column("created_at", UtcTime, nullable=False, index=True),
    Column("body", LargeBinary, nullable=False),
)

cached_responses = Table(
    "cached_responses",
    metadata,
    Column("key", String(64), primary_key=True),
    Column("namespace", String(200), nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("expires_at", UtcTime, nullable=False, index=True),
    Column("bytes", Integer, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Index(None, "namespace", "created_at"),
)
