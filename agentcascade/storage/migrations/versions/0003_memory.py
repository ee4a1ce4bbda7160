"""Memory: histories with their turns, what was recalled of them, and its bills."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "histories",
        sa.Column("pk", KEY, nullable=False),
        sa.Column("namespace", sa.String(length=200), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("pk", name=op.f("pk_histories")),
        sa.UniqueConstraint("namespace", "name", name=op.f("uq_histories_namespace_name")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "turns",
        sa.Column("history", KEY, nullable=False),
        sa.Column("position", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("id", sa.String(length=300), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("speaker", sa.Text(), nullable=False),
        sa.Column("session", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["history"], ["histories.pk"], name=op.f("fk_turns_history"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("history", "position", name=op.f("pk_turns")),
        sa.UniqueConstraint("history", "id", name=op.f("uq_turns_history_id")),
    )
    op.create_table(
        "recalls",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("history", sa.Text(), nullable=False),
        sa.Column("namespace", sa.String(length=200), nullable=False),
        sa.Column("episode", sa.String(length=200), nullable=False),
        sa.Column("decision", sa.String(length=40), nullable=False),
        sa.Column("question", sa.Text(), nullable=False),
        sa.Column("tokens", sa.Integer(), nullable=False),
        sa.Column("runs", sa.JSON(), nullable=False),
        sa.Column("sources", sa.JSON(), nullable=False),
        sa.Column("left_out", sa.JSON(), nullable=False),
        sa.Column("dollars", sa.BigInteger(), nullable=True),
        sa.Column("seconds", sa.Float(), nullable=False),
        sa.Column("router", sa.String(length=200), nullable=False),
        sa.Column("tradeoff", sa.Float(), nullable=False),
        sa.Column("score", sa.Float(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_recalls")),
    )
    op.create_index(op.f("ix_recalls_namespace_created_at"), "recalls", ["namespace", "created_at"])
    op.create_table(
        "recall_calls",
        sa.Column("pk", KEY, nullable=False),
        sa.Column("recall", sa.String(length=40), nullable=False),
        sa.Column("role", sa.String(length=20), nullable=False),
        sa.Column("purpose", sa.String(length=20), nullable=False),
        sa.Column("model", sa.String(length=200), nullable=False),
        sa.Column("input", sa.BigInteger(), nullable=False),
        sa.Column("cached_input", sa.BigInteger(), nullable=False),
        sa.Column("cache_write", sa.BigInteger(), nullable=False),
        sa.Column("cache_write_1h", sa.BigInteger(), nullable=False),
        sa.Column("output", sa.BigInteger(), nullable=False),
        sa.Column("reasoning", sa.BigInteger(), nullable=False),
        sa.Column("dollars", sa.BigInteger(), nullable=True),
        sa.Column("seconds", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(["recall"], ["recalls.id"], name=op.f("fk_recall_calls_recall"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("pk", name=op.f("pk_recall_calls")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_recall_calls_recall"), "recall_calls", ["recall"])
    op.create_table(
        "computed",
        sa.Column("kind", sa.String(length=200), nullable=False),
        sa.Column("key", sa.String(length=40), nullable=False),
        sa.Column("value", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("kind", "key", name=op.f("pk_computed")),
    )
    op.create_index(op.f("ix_computed_created_at"), "computed", ["created_at"])
