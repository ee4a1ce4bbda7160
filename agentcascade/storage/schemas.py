"""PostgreSQL schemas: several sets of tables in one database."""

from __future__ import annotations

from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.schema import CreateSchema

from agentcascade.errors import ConfigError
from agentcascade.storage.engine import explain, new_engine


def within_schema(url: str, schema: str) -> str:
    """`url` with `schema` first on its search path; made where it is missing. Extensions of `public` stay in reach.

    Raises `ConfigError` for another database than PostgreSQL, `StorageError` where it does not answer. The URL that is
    returned holds the password.
    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise ConfigError("the bank is no database URL: give e.g. postgresql://user@host/agentcascade") from None
    if parsed.get_backend_name() not in ("postgresql", "postgres"):
        raise ConfigError(
            f"a bank that several machines share is a PostgreSQL database, not {parsed.get_backend_name()}: give e.g. "
            "postgresql://user@host/agentcascade"
        )
    engine = new_engine(url)
    try:
        with engine.begin() as connection:
            connection.execute(CreateSchema(schema, if_not_exists=True))
    except SQLAlchemyError as error:
        raise explain(error, engine) from error
    finally:
        engine.dispose()
    present = parsed.query.get("options", "")
    options = f"{present if isinstance(present, str) else ' '.join(present)} -csearch_path={schema},public".strip()
    return parsed.update_query_dict({"options": options}).render_as_string(hide_password=False)
