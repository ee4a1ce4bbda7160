"""Which migration is the last is said by files' names, so that a database that has it is opened without Alembic."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import text

from agentcascade.errors import NewerDatabase, StorageError
from agentcascade.storage import open_database
from agentcascade.storage.engine import new_engine
from agentcascade.storage.upgrade import MIGRATIONS, newest_revision, require_current, upgrade


def test_files_are_named_after_their_migrations_and_the_last_is_alembics_head() -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    scripts = ScriptDirectory.from_config(config)
    assert newest_revision() == scripts.get_current_head()
    revisions = [script.revision for script in scripts.walk_revisions()]
    assert sorted(file.name.partition("_")[0] for file in (MIGRATIONS / "versions").glob("*.py")) == revisions[::-1]


def test_a_database_that_is_up_to_date_is_opened_without_alembic(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"sqlite:///{tmp_path}/kept.db"
    open_database(url).close()
    monkeypatch.setitem(sys.modules, "alembic", None)
    engine = new_engine(url)
    try:
        upgrade(engine)
        require_current(engine)
        with engine.execution_options(immediate=5).connect() as connection:
            connection.execute(text("UPDATE alembic_version SET version_num = '0020'"))
            connection.commit()
        with pytest.raises(ImportError):  # now it is needed
            upgrade(engine)
    finally:
        engine.dispose()


@pytest.mark.parametrize(("revision", "error"), [("0020", StorageError), ("9999", NewerDatabase)])
def test_another_revision_is_migrated_or_refused(tmp_path: Path, revision: str, error: type[Exception]) -> None:
    url = f"sqlite:///{tmp_path}/other.db"
    open_database(url).close()
    engine = new_engine(url)
    try:
        with engine.execution_options(immediate=5).connect() as connection:
            connection.execute(text("UPDATE alembic_version SET version_num = :revision"), {"revision": revision})
            connection.commit()
        with pytest.raises(error) as raised:
            require_current(engine)
        assert type(raised.value) is error
    finally:
        engine.dispose()
