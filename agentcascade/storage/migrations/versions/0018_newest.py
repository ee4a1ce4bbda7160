"""The newest decisions of all namespaces, as the dashboard lists them."""

from alembic import op

revision = "0018"
down_revision = "0017"


def upgrade() -> None:
    op.create_index("ix_decisions_created_at", "decisions", ["created_at"])
