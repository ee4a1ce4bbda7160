"""The tables, as SQLAlchemy Core sees them. Changing one means writing a migration."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
)

PICO = Decimal(10) ** 12
MAX_PICO = 2**63 - 1


class Dollars(TypeDecorator[Decimal]):
    """Exact dollars as an integer number of 10⁻¹² dollars; NULL is an unknown price.

    The cheapest listed token costs more than 10⁻¹¹ dollars; one column holds up to nine million dollars. Raises
    `ValueError` for what does not fit exactly.
    """

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: Decimal | None, dialect: Dialect) -> int | None:
        if value is None:
            return None
        pico = int(value * PICO) if value.is_finite() and abs(value) <= MAX_PICO / PICO else None
        if pico is None or pico / PICO != value:
            raise ValueError(f"{value} dollars cannot be stored exactly as a number of 10^-12 dollars")
        return pico

    def process_result_value(self, value: Any, dialect: Dialect) -> Decimal | None:
        return None if value is None else Decimal(int(value)) / PICO


class Time(TypeDecorator[datetime]):
    """Aware UTC times, also where the database keeps no zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)
Key = BigInteger().with_variant(Integer, "sqlite")

settings = Table(
    "settings",
    metadata,
    Column("name", String(100), primary_key=True),
    Column("value", Text, nullable=False),
)

trajectories = Table(
    "trajectories",
    metadata,
    Column("pk", Key, primary_key=True),
    Column("id", String(200), nullable=False, unique=True),
    Column("namespace", String(200), nullable=False),
    Column("goal", Text, nullable=False),
    Column("plan", Text, nullable=False),
    Column("category", String(200), nullable=False),
    Column("model", String(200), nullable=False),
    Column("success", Boolean, nullable=False),
    Column("length", Integer, nullable=False),
    Column("metadata", JSON, nullable=False),
    Column("created_at", Time, nullable=False),
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

embeddings = Table(
    "embeddings",
    metadata,
    Column("key", String(64), primary_key=True),
    Column("vector", LargeBinary, nullable=False),
)

removals = Table(
    "removals",
    metadata,
    Column("pk", Key, primary_key=True),
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
    Column("started_at", Time, nullable=False),
    Column("finished_at", Time, nullable=False),
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
    Column("action", Text, nullable=True),
    Column("demonstrations", JSON, nullable=False),
    Column("dropped_demonstrations", Integer, nullable=False),
    Column("dollars", Dollars, nullable=True),
    Column("teacher_dollars", Dollars, nullable=True),
    Column("overhead_ms", Float, nullable=False),
    Column("embedding_ms", Float, nullable=False),
    Column("seconds", Float, nullable=False, server_default="0"),
    Column("failures", JSON, nullable=False),
    Column("created_at", Time, nullable=False),
    Index(None, "namespace", "created_at"),
)

calls = Table(
    "calls",
    metadata,
    Column("pk", Key, primary_key=True),
    Column("decision", ForeignKey("decisions.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("role", String(20), nullable=False),
    Column("purpose", String(20), nullable=False),
    Column("model", String(200), nullable=False),
    Column("input", BigInteger, nullable=False),
    Column("cached_input", BigInteger, nullable=False),
    Column("cache_write", BigInteger, nullable=False),
    Column("cache_write_1h", BigInteger, nullable=False),
    Column("output", BigInteger, nullable=False),
    Column("reasoning", BigInteger, nullable=False),
    Column("dollars", Dollars, nullable=True),
    Column("seconds", Float, nullable=False),
    sqlite_autoincrement=True,
)

shadows = Table(
    "shadows",
    metadata,
    Column("decision", ForeignKey("decisions.id", ondelete="CASCADE"), primary_key=True),
    Column("episode", String(200), nullable=False),
    Column("namespace", String(200), nullable=False),
    Column("step", Integer, nullable=False),
    Column("teacher_action", Text, nullable=True),
    Column("samples", JSON, nullable=False),
    Column("accepted", Boolean, nullable=False),
    Column("agreement", Float, nullable=True),
    Column("demonstrations", JSON, nullable=False),
    Column("failures", JSON, nullable=False),
    Column("seconds", Float, nullable=False),
    Column("created_at", Time, nullable=False),
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
    Column("created_at", Time, nullable=False, index=True),
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
    Column("created_at", Time, nullable=False),
    Column("expires_at", Time, nullable=True),
    Column("revoked_at", Time, nullable=True),
)

accounts = Table(
    "accounts",
    metadata,
    Column("scope", String(20), primary_key=True),
    Column("name", String(450), primary_key=True),
    Column("window", String(20), primary_key=True),
    Column("spent", Dollars, nullable=False),
    Column("updated_at", Time, nullable=False, index=True),
)

reservations = Table(
    "reservations",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("scope", String(20), primary_key=True),
    Column("name", String(450), primary_key=True),
    Column("window", String(20), nullable=False),
    Column("dollars", Dollars, nullable=False),
    Column("expires_at", Time, nullable=False, index=True),
    Index(None, "scope", "name", "window"),
)

rates = Table(
    "rates",
    metadata,
    Column("key", String(40), primary_key=True),
    Column("minute", BigInteger, primary_key=True, autoincrement=False),
    Column("requests", Integer, nullable=False),
)
