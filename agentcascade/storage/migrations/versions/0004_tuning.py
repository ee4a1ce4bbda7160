"""Shadows say what tuning needs, and audits join them."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    for column in (
        sa.Column("kind", sa.String(length=20), nullable=False, server_default="shadow"),
        sa.Column("goal", sa.Text(), nullable=False, server_default=""),
        sa.Column("category", sa.String(length=200), nullable=False, server_default=""),
        sa.Column("observation", sa.Text(), nullable=False, server_default=""),
        sa.Column("temperature", sa.Float(), nullable=True),
        sa.Column("k", sa.Integer(), nullable=True),
        sa.Column("similarity", sa.Float(), nullable=True),
        sa.Column("propensity", sa.Float(), nullable=False, server_default="1"),
        sa.Column("gold", sa.Text(), nullable=True),
    ):
        op.add_column("shadows", column)
    for bill in ("calls", "recall_calls"):
        op.add_column(bill, sa.Column("requests", sa.Integer(), nullable=False, server_default="1"))
