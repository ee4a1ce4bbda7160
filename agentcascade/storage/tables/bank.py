"""Tables of the bank: demonstrations, their vectors and rewritings, the shelf of failures."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    String,
    Table,
    Text,
    UniqueConstraint,
)

from agentcascade.storage.columns import RowKey, UtcTime
from agentcascade.storage.tables.schema import bill_columns, metadata

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
    *bill_columns(),
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
