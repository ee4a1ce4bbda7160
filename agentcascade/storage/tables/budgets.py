"""Tables of who may spend what: keys, accounts, reservations, rates."""

from __future__ import annotations

from sqlalchemy import JSON, BigInteger, Boolean, Column, Index, Integer, String, Table, false

from agentcascade.storage.columns import Dollars, UtcTime
from agentcascade.storage.tables.schema import metadata

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
