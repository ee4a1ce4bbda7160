"""Samples that were drawn after a fault was fed back, and from prompts that differ."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    op.add_column("decisions", sa.Column("prompts", sa.Integer(), nullable=False, server_default="1"))
    op.add_column("decisions", sa.Column("retried", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("shadows", sa.Column("vary", sa.String(length=20), nullable=True))
