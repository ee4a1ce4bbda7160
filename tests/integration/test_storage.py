"""The same promises on SQLite and on a real PostgreSQL: migrations, durability, several processes at once."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
from decimal import Decimal
from pathlib import Path

import pytest
from sqlalchemy import create_engine, inspect, select, text

from agentcascade.bank.bank import Bank
from agentcascade.bank.catalog import Catalog
from agentcascade.errors import BankError, ConfigError, CorruptDatabase, NewerDatabase, StorageError
from agentcascade.ledger.ledger import DatabaseRecorder, Ledger
from agentcascade.retrievers.hashing import HashEmbedder
from agentcascade.retrievers.numpy_index import ExactRetriever
from agentcascade.storage import Database, open_database, tables
from agentcascade.storage.tables import metadata
from agentcascade.types import Call, Decision, EpisodeEnd, Situation, Step, Trajectory, Usage, now

HERE = Path(__file__).parent
FOLDERS = HERE.parents[1], HERE.parent, HERE


def make_bank(database):
    return Bank(database, HashEmbedder(32), ExactRetriever(96))


def trajectory(number, steps=3, **values):
    taken = tuple(
        Step(observation=f"room {number} shelf {i}", reasoning="hm", action=f"take {number}.{i}") for i in range(steps)
    )
    return Trajectory(**{"id": f"t{number}", "goal": f"find {number}", "steps": taken, "success": True} | values)


def start(script, *arguments):
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, FOLDERS)), "OMP_NUM_THREADS": "1"},
    )


def test_migrations_make_the_tables_that_the_code_expects(database: Database) -> None:
    found = inspect(database.engine)
    for table in metadata.sorted_tables:
        columns = {c["name"]: c["nullable"] for c in found.get_columns(table.name)}
        assert columns == {c.name: c.nullable for c in table.columns}, table.name
        indexes = {tuple(i["column_names"]) for i in found.get_indexes(table.name) if not i["unique"]}
        assert indexes == {tuple(c.name for c in i.columns) for i in table.indexes}, table.name


def test_opening_again_keeps_what_is_there(url: str) -> None:
    first = open_database(url)
    with first.begin(write=True) as connection:
        connection.execute(tables.settings.insert().values(name="a", value="b"))
    first.close()
    second = open_database(url)
    with second.begin() as connection:
        assert connection.execute(select(tables.settings.c.value)).scalar() == "b"
    second.close()


def test_processes_may_open_a_fresh_database_at_once(url: str) -> None:
    script = """
        import sys
        from agentcascade.storage import open_database, tables
        database = open_database(sys.argv[1])
        with database.begin(write=True) as connection:
            connection.execute(tables.settings.insert().values(name=sys.argv[2], value="here"))
    """
    children = [start(script, url, i) for i in range(3)]
    errors = [child.communicate(timeout=60)[1] for child in children]
    assert [child.returncode for child in children] == [0, 0, 0], errors
    database = open_database(url)
    with database.begin() as connection:
        assert set(connection.execute(select(tables.settings.c.name)).scalars()) == {"0", "1", "2"}
        assert connection.execute(text("SELECT count(*) FROM alembic_version")).scalar() == 1
    database.close()


@pytest.mark.parametrize("acknowledged", [5, 17])
def test_kill_9_loses_no_acknowledged_trajectory_and_leaves_no_half(url: str, acknowledged: int) -> None:
    script = """
        import asyncio, sys
        from test_storage import make_bank, trajectory
        from agentcascade.storage import open_database
        bank = make_bank(open_database(sys.argv[1]))
        for i in range(100_000):
            asyncio.run(bank.add(trajectory(i, steps=40)))
            print(i, flush=True)
    """
    child = start(script, url)
    known = [int(child.stdout.readline()) for _ in range(acknowledged)]
    os.kill(child.pid, signal.SIGKILL)
    known += [
        int(line) for line in child.stdout.read().split()
    ]  # communicate() would pass over what readline() buffered
    child.wait(timeout=120)
    assert child.returncode == -signal.SIGKILL
    database = open_database(url)
    banked = {t.id: t for t in Catalog(database).all()}
    assert {f"t{i}" for i in known} <= set(banked)
    assert len(banked) <= len(known) + 1  # the one whose acknowledgement the kill cut off
    for i, found in enumerate(sorted(banked.values(), key=lambda t: int(t.id[1:]))):
        assert found.steps == trajectory(i, steps=40).steps
    with database.begin() as connection:
        keys = set(connection.execute(select(tables.steps.c.observation_key)).scalars())
        assert keys <= set(connection.execute(select(tables.embeddings.c.key)).scalars())
    database.close()


async def test_a_bank_sees_what_another_process_adds_and_removes(database: Database, url: str) -> None:
    other_database = open_database(url)
    mine, other = make_bank(database), make_bank(other_database)
    wanted = Situation(goal="find 1", observation="room 1 shelf 1")
    assert (await mine.retrieve(wanted, 2)).demonstrations == []
    assert await other.add_many([trajectory(1), trajectory(2)]) == [True, True]
    await mine.refresh()
    assert [d.trajectory for d in (await mine.retrieve(wanted, 2)).demonstrations] == ["t1", "t2"]
    Catalog(other_database).remove("t1")
    await mine.refresh()
    assert [d.trajectory for d in (await mine.retrieve(wanted, 2)).demonstrations] == ["t2"]
    other_database.close()


async def test_one_bad_trajectory_keeps_the_whole_batch_out(database: Database) -> None:
    bank = make_bank(database)
    await bank.add(trajectory(1))
    with pytest.raises(BankError, match="'t1'"):
        await bank.add_many([trajectory(2), trajectory(1, steps=2)])
    assert [e.id for e in Catalog(database).list()] == ["t1"]


async def test_removal_and_pruning_leave_no_orphans(database: Database) -> None:
    bank, catalog = make_bank(database), Catalog(database)
    await bank.add_many([trajectory(i) for i in range(5)])
    catalog.remove("t0")
    assert catalog.prune(keep=1) == 3
    assert catalog.counts() == {"default": (1, 3)}
    with database.begin() as connection:
        assert len(connection.execute(select(tables.steps)).all()) == 3
        assert len(connection.execute(select(tables.embeddings)).all()) == 4  # a goal and three observations
    assert catalog.prune(keep=0) == 1
    with database.begin() as connection:
        assert connection.execute(select(tables.embeddings)).all() == []


def decision(episode, answered_by, dollars, teacher_dollars="0.010", role=None):
    price = Decimal(dollars) if dollars is not None else None
    usage = Usage(input=10, cached_input=4, cache_write=3, cache_write_1h=1, output=5, reasoning=2)
    call = Call(role=role or answered_by, model=f"{answered_by}-model", usage=usage, dollars=price)
    return Decision(
        episode=episode,
        step=0,
        mode="cascade",
        answered_by=answered_by,
        reason="agreement 3/3",
        agreement=1.0,
        votes={"look\0": 3},
        calls=(call,),
        dollars=price,
        teacher_dollars=Decimal(teacher_dollars),
    )


def test_the_ledger_adds_up(database: Database) -> None:
    recorder = DatabaseRecorder(database)
    for made in (decision("e1", "student", "0.000000000001"), decision("e1", "teacher", "0.004")):
        recorder.record(made)
    recorder.record(decision("e2", "student", None))
    recorder.record_end(EpisodeEnd(episode="e1", goal="g", mode="cascade", success=True, steps=2, started_at=now()))
    recorder.close()
    ledger = Ledger(database)
    (total,) = ledger.summary()
    assert (total.steps, total.deferred, total.unpriced_calls) == (3, 1, 1)
    assert total.dollars is None
    assert total.known_dollars == Decimal("0.004000000001")
    assert total.usage == Usage(input=30, cached_input=12, cache_write=9, cache_write_1h=3, output=15, reasoning=6)
    first, second = ledger.summary("episode")
    assert (first.group, first.dollars) == ("e1", Decimal("0.004000000001"))
    assert first.saved_dollars == Decimal("0.015999999999")
    assert (second.group, second.dollars, second.saved_dollars) == ("e2", None, None)
    assert [(s.role, s.model, s.calls, s.dollars) for s in ledger.spending()] == [
        ("student", "student-model", 2, None),
        ("teacher", "teacher-model", 1, Decimal("0.004")),
    ]
    with database.begin() as connection:
        (episode,) = connection.execute(select(tables.episodes)).mappings()
    assert (episode["id"], episode["success"], episode["started_at"].utcoffset().seconds) == ("e1", True, 0)


def test_a_newer_database_is_left_alone(database: Database, url: str) -> None:
    with database.begin(write=True) as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(NewerDatabase, match=r"9999.*pip install -U agentcascade"):
        open_database(url)


@pytest.mark.parametrize("content", [b"this is no database at all" * 100, b"SQLite format 3\0" + b"\xff" * 4096])
def test_a_corrupt_file_is_named_and_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.db"
    path.write_bytes(content)
    with pytest.raises(CorruptDatabase, match=r"broken\.db.*restore a backup"):
        open_database(path)
    assert path.read_bytes() == content


def test_a_damaged_page_is_an_error_when_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "damaged.db"
    open_database(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    content = bytearray(path.read_bytes())
    content[4096:] = b"\x5a" * (len(content) - 4096)
    path.write_bytes(content)
    with pytest.raises(CorruptDatabase):
        Catalog(open_database(path)).list()


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"nowhere.*create it"):
        open_database(tmp_path / "nowhere" / "a.db")


def test_a_path_that_cannot_be_opened_is_an_error_with_the_path(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=f"{tmp_path.name} cannot be opened.*permissions"):
        open_database(tmp_path)


@pytest.mark.parametrize("bad", ["mysql://u:hidden-word@host/db", "postgresql://u:hidden-word@host:port/db"])
def test_an_unusable_url_is_refused_without_its_password(bad: str) -> None:
    with pytest.raises(ConfigError) as raised:
        open_database(bad)
    assert "bank.url" in str(raised.value)
    assert "hidden-word" not in str(raised.value)


def test_an_unreachable_server_is_an_error_without_the_password() -> None:
    pytest.importorskip("psycopg")
    with pytest.raises(StorageError) as raised:
        open_database("postgresql://someone:hidden-word@127.0.0.1:1/db")
    assert "is the server running" in str(raised.value)
    assert "hidden-word" not in str(raised.value)


def test_dollars_are_integers_on_disk(tmp_path: Path) -> None:
    database = open_database(tmp_path / "a.db")
    recorder = DatabaseRecorder(database)
    recorder.record(decision("e", "student", "0.000000000007"))
    recorder.close()
    raw = create_engine(f"sqlite:///{tmp_path}/a.db")
    with raw.connect() as connection:
        assert connection.execute(text("SELECT dollars, typeof(dollars) FROM calls")).one() == (7, "integer")
    raw.dispose()
    database.close()


def test_sqlite_commits_survive_a_power_loss(tmp_path: Path) -> None:
    database = open_database(tmp_path / "a.db")
    with database.begin() as connection:
        settings = {n: connection.exec_driver_sql(f"PRAGMA {n}").scalar() for n in ("journal_mode", "synchronous")}
        assert settings == {"journal_mode": "wal", "synchronous": 2}
        assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1
    database.close()


async def test_a_bank_in_memory_is_one_bank_for_all_threads() -> None:
    database = open_database("sqlite://")
    bank = make_bank(database)
    assert await bank.add(trajectory(1))
    assert len((await bank.retrieve(Situation(goal="find 1"), 3)).demonstrations) == 1
    database.close()
