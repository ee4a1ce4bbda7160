"""Demonstrations: how the episodes that used them ended, and their reasoning in fewer words."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.add_column("episodes", sa.Column("shown", sa.JSON(), nullable=False, server_default="[]"))
    op.create_table(
        "uses",
        sa.Column("trajectory", KEY, nullable=False),
        sa.Column("episodes", sa.Integer(), nullable=False),
        sa.Column("successes", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["trajectory"], ["trajectories.pk"], name=op.f("fk_uses_trajectory"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("trajectory", name=op.f("pk_uses")),
    )
    op.create_table(
        "shortened",
        sa.Column("trajectory", KEY, nullable=False),
        sa.Column("position", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("reasoning", sa.Text(), nullable=False),
        sa.Column("model", sa.String(length=200), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["trajectory"], ["trajectories.pk"], name=op.f("fk_shortened_trajectory"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("trajectory", "position", name=op.f("pk_shortened")),
    )
    op.create_table(
        "rewrites",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("trajectory", sa.String(length=200), nullable=False),
        sa.Column("namespace", sa.String(length=200), nullable=False),
        sa.Column("episode", sa.String(length=200), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_rewrites")),
    )
    op.create_index(op.f("ix_rewrites_namespace_created_at"), "rewrites", ["namespace", "created_at"])
    op.create_table(
        "rewrite_calls",
        sa.Column("pk", KEY, nullable=False),
        sa.Column("rewrite", sa.String(length=40), nullable=False),
        sa.Column("role", sa.String(length=20), nullable=False),
        sa.Column("purpose", sa.String(length=20), nullable=False),
        sa.Column("model", sa.String(length=200), nullable=False),
        *(
            sa.Column(name, sa.BigInteger(), nullable=False)
            for name in ("input", "cached_input", "cache_write", "cache_write_1h", "output", "reasoning")
        ),
        sa.Column("dollars", sa.BigInteger(), nullable=True),
        sa.Column("seconds", sa.Float(), nullable=False),
        sa.Column("requests", sa.Integer(), nullable=False, server_default="1"),
        sa.ForeignKeyConstraint(
            ["rewrite"], ["rewrites.id"], name=op.f("fk_rewrite_calls_rewrite"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("pk", name=op.f("pk_rewrite_calls")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_rewrite_calls_rewrite"), "rewrite_calls", ["rewrite"])
