"""What the soft verifier said of a step's candidate."""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"


def upgrade() -> None:
    op.add_column("decisions", sa.Column("verification", sa.JSON(), nullable=True))
