"""Tables of memory: histories, their turns, recalls and their bills, computed answers."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    String,
    Table,
    Text,
    UniqueConstraint,
)

from agentcascade.storage.columns import Dollars, RowKey, UtcTime
from agentcascade.storage.tables.schema import bill_columns, metadata

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
    *bill_columns(),
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
