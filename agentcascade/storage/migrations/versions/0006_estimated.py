"""Whether a call's tokens were counted here, since its provider did not say."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

BILLS = "calls", "recall_calls", "rewrite_calls"


def upgrade() -> None:
    for table in BILLS:
        op.add_column(table, sa.Column("estimated", sa.Boolean(), nullable=False, server_default=sa.false()))
