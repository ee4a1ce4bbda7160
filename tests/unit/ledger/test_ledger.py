"""The ledger: exact money, and records that survive a database that will not take them."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select
from sqlalchemy.dialects import sqlite

from agentcascade.cli.ledger import command
from agentcascade.errors import InvalidRequest, StorageError
from agentcascade.ledger.ledger import DatabaseRecorder, Ledger, MemoryRecorder, break_even
from agentcascade.models.pricing import PriceTable
from agentcascade.storage import Database, open_database, tables
from agentcascade.storage import recorder as recording
from agentcascade.storage.spill import SpillFile
from agentcascade.storage.tables import Dollars
from agentcascade.types import Call, Decision, EpisodeEnd, Usage, now


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = open_database(tmp_path / "ledger.db")
    yield opened
    opened.close()


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "RETRY_SECONDS", 0.01)


def decision(number=0, **values):
    call = Call(role="student", model="cheap", usage=Usage(input=100, output=10), dollars=Decimal("0.001"))
    made = {
        "id": f"d{number}",
        "episode": "e",
        "step": number,
        "mode": "cascade",
        "answered_by": "student",
        "reason": "agreement 3/3",
        "calls": (call,),
        "dollars": Decimal("0.001"),
        "teacher_dollars": Decimal("0.01"),
    }
    return Decision(**made | values)


def ids(database):
    with database.begin() as connection:
        return set(connection.execute(select(tables.decisions.c.id)).scalars())


def beside(database: Database, name: str) -> Path:
    """A file in the database's folder."""
    assert database.path is not None
    return database.path.with_name(name)


class Faulty(Database):
    """A database whose transactions fail while `broken`."""

    def __init__(self, database: Database) -> None:
        self.real, self.engine, self.broken = database, database.engine, True

    @contextmanager
    def begin(self, *, write=False, **patience):
        if self.broken:
            raise StorageError("the disk is full")
        with self.real.begin(write=write, **patience) as connection:
            yield connection


MOST = Decimal(2**63 - 1).scaleb(-12)
picos = st.integers(-(2**63 - 1), 2**63 - 1)


@given(picos)
def test_dollars_come_back_exactly(pico: int) -> None:
    column, value = Dollars(), Decimal(pico).scaleb(-12)
    stored = column.process_bind_param(value, sqlite.dialect())
    assert stored == pico
    assert column.process_result_value(stored, sqlite.dialect()) == value


@given(st.decimals() | st.decimals(-8_000_000, 8_000_000, places=13))
def test_dollars_are_stored_exactly_or_refused(value: Decimal) -> None:
    column, exact = Dollars(), value.is_finite() and abs(value) <= MOST and value == round(value, 12)
    with nullcontext() if exact else pytest.raises(ValueError, match="cannot be stored exactly"):
        stored = column.process_bind_param(value, sqlite.dialect())
        assert column.process_result_value(stored, sqlite.dialect()) == value


@pytest.mark.parametrize("bad", ["0.0000000000001", "9223372.036854775808", "NaN", "Infinity", "1e999999"])
def test_dollars_that_do_not_fit_are_refused(bad: str) -> None:
    with pytest.raises(ValueError, match="cannot be stored exactly"):
        Dollars().process_bind_param(Decimal(bad), sqlite.dialect())


def test_an_unknown_price_stays_unknown() -> None:
    assert Dollars().process_bind_param(None, sqlite.dialect()) is None
    assert Dollars().process_result_value(None, sqlite.dialect()) is None


def test_what_is_recorded_is_durable_after_flush(database: Database) -> None:
    recorder = DatabaseRecorder(database)
    for i in range(1200):
        recorder.record(decision(i))
    recorder.flush()
    assert len(ids(database)) == 1200
    with database.begin() as connection:
        row = connection.execute(select(tables.decisions).where(tables.decisions.c.id == "d7")).mappings().one()
    assert (row["dollars"], row["step"], row["created_at"].utcoffset()) == (Decimal("0.001"), 7, timedelta(0))
    recorder.close()
    recorder.close()


def test_recording_costs_next_to_nothing(database: Database) -> None:
    recorder = DatabaseRecorder(database)
    made = [decision(i) for i in range(500)]
    seconds = []
    for one in made:
        started = time.thread_time()
        recorder.record(one)
        seconds.append(time.thread_time() - started)
    recorder.close()
    assert sorted(seconds)[250] < 200e-6


def test_a_record_written_twice_counts_once(database: Database) -> None:
    recorder = DatabaseRecorder(database)
    recorder.record(decision())
    recorder.flush()
    recorder.record(decision())
    recorder.close()
    (line,) = Ledger(database).summary()
    assert (line.steps, line.known_dollars) == (1, Decimal("0.001"))


def test_records_outlive_a_failing_database(database: Database, caplog: pytest.LogCaptureFixture) -> None:
    faulty = Faulty(database)
    recorder = DatabaseRecorder(faulty)
    recorder.record(decision(1, reason="line\u2028break"))
    recorder.record_end(EpisodeEnd(episode="e", goal="g", mode="cascade", success=None, steps=1, started_at=now()))
    recorder.flush()
    assert "the disk is full" in caplog.text
    spill = beside(database, "ledger.db.spill.jsonl")
    assert spill.exists()
    faulty.broken = False
    recorder.record(decision(2))
    recorder.close()
    assert ids(database) == {"d1", "d2"}
    assert not spill.exists()


def test_the_next_recorder_takes_in_what_an_earlier_one_spilled(database: Database) -> None:
    faulty = Faulty(database)
    first = DatabaseRecorder(faulty)
    first.record(decision(1))
    first.close()
    first.record(decision(2))
    assert ids(database) == set()
    DatabaseRecorder(database).close()
    assert ids(database) == {"d1", "d2"}


def test_a_full_queue_spills_rather_than_waits(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "MAX_WAITING", 3)
    monkeypatch.setattr(recording, "RETRY_SECONDS", 0.3)
    faulty = Faulty(database)
    recorder = DatabaseRecorder(faulty)
    for i in range(10):
        recorder.record(decision(i))
    recorder.close()
    DatabaseRecorder(database).close()
    assert ids(database) == {f"d{i}" for i in range(10)}


def test_a_record_that_does_not_fit_is_set_aside_alone(database: Database, caplog: pytest.LogCaptureFixture) -> None:
    recorder = DatabaseRecorder(database)
    for i in range(5):
        recorder.record(decision(i, dollars=Decimal("0.00000000000001") if i == 3 else None))
    recorder.close()
    assert ids(database) == {"d0", "d1", "d2", "d4"}
    (line,) = beside(database, "ledger.db.spill.jsonl.rejected").read_text().splitlines()
    assert json.loads(line)["id"] == "d3"
    assert "cannot be stored exactly" in caplog.text


def test_a_torn_line_of_the_spill_does_not_hold_up_the_others(database: Database) -> None:
    spill = beside(database, "ledger.db.spill.jsonl")
    spill.write_text(decision(1).model_dump_json()[:40])
    SpillFile(spill).put([decision(2).model_dump_json()])
    DatabaseRecorder(database).close()
    assert ids(database) == {"d2"}
    assert not spill.exists()


def test_lines_stay_in_the_spill_until_they_are_used(tmp_path: Path) -> None:
    spill = SpillFile(tmp_path / "s.jsonl")
    seen: list[str] = []
    spill.put(["a", "b"])

    def fail(lines):
        raise StorageError("no")

    with pytest.raises(StorageError):
        spill.take(fail)
    spill.put(["c"])

    def use(lines):
        seen.extend(line.decode().strip() for line in lines)
        return ["again"] if len(seen) == 3 else []

    spill.take(use)
    assert spill.path.read_text() == "again\n"
    spill.take(use)
    assert seen == ["a", "b", "c", "again"]
    assert not spill.path.exists()


def test_the_summary_groups_and_filters(database: Database) -> None:
    recorder, start = DatabaseRecorder(database), now()
    for i in range(4):
        values = {"namespace": "ab"[i % 2], "created_at": start - timedelta(days=i)}
        recorder.record(decision(i, answered_by="teacher" if i == 3 else "student", **values))
    recorder.close()
    ledger = Ledger(database)
    assert [(s.group, s.steps, s.deferral_share) for s in ledger.summary("namespace")] == [("a", 2, 0.0), ("b", 2, 0.5)]
    assert [s.steps for s in ledger.summary(since=start - timedelta(days=1, hours=1))] == [2]
    (own,) = ledger.summary(namespace="b")
    assert (own.dollars, own.teacher_dollars, own.saved_dollars) == (
        Decimal("0.002"),
        Decimal("0.02"),
        Decimal("0.018"),
    )
    (spent,) = ledger.spending(namespace="b")
    assert (spent.calls, spent.usage.input, spent.dollars) == (2, 200, Decimal("0.002"))
    assert ledger.summary(namespace="none") == []
    with pytest.raises(InvalidRequest, match="did you mean 'mode'"):
        ledger.summary("model")


def test_an_unknown_price_makes_the_total_unknown_and_keeps_the_known_part(database: Database) -> None:
    recorder = DatabaseRecorder(database)
    unpriced = Call(role="teacher", model="private", usage=Usage(input=1), dollars=None)
    recorder.record(decision(1))
    recorder.record(decision(2, calls=(unpriced,), dollars=None, teacher_dollars=None))
    recorder.close()
    (line,) = Ledger(database).summary()
    assert (line.dollars, line.teacher_dollars, line.saved_dollars) == (None, None, None)
    assert (line.known_dollars, line.unpriced_calls) == (Decimal("0.001"), 1)
    assert {s.model: s.dollars for s in Ledger(database).spending()} == {"cheap": Decimal("0.001"), "private": None}


def test_one_step_that_fails_leaves_the_totals_known(database: Database) -> None:
    """A step that failed after something was paid is counted, and the rest is summed."""
    recorder = DatabaseRecorder(database)
    recorder.record(decision(1))
    recorder.record(decision(2, teacher_dollars=None))
    recorder.close()
    (line,) = Ledger(database).summary()
    assert (line.dollars, line.teacher_dollars, line.unestimated_steps) == (Decimal("0.002"), None, 1)
    assert (line.known_teacher_dollars, line.known_saved_dollars) == (Decimal("0.01"), Decimal("0.008"))
    shown = CliRunner().invoke(command, ["--url", f"sqlite:///{database.path}"]).output
    assert "≥ $0.0100" in shown
    assert "unknown" not in shown


def test_break_even_as_the_paper_counts_it() -> None:
    assert break_even(Decimal("29.50"), Decimal("0.059"), Decimal("0.024")) == pytest.approx(843, abs=0.5)
    assert break_even(Decimal("86.73"), Decimal("0.589"), Decimal("0.171")) == pytest.approx(207, abs=0.6)


@pytest.mark.parametrize("cascade", ["0.059", "0.060"])
def test_a_cascade_that_saves_nothing_never_pays_off(cascade: str) -> None:
    assert break_even(Decimal("29.50"), Decimal("0.059"), Decimal(cascade)) is None


def test_the_memory_recorder_keeps_what_it_gets() -> None:
    recorder = MemoryRecorder()
    recorder.record(decision())
    recorder.flush()
    recorder.close()
    assert [d.id for d in recorder.decisions] == ["d0"]


@pytest.mark.parametrize(
    ("spent", "alone", "saved"),
    [("0.00004305", "0.000018", "$-0.000025"), ("0.5", "1", "$0.5000"), ("0", "0", "$0.0000")],
)
def test_small_sums_are_no_zeros(database: Database, spent: str, alone: str, saved: str) -> None:
    call = Call(role="teacher", model="m", usage=Usage(input=1), dollars=Decimal(spent))
    recorder = DatabaseRecorder(database)
    recorder.record(decision(calls=(call,), dollars=Decimal(spent), teacher_dollars=Decimal(alone)))
    recorder.close()
    said = CliRunner().invoke(command, ["--url", f"sqlite:///{database.path}"]).output
    assert saved in said
    assert "$-0.0000 " not in said


def test_a_model_without_a_price_is_named_with_what_to_do(database: Database) -> None:
    call = Call(role="teacher", model="acme/one", usage=Usage(input=1), dollars=None)
    recorder = DatabaseRecorder(database)
    recorder.record(decision(calls=(call,), dollars=None, teacher_dollars=None))
    recorder.close()
    said = CliRunner().invoke(command, ["--url", f"sqlite:///{database.path}"]).output
    assert "no price is known of acme/one: set `price` of the model, or server.prices" in said
    (variable,) = re.findall(r"AGENTCASCADE_SERVER__PRICES='(.*?)'", said)
    given = PriceTable(json.loads(variable)).given("acme/one")
    assert given is not None
    assert given.dollars(Usage(input=500_000)) == 1
