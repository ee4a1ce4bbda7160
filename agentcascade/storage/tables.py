"""The tables, as SQLAlchemy Core sees them. Changing one means writing a migration."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    false,
)

from agentcascade.storage.columns import PICO as PICO
from agentcascade.storage.columns import Dollars as Dollars
from agentcascade.storage.columns import RowKey, UtcTime

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _bill() -> list[Column[Any]]:
    """Who was called, what for, and what it cost."""
    tokens = "input", "cached_input", "cache_write", "cache_write_1h", "output", "reasoning"
    return [
        Column("role", String(20), nullable=False),
        Column("purpose", String(20), nullable=False),
        Column("model", String(200), nullable=False),
        *(Column(name, BigInteger, nullable=False) for name in tokens),
        Column("dollars", Dollars, nullable=True),
        Column("seconds", Float, nullable=False),
        Column("requests", Integer, nullable=False, server_default="1"),
        Column("estimated", Boolean, nullable=False, server_default=false()),
        Column("cached_response", Boolean, nullable=False, server_default=false()),
        Column("avoided_dollars", Dollars, nullable=True),
    ]


settings = Table(
    "settings",
    metadata,
    Column("name", String(100), primary_key=True),
    Column("value", Text, nullable=False),
)

trajectories = Table(
    "trajectories",
    metadata,
    Column("pk", RowKey, primary_key=True),
    Column("id", String(200), nullable=False, unique=True),
    Column("namespace", String(200), nullable=False),
    Column("goal", Text, nullable=False),
    Column("plan", Text, nullable=False),
    Column("category", String(200), nullable=False),
    Column("model", String(200), nullable=False),
    Column("success", Boolean, nullable=False),
    Column("length", Integer, nullable=False),
    Column("metadata", JSON, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("digest", String(64), nullable=False),
    Column("episode", String(200), nullable=False, default=""),
    Column("goal_key", String(64), nullable=False),
    Column("plan_key", String(64), nullable=False),
    UniqueConstraint("namespace", "digest"),
    Index(None, "namespace", "created_at"),
    sqlite_autoincrement=True,
)

steps = Table(
    "steps",
    metadata,
    Column("trajectory", ForeignKey("trajectories.pk", ondelete="CASCADE"), primary_key=True),
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("observation", Text, nullable=False),
    Column("reasoning", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("observation_key", String(64), nullable=False),
)

shortened = Table(
    "shortened",
    metadata,
    Column("trajectory", ForeignKey("trajectories.pk", ondelete="CASCADE"), primary_key=True),
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("reasoning", Text, nullable=False),
    Column("model", String(200), nullable=False),
    Column("created_at", UtcTime, nullable=False),
)

rewrites = Table(
    "rewrites",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("trajectory", String(200), nullable=False),
    Column("namespace", String(200), nullable=False),
    Column("episode", String(200), nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Index(None, "namespace", "created_at"),
)

rewrite_calls = Table(
    "rewrite_calls",
    metadata,
    Column("pk", RowKey, primary_key=True),
    Column("rewrite", ForeignKey("rewrites.id", ondelete="CASCADE"), nullable=False, index=True),
    *_bill(),
    sqlite_autoincrement=True,
)

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
    *_bill(),
    Column("ordinary", Dollars, nullable=True),
    sqlite_autoincrement=True,
)

uses = Table(
    "uses",
    metadata,
    Column("trajectory", ForeignKey("trajectories.pk", ondelete="CASCADE"), primary_key=True),
    Column("episodes", Integer, nullable=False),
    Column("successes", Integer, nullable=False),
)

outcomes = Table(
    "outcomes",
    metadata,
    Column("pk", RowKey, primary_key=True),
    Column("id", String(40), nullable=False, unique=True),
    Column("namespace", String(200), nullable=False),
    Column("episode", String(200), nullable=False),
    Column("step", Integer, nullable=False),
    Column("goal", Text, nullable=False),
    Column("category", String(200), nullable=False),
    Column("observation", Text, nullable=False),
    Column("before", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("result", Text, nullable=False),
    Column("failed", Boolean, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Index(None, "namespace", "created_at"),
    sqlite_autoincrement=True,
)

embeddings = Table(
    "embeddings",
    metadata,
    Column("key", String(64), primary_key=True),
    Column("vector", LargeBinary, nullable=False),
)

removals = Table(
    "removals",
    metadata,
    Column("pk", RowKey, primary_key=True),
    Column("trajectory", BigInteger, nullable=False),
    Column("namespace", String(200), nullable=False),
    sqlite_autoincrement=True,
)

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
    *_bill(),
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

keys = Table(
    "keys",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("name", String(200), nullable=False),
    Column("hash", String(64), nullable=False),
    Column("namespace", String(200), nullable=False),
    Column("cascades", JSON, nullable=False),
    Column("admin", Boolean, nullable=False),
    Column("budget", Dollars, nullable=True),
    Column("period", String(20), nullable=False),
    Column("requests_per_minute", Integer, nullable=True),
    Column("created_at", UtcTime, nullable=False),
    Column("expires_at", UtcTime, nullable=True),
    Column("revoked_at", UtcTime, nullable=True),
    Column("metrics", Boolean, nullable=False, server_default=false()),
    Column("sessions_ended", Integer, nullable=False, server_default="0"),
)

accounts = Table(
    "accounts",
    metadata,
    Column("scope", String(20), primary_key=True),
    Column("name", String(450), primary_key=True),
    Column("window", String(20), primary_key=True),
    Column("spent", Dollars, nullable=False),
    Column("updated_at", UtcTime, nullable=False, index=True),
)

reservations = Table(
    "reservations",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("scope", String(20), primary_key=True),
    Column("name", String(450), primary_key=True),
    Column("window", String(20), nullable=False),
    Column("dollars", Dollars, nullable=False),
    Column("expires_at", UtcTime, nullable=False, index=True),
    Index(None, "scope", "name", "window"),
)

bookings = Table(
    "bookings",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("created_at", UtcTime, nullable=False, index=True),
)

rates = Table(
    "rates",
    metadata,
    Column("key", String(40), primary_key=True),
    Column("minute", BigInteger, primary_key=True, autoincrement=False),
    Column("requests", Integer, nullable=False),
)

histories = Table(
    "histories",
    metadata,
    Column("pk", RowKey, primary_key=True),
    Column("namespace", String(200), nullable=False),
    Column("name", String(200), nullable=False),
    Column("created_at", UtcTime, nullable=False),
    UniqueConstraint("namespace", "name"),
    sqlite_autoincrement=True,
)

turns = Table(
    "turns",
    metadata,
    Column("history", ForeignKey("histories.pk", ondelete="CASCADE"), primary_key=True),
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("id", String(300), nullable=False),
    Column("text", Text, nullable=False),
    Column("speaker", Text, nullable=False),
    Column("session", Text, nullable=False),
    Column("at", UtcTime, nullable=True),
    UniqueConstraint("history", "id"),
)

recalls = Table(
    "recalls",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("history", Text, nullable=False),
    Column("namespace", String(200), nullable=False),
    Column("episode", String(200), nullable=False),
    Column("decision", String(40), nullable=False),
    Column("question", Text, nullable=False),
    Column("tokens", Integer, nullable=False),
    Column("runs", JSON, nullable=False),
    Column("sources", JSON, nullable=False),
    Column("left_out", JSON, nullable=False),
    Column("dollars", Dollars, nullable=True),
    Column("seconds", Float, nullable=False),
    Column("router", String(200), nullable=False),
    Column("tradeoff", Float, nullable=False),
    Column("score", Float, nullable=True),
    Column("created_at", UtcTime, nullable=False),
    Index(None, "namespace", "created_at"),
)

recall_calls = Table(
    "recall_calls",
    metadata,
    Column("pk", RowKey, primary_key=True),
    Column("recall", ForeignKey("recalls.id", ondelete="CASCADE"), nullable=False, index=True),
    *_bill(),
    sqlite_autoincrement=True,
)

computed = Table(
    "computed",
    metadata,
    Column("kind", String(200), primary_key=True),
    Column("key", String(40), primary_key=True),
    Column("value", LargeBinary, nullable=False),
    Column("created_at", UtcTime, nullable=False, index=True),
)
