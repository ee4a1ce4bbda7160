"""Answers that may be given again to the same request, sealed, and which calls were answered by them."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"

BILLS = "calls", "recall_calls", "rewrite_calls"


def upgrade() -> None:
    op.create_table(
        "cached_responses",
        sa.Column("key", sa.String(length=64), nullable=False),
        sa.Column("namespace", sa.String(length=200), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("bytes", sa.Integer(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_cached_responses"),
    )
    op.create_index("ix_cached_responses_namespace", "cached_responses", ["namespace", "created_at"])
    op.create_index("ix_cached_responses_expires_at", "cached_responses", ["expires_at"])
    for table in BILLS:
        op.add_column(table, sa.Column("cached_response", sa.Boolean(), nullable=False, server_default=sa.false()))
        op.add_column(table, sa.Column("avoided_dollars", sa.BigInteger(), nullable=True))
