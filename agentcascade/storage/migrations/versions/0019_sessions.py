"""Ends of the dashboard's sessions, keys that read metrics alone, and bookings that may have to be tried again."""

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"


def upgrade() -> None:
    op.add_column("keys", sa.Column("metrics", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("keys", sa.Column("sessions_ended", sa.Integer(), nullable=False, server_default="0"))
    op.create_table(
        "bookings",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_bookings")),
    )
    op.create_index(op.f("ix_bookings_created_at"), "bookings", ["created_at"])
