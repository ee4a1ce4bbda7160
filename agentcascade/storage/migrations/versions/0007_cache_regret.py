"""What a step's teacher call cost more since the student's steps before it left the teacher's prompt cache cold.

NULL in rows of before: their estimates of the teacher alone were made without any cache.
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.add_column("decisions", sa.Column("cache_regret", sa.BigInteger(), nullable=True))
