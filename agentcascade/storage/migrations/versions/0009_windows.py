"""Steps before and after the one that matches in the demonstrations that a shadow was shown."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    op.add_column("shadows", sa.Column("window", sa.String(length=20), nullable=True))
