"""What stood in a prompt in place of older steps, and how a logged student's history was bounded."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    op.add_column("decisions", sa.Column("history_carried", sa.JSON(), nullable=True))
    op.add_column("shadows", sa.Column("history", sa.String(length=300), nullable=True))
