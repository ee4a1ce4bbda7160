"""Rounds of audits that wait for their batches, and the drawn steps in each."""

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"


def upgrade() -> None:
    time = sa.DateTime(timezone=True)
    op.create_table(
        "audit_rounds",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("cascade", sa.String(length=200), nullable=False),
        sa.Column("model", sa.String(length=200), nullable=False),
        sa.Column("owner", sa.String(length=40), nullable=False),
        sa.Column("held_until", time, nullable=False),
        sa.Column("judged", sa.Integer(), nullable=False),
        sa.Column("created_at", time, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_rounds")),
    )
    op.create_index(op.f("ix_audit_rounds_created_at"), "audit_rounds", ["created_at"])
    op.create_table(
        "audit_entries",
        sa.Column("round", sa.String(length=40), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("drawn", sa.Text(), nullable=False),
        sa.Column("asked", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["round"], ["audit_rounds.id"], name=op.f("fk_audit_entries_round"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("round", "position", name=op.f("pk_audit_entries")),
    )
