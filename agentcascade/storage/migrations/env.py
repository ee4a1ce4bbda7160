"""Alembic's entry: runs on the connection that `open_database` holds."""

from alembic import context

from agentcascade.storage.tables import metadata

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    # another schema of the search path may have tables of the same names
    version_table_schema=connection.dialect.default_schema_name if connection.dialect.name == "postgresql" else None,
    target_metadata=metadata,
    render_as_batch=True,
    transactional_ddl=False,
)
context.run_migrations()
