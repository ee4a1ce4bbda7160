"""How many of the student's candidates the teacher of a deferred step was shown."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    op.add_column("decisions", sa.Column("teacher_drafts", sa.Integer(), nullable=False, server_default="0"))
