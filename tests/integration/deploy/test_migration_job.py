"""Migrations as a job: one of several does them, and servers that must not migrate go by tables that are up to date."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from sqlalchemy import inspect, text

from agentcascade.cli import main
from agentcascade.config.load import CascadeConfig
from agentcascade.errors import NewerDatabase, StorageError
from agentcascade.ledger.ledger import DatabaseRecorder
from agentcascade.storage import Database, open_database
from agentcascade.storage.database import revision
from agentcascade.storage.engine import new_engine
from agentcascade.storage.keys import Keys
from agentcascade.types import Call, Decision, Usage


def edited(url: str, statement: str) -> None:
    with new_engine(url).begin() as connection:
        connection.execute(text(statement))


def refused(open: Callable[[], Any]) -> str:
    with pytest.raises(StorageError) as caught:
        open()
    return str(caught.value)


def test_servers_that_must_not_migrate_say_what_to_do(url: str) -> None:
    words = refused(lambda: open_database(url, migrate=False))
    assert "has no tables yet" in words
    assert "`agentcascade db upgrade`" in words
    assert not inspect(new_engine(url)).get_table_names(), "nothing was touched"

    head = revision(open_database(url))
    open_database(url, migrate=False).close()
    edited(url, "UPDATE alembic_version SET version_num = '0016'")
    words = refused(lambda: open_database(url, migrate=False))
    assert f"revision 0016, and this agentcascade needs revision {head}: run `agentcascade db upgrade` first" in words
    assert "hidden-word" not in words

    edited(url, "UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(NewerDatabase, match="pip install -U"):
        open_database(url, migrate=False)


def test_a_server_and_its_commands_go_by_the_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = pytest.importorskip("agentcascade.server.app", reason="needs the extra `server`")
    url = f"sqlite:///{tmp_path}/cascade.db"
    config = CascadeConfig(
        mode="teacher", teacher={"name": "gpt-4.1"}, retrieval={"k": 0}, bank={"url": url, "migrate": False}
    )
    assert "db upgrade" in refused(lambda: app.create_app(config))
    monkeypatch.setenv("AGENTCASCADE_BANK__MIGRATE", "false")

    def run(*command: str) -> Any:
        return CliRunner().invoke(main, [*command, "--url", url])

    listed = run("keys", "list")
    assert listed.exit_code == 1
    assert "db upgrade" in listed.output
    assert run("db", "upgrade").exit_code == 0, "which is what migrates"
    assert run("keys", "list").exit_code == 0


def test_of_several_jobs_at_once_one_migrates(postgres_url: str) -> None:
    """Each in a process of its own, as two pods are; SQLite's are in tests of the storage."""
    command = [sys.executable, "-m", "agentcascade", "db", "upgrade", "--url", postgres_url]
    jobs = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ))
        for _ in range(2)
    ]
    said = [job.communicate(timeout=300) for job in jobs]
    assert [job.returncode for job in jobs] == [0, 0], said
    assert len({out for out, _ in said}) == 1
    open_database(postgres_url, migrate=False).close()


def test_a_server_s_role_needs_no_right_to_change_tables(postgres_url: str, tmp_path: Path) -> None:
    open_database(postgres_url).close()
    role, name = f"server_{os.getpid()}", postgres_url.rsplit("/", 1)[1]
    for statement in (
        f"CREATE ROLE {role} LOGIN",
        f"GRANT CONNECT ON DATABASE {name} TO {role}",
        f"GRANT USAGE ON SCHEMA public TO {role}",
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}",
        f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {role}",
    ):
        edited(postgres_url, statement)
    as_server = postgres_url.replace("tester:hidden-word", role)
    database = open_database(as_server, migrate=False)
    try:
        with pytest.raises(StorageError, match="must be owner"), database.begin() as connection:
            connection.execute(text("ALTER TABLE decisions ADD COLUMN more text"))
        assert works(database, tmp_path)
    finally:
        database.close()


def works(database: Database, folder: Path) -> bool:
    """Whether what a server writes at a step can be written."""
    recorder = DatabaseRecorder(database, folder=folder)
    call = Call(role="teacher", model="m", usage=Usage(input=1), dollars=None)
    recorder.record(Decision(episode="e", step=0, mode="teacher", answered_by="teacher", reason="r", calls=(call,)))
    recorder.close()
    Keys(database).create("alice")
    with database.begin() as connection:
        return bool(connection.execute(text("SELECT count(*) FROM decisions")).scalar_one() == 1)
