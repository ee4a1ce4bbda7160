"""Serving: shadows, drafts, keys, budgets; an episode's id belongs to its namespace."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("decisions", sa.Column("goal", sa.String(length=300), nullable=False, server_default=""))
    op.add_column("decisions", sa.Column("cascade", sa.String(length=200), nullable=False, server_default=""))
    op.add_column("decisions", sa.Column("seconds", sa.Float(), nullable=False, server_default="0"))
    _rename_key_of_episodes()
    op.create_table(
        "shadows",
        sa.Column("decision", sa.String(length=40), nullable=False),
        sa.Column("episode", sa.String(length=200), nullable=False),
        sa.Column("namespace", sa.String(length=200), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("teacher_action", sa.Text(), nullable=True),
        sa.Column("samples", sa.JSON(), nullable=False),
        sa.Column("accepted", sa.Boolean(), nullable=False),
        sa.Column("agreement", sa.Float(), nullable=True),
        sa.Column("demonstrations", sa.JSON(), nullable=False),
        sa.Column("failures", sa.JSON(), nullable=False),
        sa.Column("seconds", sa.Float(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["decision"], ["decisions.id"], name=op.f("fk_shadows_decision"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("decision", name=op.f("pk_shadows")),
    )
    op.create_index(op.f("ix_shadows_namespace_created_at"), "shadows", ["namespace", "created_at"])
    op.create_table(
        "drafts",
        sa.Column("namespace", sa.String(length=200), nullable=False),
        sa.Column("episode", sa.String(length=200), nullable=False),
        sa.Column("position", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("goal", sa.Text(), nullable=False),
        sa.Column("plan", sa.Text(), nullable=False),
        sa.Column("mode", sa.String(length=20), nullable=False),
        sa.Column("model", sa.String(length=200), nullable=False),
        sa.Column("cascade", sa.String(length=200), nullable=False),
        sa.Column("observation", sa.Text(), nullable=False),
        sa.Column("reasoning", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("namespace", "episode", "position", name=op.f("pk_drafts")),
    )
    op.create_index(op.f("ix_drafts_created_at"), "drafts", ["created_at"])
    op.create_table(
        "keys",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.Column("namespace", sa.String(length=200), nullable=False),
        sa.Column("cascades", sa.JSON(), nullable=False),
        sa.Column("admin", sa.Boolean(), nullable=False),
        sa.Column("budget", sa.BigInteger(), nullable=True),
        sa.Column("period", sa.String(length=20), nullable=False),
        sa.Column("requests_per_minute", sa.Integer(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_keys")),
    )
    op.create_table(
        "accounts",
        sa.Column("scope", sa.String(length=20), nullable=False),
        sa.Column("name", sa.String(length=450), nullable=False),
        sa.Column("window", sa.String(length=20), nullable=False),
        sa.Column("spent", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("scope", "name", "window", name=op.f("pk_accounts")),
    )
    op.create_index(op.f("ix_accounts_updated_at"), "accounts", ["updated_at"])
    op.create_table(
        "reservations",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("scope", sa.String(length=20), nullable=False),
        sa.Column("name", sa.String(length=450), nullable=False),
        sa.Column("window", sa.String(length=20), nullable=False),
        sa.Column("dollars", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", "scope", "name", name=op.f("pk_reservations")),
    )
    op.create_index(op.f("ix_reservations_expires_at"), "reservations", ["expires_at"])
    op.create_index(op.f("ix_reservations_scope_name_window"), "reservations", ["scope", "name", "window"])
    op.create_table(
        "rates",
        sa.Column("key", sa.String(length=40), nullable=False),
        sa.Column("minute", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("requests", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("key", "minute", name=op.f("pk_rates")),
    )


def _rename_key_of_episodes() -> None:
    """The key becomes (namespace, id). SQLite cannot alter a key: the table is made anew."""
    if op.get_bind().dialect.name == "postgresql":
        op.drop_constraint(op.f("pk_episodes"), "episodes", type_="primary")
        op.create_primary_key(op.f("pk_episodes"), "episodes", ["namespace", "id"])
        return
    op.drop_index(op.f("ix_episodes_namespace_finished_at"), "episodes")
    op.rename_table("episodes", "episodes_0001")
    op.create_table(
        "episodes",
        sa.Column("namespace", sa.String(length=200), nullable=False),
        sa.Column("id", sa.String(length=200), nullable=False),
        sa.Column("goal", sa.Text(), nullable=False),
        sa.Column("plan", sa.Text(), nullable=False),
        sa.Column("mode", sa.String(length=20), nullable=False),
        sa.Column("success", sa.Boolean(), nullable=True),
        sa.Column("steps", sa.Integer(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("namespace", "id", name=op.f("pk_episodes")),
    )
    columns = "namespace, id, goal, plan, mode, success, steps, started_at, finished_at"
    op.execute(f"INSERT INTO episodes ({columns}) SELECT {columns} FROM episodes_0001")
    op.drop_table("episodes_0001")
    op.create_index(op.f("ix_episodes_namespace_finished_at"), "episodes", ["namespace", "finished_at"])
