"""The database: tables, migrations, sessions. SQLite embedded, PostgreSQL shared."""

from agentcascade.storage.database import Database, open_database

__all__ = ["Database", "open_database"]
