"""The journal: what was recorded outlives the process that recorded it, is taken in once, and holds no secret."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import make_url, select

from agentcascade._util.files import append_to, write_atomically
from agentcascade.ledger.ledger import DatabaseRecorder
from agentcascade.redaction.recorder import WITHHELD, RedactingRecorder
from agentcascade.redaction.redactor import Redactor
from agentcascade.storage import Database, journal, open_database, tables
from agentcascade.storage.journal import Journal, state_folder
from agentcascade.storage.spill import SpillFile
from agentcascade.types import Call, Decision, Draft, EpisodeEnd, LoggedSample, Shadow, Usage, now

CHILD = """
import os, signal, sys
from decimal import Decimal
from agentcascade._util.files import append_to, write_atomically
from agentcascade.ledger.ledger import DatabaseRecorder
from agentcascade.storage import open_database
from agentcascade.types import Call, Decision, Draft, EpisodeEnd, Shadow, Usage, now
database = open_database(sys.argv[1])
recorder = DatabaseRecorder(database)
for i in range(int(sys.argv[2])):
    call = Call(role="teacher", model="m", usage=Usage(input=1), dollars=Decimal("0.01"))
    id = f"{sys.argv[3]}{i}"
    values = {"mode": "shadow", "answered_by": "teacher", "reason": "r", "calls": (call,)}
    recorder.record(Decision(id=id, episode=f"e{id}", step=0, **values))
    recorder.record_shadow(Shadow(decision=id, episode=f"e{id}", step=0))
    recorder.record_draft(Draft(namespace="n", episode=f"e{id}", position=0, goal="g", mode="collect", observation="o",
                           action="a"))
    recorder.record_end(EpisodeEnd(episode=f"e{id}", goal="g", mode="shadow", success=True, steps=1, started_at=now()))
    print(id, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = open_database(f"sqlite:///{tmp_path}/a.db")
    yield opened
    opened.close()


def killed(path: Path, count: int, name: str) -> list[str]:
    """Ids that a process answered before it was killed."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD, f"sqlite:///{path}", str(count), name], capture_output=True, text=True
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    return done.stdout.split()


def counts(database: Database) -> dict[str, int]:
    with database.begin() as connection:
        return {
            name: len(connection.execute(select(tables.metadata.tables[name])).all())
            for name in ("decisions", "calls", "shadows", "drafts", "episodes")
        }


def decision(id: str, **more: Any) -> Decision:
    call = Call(role="teacher", model="m", usage=Usage(input=1), dollars=Decimal("0.01"))
    values: dict[str, Any] = {"episode": "e", "step": 0, "mode": "teacher", "answered_by": "teacher", "reason": "r"}
    return Decision(id=id, calls=(call,), **values | more)


def test_what_was_recorded_before_a_kill_is_in_the_ledger_after_the_restart(database: Database, tmp_path: Path) -> None:
    lock = sqlite3.connect(tmp_path / "a.db", isolation_level=None)
    lock.execute("BEGIN IMMEDIATE")  # so that nothing but the journal can have taken the records
    answered = killed(tmp_path / "a.db", 40, "x")
    lock.execute("COMMIT")
    assert counts(database)["decisions"] == 0
    DatabaseRecorder(database).close()
    assert counts(database) == dict.fromkeys(("decisions", "calls", "shadows", "drafts", "episodes"), len(answered))
    assert not (tmp_path / "a.db.journal").exists(), "nothing is left over"


def test_several_that_start_at_once_take_each_record_in_once(database: Database, tmp_path: Path) -> None:
    lock = sqlite3.connect(tmp_path / "a.db", isolation_level=None)
    lock.execute("BEGIN IMMEDIATE")
    answered = killed(tmp_path / "a.db", 30, "x") + killed(tmp_path / "a.db", 30, "y")
    lock.execute("COMMIT")
    others = [open_database(f"sqlite:///{tmp_path}/a.db") for _ in range(4)]
    recorders = [DatabaseRecorder(other) for other in others]
    for recorder, other in zip(recorders, others):
        recorder.close()
        other.close()
    assert counts(database)["calls"] == len(answered) == 60


def test_files_of_a_living_process_are_left_to_it(database: Database, tmp_path: Path) -> None:
    living = Journal(tmp_path / "a.db.journal")
    segment = living.append(decision("d1").model_dump_json())
    DatabaseRecorder(database).close()
    assert counts(database)["decisions"] == 0
    living.done(segment, retain=True)
    DatabaseRecorder(database).close()
    assert counts(database)["decisions"] == 1


def test_a_journal_is_bounded_and_emptied_when_its_records_are_written(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(journal, "SEGMENT_BYTES", 1000)
    made = Journal(tmp_path / "j")
    segments = [made.append("x" * 99) for _ in range(35)]
    files = sorted((tmp_path / "j").iterdir())
    assert [f.stat().st_size for f in files if f.stat().st_size != 500] == [1000] * 3
    assert (tmp_path / "j").stat().st_mode & 0o777 == 0o700
    assert {f.stat().st_mode & 0o777 for f in files} == {0o600}
    for segment in segments:
        made.done(segment)
    assert [f.stat().st_size for f in (tmp_path / "j").iterdir()] == [0]
    made.close()
    assert not (tmp_path / "j").exists()


@pytest.mark.parametrize("damage", [b"\xff\xfe\n", b"\0" * 4096 + b"\n", b'{"id": "torn', b"[" * 100_000 + b"\n"])
def test_damage_in_a_left_file_costs_no_other_line(database: Database, tmp_path: Path, damage: bytes) -> None:
    good = [decision(id).model_dump_json().encode() + b"\n" for id in ("d1", "d2")]
    (tmp_path / "a.db.journal").mkdir()
    (tmp_path / "a.db.journal" / "1-a.journal.jsonl").write_bytes(good[0] + damage + b"\n" + good[1])
    (tmp_path / "a.db.spill.jsonl").write_bytes(damage + b"\n" + decision("d3").model_dump_json().encode() + b"\n")
    DatabaseRecorder(database).close()
    assert counts(database)["decisions"] == 3
    names = sorted(p.name for p in tmp_path.iterdir() if "journal" in p.name or "spill" in p.name)
    assert names == ([] if damage.startswith(b"\0") else ["a.db.spill.jsonl.rejected"])


def test_a_shadow_whose_decision_never_comes_holds_nothing_up(database: Database, tmp_path: Path) -> None:
    lost = Shadow(decision="gone", episode="e", step=0, created_at=now().replace(year=2020))
    late = Shadow(decision="d2", episode="e", step=0)
    lines = [x.model_dump_json() for x in (lost, late, decision("d1"))]
    (tmp_path / "a.db.spill.jsonl").write_text("\n".join(lines) + "\n")
    DatabaseRecorder(database).close()
    assert counts(database)["decisions"] == 1
    assert '"gone"' in (tmp_path / "a.db.spill.jsonl.rejected").read_text()
    recorder = DatabaseRecorder(database)
    recorder.record(decision("d2"))
    recorder.close()
    DatabaseRecorder(database).close()
    assert counts(database)["shadows"] == 1


def test_a_crash_does_not_bring_back_what_the_database_knows_better(database: Database, tmp_path: Path) -> None:
    early = now()
    recorder = DatabaseRecorder(database)
    draft = {"namespace": "n", "episode": "e", "goal": "g", "mode": "collect", "observation": "o"}
    recorder.record_end(EpisodeEnd(episode="e", namespace="n", goal="g", mode="collect", success=True, steps=1,
                                 started_at=early))  # fmt: skip
    recorder.record_draft(Draft(**draft | {"episode": "f"}, position=0, action="new"))
    recorder.record_draft(Draft(**draft | {"episode": "f"}, position=1, action="new"))
    recorder.close()
    left = [
        Draft(**draft, position=0, action="old", created_at=early),
        Draft(**draft | {"episode": "f"}, position=0, action="old", created_at=early),
        EpisodeEnd(episode="e", namespace="n", goal="g", mode="collect", success=False, steps=1, started_at=early,
                   finished_at=early),
    ]  # fmt: skip
    (tmp_path / "a.db.spill.jsonl").write_text("".join(x.model_dump_json() + "\n" for x in left))
    DatabaseRecorder(database).close()
    with database.begin() as connection:
        assert [r.action for r in connection.execute(select(tables.drafts))] == ["new", "new"]
        assert connection.execute(select(tables.episodes.c.success)).scalars().all() == [True]


@pytest.mark.parametrize("hooked", [True, False])
def test_nothing_unredacted_is_on_the_disk_at_any_time(database: Database, tmp_path: Path, hooked: bool) -> None:
    """With a hook, or long texts, the journal holds the bill alone until the texts are redacted, behind the answer."""
    reached, go_on = threading.Event(), threading.Event()

    def hook(text: str) -> str:
        reached.set()
        assert go_on.wait(60)
        return text.replace("Ann", "[person]")

    secret = "mail ann@example.com" + (" for Ann" if hooked else " x" * 5000)
    recorder = RedactingRecorder(DatabaseRecorder(database), Redactor(hooks=[hook] if hooked else []))
    recorder.record(decision("d1", action=secret, votes={secret: 3}, goal="Ann"))
    recorder.record_draft(Draft(namespace="n", episode="e", position=0, goal="Ann", mode="collect", observation=secret,
                           action="a"))  # fmt: skip
    recorder.record_shadow(Shadow(decision="d1", episode="e", step=0, samples=(LoggedSample(action=secret),)))
    if hooked:
        assert reached.wait(60)
        (left,) = (tmp_path / "a.db.journal").iterdir()
        kept = left.read_text()
        assert WITHHELD in kept
        assert kept.count('"dollars":"0.01"') == 1
        assert "ann@" not in kept
    go_on.set()
    recorder.flush()
    with database.begin() as connection:
        row = connection.execute(select(tables.decisions.c.action, tables.decisions.c.votes)).one()
    assert row.action.startswith("mail [email]")
    assert list(row.votes) == [row.action]
    for file in tmp_path.rglob("*"):
        assert not file.is_file() or b"ann@example" not in file.read_bytes()
    recorder.close()


def test_a_record_whose_texts_were_not_redacted_in_time_keeps_its_bill(database: Database, tmp_path: Path) -> None:
    stuck = threading.Event()

    def hook(text: str) -> str:
        stuck.wait(60)
        return text

    writer = DatabaseRecorder(database)
    RedactingRecorder(writer, Redactor(hooks=[hook])).record(decision("d1", action="secret"))
    (left,) = (tmp_path / "a.db.journal").iterdir()
    copied = left.read_bytes()
    other = tmp_path / "other"
    other.mkdir()
    (other / "b.db.journal").mkdir()
    (other / "b.db.journal" / "1-a.journal.jsonl").write_bytes(copied)
    restarted = open_database(f"sqlite:///{other}/b.db")
    DatabaseRecorder(restarted).close()
    assert counts(restarted)["calls"] == 1
    with restarted.begin() as connection:
        row = connection.execute(select(tables.decisions)).one()
    assert (row.id, row.action, row.reason) == ("d1", None, WITHHELD)
    restarted.close()
    stuck.set()
    writer.close()


def test_a_full_queue_leaves_records_in_the_journal_and_takes_them_in_later(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from agentcascade.storage import recorder as recording

    monkeypatch.setattr(recording, "MAX_WAITING", 3)
    lock = sqlite3.connect(tmp_path / "a.db", isolation_level=None)
    lock.execute("BEGIN IMMEDIATE")
    recorder = DatabaseRecorder(database)
    for i in range(50):
        recorder.record(decision(f"d{i}"))
    assert not (tmp_path / "a.db.spill.jsonl").exists(), "nobody waits for a disk before an answer"
    lock.execute("COMMIT")
    recorder.flush()
    recorder.record(decision("last"))
    recorder.close()
    DatabaseRecorder(database).close()
    assert counts(database)["decisions"] == 51


def test_a_journal_that_cannot_be_written_is_said_once_and_stops_nothing(
    database: Database, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "a.db.journal").write_text("a file is where the folder should be")
    recorder = DatabaseRecorder(database)
    for i in range(5):
        recorder.record(decision(f"d{i}"))
    recorder.close()
    assert counts(database)["decisions"] == 5
    assert caplog.text.count("cannot be written") == 1


class Named:
    """A database as far as its journal goes."""

    def __init__(self, url: str) -> None:
        self.path = None
        self.is_sqlite = url.startswith("sqlite")
        self.engine = type("Engine", (), {"url": make_url(url), "dialect": type("D", (), {"name": url.split(":")[0]})})


def test_a_server_has_its_journal_in_the_users_state_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    at: Callable[..., Any] = lambda url, *more: state_folder(Named(url), *more)  # type: ignore[arg-type]  # noqa: E731
    first = at("postgresql://u:secret@h/db")
    assert first.parent == tmp_path / "agentcascade"
    assert first == at("postgresql://other:pw@h/db"), "the same database, whoever asks"
    assert len({first, at("postgresql://h/b"), at("postgresql://g/db"), at("postgresql://h:1/db")}) == 4
    assert at("postgresql://h/db", tmp_path / "own").parent == tmp_path / "own"
    assert at("sqlite://") is None
    assert os.listdir(tmp_path) == []


def test_new_files_are_their_owners_alone_to_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    before = os.umask(0)
    try:
        database = open_database(f"sqlite:///{tmp_path}/a.db")
        recorder = DatabaseRecorder(database)
        recorder.record(decision("d1"))
        SpillFile(tmp_path / "s.jsonl").put(["x"])
        SpillFile(tmp_path / "s.jsonl").reject(["x"])
        write_atomically(tmp_path / "export.jsonl", "text")
        append_to(tmp_path / "run.jsonl").close()
        made = {p.name: p.stat().st_mode & 0o777 for p in tmp_path.rglob("*") if p.is_file()}
        recorder.close()
        database.close()
        (tmp_path / "export.jsonl").chmod(0o644)
        write_atomically(tmp_path / "export.jsonl", "other")
    finally:
        os.umask(before)
    assert {"a.db", "a.db-wal", "s.jsonl", "s.jsonl.rejected", "export.jsonl", "run.jsonl"} <= made.keys()
    assert set(made.values()) == {0o600}
    assert (tmp_path / "export.jsonl").stat().st_mode & 0o777 == 0o644, "a file that is there keeps its mode"
    (tmp_path / "a.db").chmod(0o644)
    for _ in range(2):
        open_database(f"sqlite:///{tmp_path}/a.db").close()
    assert caplog.text.count("can be read by other users") == 1
    assert (tmp_path / "a.db").stat().st_mode & 0o777 == 0o644


def test_a_folder_that_is_removed_while_it_is_made_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another cascade closes, and finds the folder empty: `Path.mkdir` says then that it exists."""
    journal, make = Journal(tmp_path / "a.journal"), Path.mkdir
    tries: list[Path] = []

    def racing(path: Path, *arguments: Any, **options: Any) -> None:
        tries.append(path)
        if len(tries) == 1:
            raise FileExistsError(17, "File exists", str(path))
        make(path, *arguments, **options)

    monkeypatch.setattr(Path, "mkdir", racing)
    assert journal.append("line") is not None
    assert len(tries) == 2
    journal.close()


def test_a_file_where_the_journal_should_be_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "a.journal").write_text("mine")
    assert Journal(tmp_path / "a.journal").append("line") is None
    assert "cannot be written" in caplog.text
