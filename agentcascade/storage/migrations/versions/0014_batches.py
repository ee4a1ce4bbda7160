"""Batches of requests at providers, their requests by custom id, and what each has cost."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"

KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    time = sa.DateTime(timezone=True)
    op.create_table(
        "batches",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("job", sa.String(length=200), nullable=False),
        sa.Column("namespace", sa.String(length=200), nullable=False),
        sa.Column("episode", sa.String(length=200), nullable=False),
        sa.Column("role", sa.String(length=20), nullable=False),
        sa.Column("purpose", sa.String(length=20), nullable=False),
        sa.Column("model", sa.String(length=200), nullable=False),
        sa.Column("api_base", sa.Text(), nullable=False),
        sa.Column("provider_id", sa.String(length=200), nullable=False),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("status", sa.String(length=40), nullable=False),
        sa.Column("error", sa.Text(), nullable=False),
        sa.Column("requests", sa.Integer(), nullable=False),
        sa.Column("reserved", sa.BigInteger(), nullable=True),
        sa.Column("created_at", time, nullable=False),
        sa.Column("changed_at", time, nullable=False),
        sa.Column("ended_at", time, nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_batches")),
    )
    op.create_index(op.f("ix_batches_namespace_created_at"), "batches", ["namespace", "created_at"])
    op.create_index(op.f("ix_batches_state"), "batches", ["state"])
    op.create_table(
        "batch_requests",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("batch", sa.String(length=40), nullable=False),
        sa.Column("key", sa.String(length=64), nullable=False),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("answers", sa.Integer(), nullable=False),
        sa.Column("prompt_tokens", sa.BigInteger(), nullable=False),
        sa.Column("output_tokens", sa.BigInteger(), nullable=False),
        sa.Column("error", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["batch"], ["batches.id"], name=op.f("fk_batch_requests_batch"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_batch_requests")),
    )
    op.create_index(op.f("ix_batch_requests_batch"), "batch_requests", ["batch"])
    op.create_index(op.f("ix_batch_requests_key"), "batch_requests", ["key"])
    tokens = "input", "cached_input", "cache_write", "cache_write_1h", "output", "reasoning"
    op.create_table(
        "batch_calls",
        sa.Column("pk", KEY, nullable=False),
        sa.Column("batch", sa.String(length=40), nullable=False),
        sa.Column("request", sa.String(length=64), nullable=False),
        sa.Column("role", sa.String(length=20), nullable=False),
        sa.Column("purpose", sa.String(length=20), nullable=False),
        sa.Column("model", sa.String(length=200), nullable=False),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in tokens),
        sa.Column("dollars", sa.BigInteger(), nullable=True),
        sa.Column("seconds", sa.Float(), nullable=False),
        sa.Column("requests", sa.Integer(), nullable=False, server_default="1"),
        sa.Column("estimated", sa.Boolean(), nullable=False, server_default=sa.false()),
        sa.Column("cached_response", sa.Boolean(), nullable=False, server_default=sa.false()),
        sa.Column("avoided_dollars", sa.BigInteger(), nullable=True),
        sa.Column("ordinary", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["batch"], ["batches.id"], name=op.f("fk_batch_calls_batch"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("pk", name=op.f("pk_batch_calls")),
        sa.UniqueConstraint("request", name=op.f("uq_batch_calls_request")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_batch_calls_batch"), "batch_calls", ["batch"])
