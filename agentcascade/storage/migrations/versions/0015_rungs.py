"""What each rung of a ladder said and cost at a step."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    op.add_column("decisions", sa.Column("rungs", sa.JSON(), nullable=True))
