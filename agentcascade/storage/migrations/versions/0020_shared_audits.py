"""How many situations the teacher was asked about in an audit's call."""

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"


def upgrade() -> None:
    op.add_column("shadows", sa.Column("asked_together", sa.Integer(), nullable=True))
