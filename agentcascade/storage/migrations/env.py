"""Alembic's entry: runs on the connection that `open_database` holds."""

from alembic import context

from agentcascade.storage.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,
    transactional_ddl=False,
)
context.run_migrations()
