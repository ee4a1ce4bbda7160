"""What the tables have in common: their metadata, the columns of a bill, settings of the whole database."""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, Boolean, Column, Float, Integer, MetaData, String, Table, Text, false

from agentcascade.storage.columns import Dollars

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def bill_columns() -> list[Column[Any]]:
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
