"""Histories and recalls, on SQLite and on a real PostgreSQL: what is appended stays, what is recalled is billed."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from sqlalchemy import MetaData, func, select

from agentcascade.cli import main
from agentcascade.errors import InvalidRequest, StorageError
from agentcascade.ledger.dashboard import DashboardQueries
from agentcascade.ledger.ledger import DatabaseRecorder, Ledger, MemoryRecorder
from agentcascade.storage import Database, histories, open_database, tables
from agentcascade.storage import recorder as recording
from agentcascade.storage.histories import Histories, read_recalls, score_recall
from agentcascade.storage.retention import RetentionPolicy, prune
from agentcascade.types import Call, Decision, ModuleRun, Recall, Turn, Usage, now

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)


@pytest.fixture
def kept(database: Database) -> Histories:
    return Histories(database)


def turn(number: int, **values: Any) -> Turn:
    return Turn(**{"id": f"t{number}", "text": f"said {number}", "speaker": "Ann", "session": "s", "at": NOON} | values)


def texts(kept: Histories, namespace: str = "a", name: str = "h", after: int = -1) -> list[str]:
    return [t.text for _, t in kept.read(namespace, name, after)]


def rows(database: Database, *names: str) -> list[int]:
    with database.begin() as connection:
        return [
            connection.execute(select(func.count()).select_from(tables.metadata.tables[n])).scalar_one() for n in names
        ]


def test_turns_come_back_as_they_were_in_order(kept: Histories) -> None:
    said = [turn(n) for n in (2, 1, 3)]
    assert kept.append("a", "h", said[:2]) == 2
    assert kept.append("a", "h", said[2:]) == 1
    assert kept.read("a", "h") == [(0, said[0]), (1, said[1]), (2, said[2])]
    assert kept.read("a", "h", 1) == [(2, said[2])]
    assert kept.read("a", "h", 2) == []


def test_another_process_follows_what_is_appended(url: str, kept: Histories) -> None:
    other = open_database(url)
    kept.append("a", "h", [turn(1)])
    ((position, _),) = Histories(other).read("a", "h")
    kept.append("a", "h", [turn(2), turn(3)])
    assert texts(Histories(other), after=position) == ["said 2", "said 3"]
    other.close()


def test_namespaces_do_not_see_each_other(kept: Histories) -> None:
    kept.append("a", "h", [turn(1)])
    kept.append("b", "h", [turn(1, text="another's")])
    kept.append("b", "g", [turn(1), turn(2)])
    assert (texts(kept, "a"), texts(kept, "b"), texts(kept, "c")) == (["said 1"], ["another's"], [])
    assert (kept.names("a"), kept.names("b"), kept.names("c")) == (["h"], ["g", "h"], [])
    assert kept.sizes("b") == {"g": 2, "h": 1}
    assert not kept.remove("c", "h")
    assert kept.remove("a", "h")
    assert not kept.remove("a", "h")
    assert (kept.names("a"), texts(kept, "a"), texts(kept, "b")) == ([], [], ["another's"])


def test_a_removed_history_leaves_nothing_and_may_begin_again(database: Database, kept: Histories) -> None:
    kept.append("a", "h", [turn(n) for n in range(700)])
    kept.remove("a", "h")
    assert rows(database, "histories", "turns") == [0, 0]
    assert kept.append("a", "h", [turn(1)]) == 1


def test_what_is_there_already_is_passed_over(kept: Histories) -> None:
    said = [turn(n) for n in range(1200)]
    kept.append("a", "h", said[:1100])
    assert kept.append("a", "h", said) == 100
    assert kept.append("a", "h", [*said, said[0]]) == 0
    assert kept.append("a", "h", []) == 0
    assert kept.read("a", "h") == list(enumerate(said))


@pytest.mark.parametrize(
    ("changed", "word"),
    [({"text": "no"}, "text"), ({"speaker": "Bob"}, "speaker"), ({"session": "x", "at": None}, "session and at")],
)
def test_an_id_that_says_something_else_keeps_the_whole_batch_out(
    kept: Histories, changed: dict[str, Any], word: str
) -> None:
    kept.append("a", "h", [turn(1)])
    with pytest.raises(InvalidRequest, match=f"'h' has a turn 't1' with another {word}: .* an id of its own"):
        kept.append("a", "h", [turn(0), turn(1, **changed), turn(2)])
    with pytest.raises(InvalidRequest, match="'t3'"):
        kept.append("a", "h", [turn(3), turn(3, **changed)])
    assert texts(kept) == ["said 1"]


def test_a_refused_first_batch_makes_no_history(database: Database, kept: Histories) -> None:
    with pytest.raises(InvalidRequest):
        kept.append("a", "h", [turn(1), turn(1, text="no")])
    assert rows(database, "histories") == [0]


def test_times_without_a_zone_are_utc_and_others_are_kept_as_moments(kept: Histories) -> None:
    east = timezone(timedelta(hours=2))
    kept.append("a", "h", [turn(1, at=NOON.replace(tzinfo=None)), turn(2, at=NOON.astimezone(east)), turn(3, at=None)])
    assert [t.at for _, t in kept.read("a", "h")] == [NOON, NOON, None]
    assert {t.at.utcoffset() for _, t in kept.read("a", "h") if t.at} == {timedelta(0)}
    assert kept.append("a", "h", [turn(1), turn(2)]) == 0
    with pytest.raises(InvalidRequest, match=r"turn 't4': 0001-01-01 .* before the year 1"):
        kept.append("a", "h", [turn(4, at=datetime(1, 1, 1, tzinfo=east))])


def test_what_texts_cannot_hold_is_replaced_and_still_known_again(kept: Histories) -> None:
    odd = Turn(id="a\0\ud800", text="zero \0 half \ud83d whole 😀", speaker="\0", session="\udfff", at=NOON)
    assert kept.append("a\0", "h\ud800", [odd]) == 1
    assert kept.append("a\0", "h\ud800", [odd]) == 0
    ((_, found),) = kept.read("a\0", "h\ud800")
    assert found == Turn(id="a\ufffd?", text="zero \ufffd half ? whole 😀", speaker="\ufffd", session="?", at=NOON)
    assert kept.remove("a\0", "h\ud800")


@pytest.mark.parametrize(
    ("namespace", "name", "id", "message"),
    [
        ("", "h", "t", "a namespace's name has 1 to 200 characters, not 0"),
        ("a", "h" * 201, "t", "a history's name has 1 to 200 characters, not 201: 'hhh"),
        ("a", "h", "", "a turn's id has 1 to 300 characters, not 0"),
        ("a", "h", "t" * 301, "a turn's id has 1 to 300 characters, not 301: 'ttt"),
    ],
)
def test_names_that_do_not_fit_are_refused(kept: Histories, namespace: str, name: str, id: str, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        kept.append(namespace, name, [Turn(id=id, text="x")])


def test_the_longest_names_fit(kept: Histories) -> None:
    space, name = "😀" * 200, "ß" * 200
    long = Turn(id="😀" * 300, text="x" * 3_000_000, speaker="y" * 5000, session="z" * 5000)
    kept.append(space, name, [long])
    assert kept.read(space, name) == [(0, long)]


def test_writers_at_once_lose_nothing_and_readers_miss_nothing(url: str) -> None:
    opened = [open_database(url) for _ in range(3)]
    writing, found = threading.Event(), list[tuple[int, Turn]]()
    writing.set()

    def write(number: int) -> None:
        own = Histories(opened[number % 2])
        for n in range(15):
            own.append("a", "h", [turn(0), turn(1000 * number + 2 * n + 1), turn(1000 * number + 2 * n + 2)])

    def follow() -> None:
        done = False
        while not done:
            done = not writing.is_set()
            found.extend(Histories(opened[2]).read("a", "h", found[-1][0] if found else -1))

    errors = at_once(*(lambda n=n: write(n) for n in range(1, 5)), beside=follow, stop=writing.clear)
    assert errors == []
    assert [position for position, _ in found] == list(range(121))
    assert len({t.id for _, t in found}) == 121
    assert found == Histories(opened[0]).read("a", "h")
    for database in opened:
        database.close()


def at_once(*work: Callable[[], Any], beside: Callable[[], Any], stop: Callable[[], Any]) -> list[Exception]:
    """Errors of all, started together; `beside` runs until it sees that `stop` was called."""
    errors: list[Exception] = []

    def one(task: Callable[[], Any]) -> None:
        try:
            task()
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=one, args=(task,)) for task in (beside, *work)]
    for thread in threads:
        thread.start()
    for thread in threads[1:]:
        thread.join(60)
    stop()
    threads[0].join(60)
    assert not any(thread.is_alive() for thread in threads)
    return errors


def test_appending_to_one_history_does_not_wait_for_another(postgres_url: str) -> None:
    """SQLite has one writer at a time, whatever it writes; a server need not."""
    database = open_database(postgres_url)
    kept = Histories(database)
    kept.append("a", "h", [turn(1)])
    with database.begin(write=True) as connection:
        histories._locked(connection, "a", "h")
        other = threading.Thread(target=kept.append, args=("a", "g", [turn(1)]))
        other.start()
        other.join(60)
        assert not other.is_alive()
    assert kept.names("a") == ["g", "h"]
    database.close()


def call(dollars: str | None = "0.002", **values: Any) -> Call:
    usage = Usage(input=100, cached_input=20, cache_write=3, output=10, reasoning=4)
    price = None if dollars is None else Decimal(dollars)
    return Call(**{"role": "student", "purpose": "memory", "model": "mini", "usage": usage, "dollars": price} | values)


def recall(number: int, *calls: Call, **values: Any) -> Recall:
    runs = (
        ModuleRun(module="filter", asked="mid", used="mid", probability=0.7, milliseconds=1.5, items=4),
        ModuleRun(
            module="summary", asked="high", used="low", probability=0.1, dollars=Decimal("0.002"), failures=("Timeout",)
        ),
    )
    bill = [c.dollars for c in calls]
    made = {
        "id": f"re_{number}",
        "history": "h",
        "namespace": "a",
        "question": "where is the mug?",
        "text": "- on the desk",
        "sources": ("t1", "t9"),
        "tokens": 5,
        "runs": runs,
        "left_out": ("deadline: topic",),
        "calls": calls,
        "dollars": None if None in bill else sum((d for d in bill if d is not None), Decimal(0)),
        "seconds": 0.25,
        "router": "fixed",
        "tradeoff": 0.3,
        "created_at": NOON + timedelta(minutes=number),
    }
    return Recall(**made | values)


def decision(number: int, *calls: Call, answered_by: str = "student", **values: Any) -> Decision:
    made = {
        "id": f"de_{number}",
        "namespace": "a",
        "episode": "e1",
        "step": number,
        "mode": "cascade",
        "answered_by": answered_by,
        "reason": "r",
        "calls": calls,
        "dollars": sum((c.dollars for c in calls if c.dollars is not None), Decimal(0)),
        "teacher_dollars": Decimal("0.05"),
        "created_at": NOON,
    }
    return Decision(**made | values)


def record(database: Database, *entries: Recall | Decision) -> None:
    recorder = DatabaseRecorder(database)
    for entry in entries:
        if isinstance(entry, Recall):
            recorder.record_recall(entry)
        else:
            recorder.record(entry)
    recorder.close()


def test_recalls_are_logged_as_they_were_but_for_their_texts(database: Database) -> None:
    made = [recall(n, call(), decision="de_1" if n == 2 else "", episode="e") for n in (3, 1, 2)]
    record(database, *made)
    plain = [r.model_copy(update={"text": "", "calls": ()}) for r in sorted(made, key=lambda r: r.created_at)]
    assert list(read_recalls(database)) == [(r, None) for r in plain]
    first, *_ = read_recalls(database)
    assert first[0].tiers == {"filter": "mid", "summary": "high"}
    assert rows(database, "recalls", "recall_calls", "calls") == [3, 2, 0], "a step's calls are in its decision"


def test_the_log_is_read_in_pages_by_namespace_and_time(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(histories, "PAGE", 3)
    same = {"created_at": NOON}
    record(database, *(recall(n, namespace="ab"[n % 2], **(same if n < 7 else {})) for n in range(12)))
    assert len({r.id for r, _ in read_recalls(database)}) == len(list(read_recalls(database))) == 12
    assert [r.id for r, _ in read_recalls(database, namespace="b")] == [f"re_{n}" for n in (1, 3, 5, 7, 9, 11)]
    assert [r.id for r, _ in read_recalls(database, since=NOON + timedelta(minutes=9))] == ["re_9", "re_10", "re_11"]
    assert list(read_recalls(database, namespace="c")) == []


def test_a_recall_is_scored_when_feedback_comes(database: Database) -> None:
    record(database, recall(1), recall(2))
    score_recall(database, "re_1", 0.25)
    score_recall(database, "re_1", 1, namespace="a")
    assert [(r.id, score) for r, score in read_recalls(database)] == [("re_1", 1.0), ("re_2", None)]
    for id, namespace in (("re_9", None), ("re_1", "b")):
        with pytest.raises(InvalidRequest, match=f"no recall '{id}'"):
            score_recall(database, id, 0, namespace=namespace)
    with pytest.raises(InvalidRequest, match=r"a finite number, .* not nan"):
        score_recall(database, "re_1", float("nan"))
    record(database, recall(1))
    assert next(read_recalls(database))[1] == 1.0, "a record that comes twice leaves the score"


def test_a_recall_written_twice_is_billed_once(database: Database) -> None:
    record(database, recall(1, call()), recall(1, call()))
    record(database, recall(1, call()))
    assert rows(database, "recalls", "recall_calls") == [1, 1]


def test_recalls_outlive_a_failing_database(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording, "RETRY_SECONDS", 0.01)
    begin = Database.begin

    @contextmanager
    def broken(self: Database, *, write: bool = False, **patience: Any) -> Iterator[Any]:
        raise StorageError("the disk is full")
        yield

    monkeypatch.setattr(Database, "begin", broken)
    spill = tmp_path / "spill.jsonl"
    recorder = DatabaseRecorder(database, spill)
    recorder.record_recall(recall(1, call(), call(None)))
    recorder.close()
    (line,) = spill.read_text().splitlines()
    assert json.loads(line)["question"] == "where is the mug?"
    assert "on the desk" not in line
    monkeypatch.setattr(Database, "begin", begin)
    DatabaseRecorder(database, spill).close()
    ((found, _),) = read_recalls(database)
    assert found == recall(1, text="", dollars=None)
    assert rows(database, "recall_calls") == [2]
    assert not spill.exists()


def test_odd_characters_in_a_question_lose_no_recall(database: Database) -> None:
    broken = ModuleRun(module="topic", asked="high", used=None, failures=("half \ud800", "zero \0"))
    record(database, recall(1, question="zero \0", runs=(broken,)), recall(2, question="half \ud800"), recall(3))
    assert [r.id for r, _ in read_recalls(database)] == ["re_1", "re_2", "re_3"]
    assert next(read_recalls(database))[0].runs == (broken,), "JSON has words for both"


def test_a_recall_s_question_may_be_long_and_its_history_have_any_name(database: Database) -> None:
    record(database, recall(1, question="q" * 100_000, history="h" * 5000))
    assert len(next(read_recalls(database))[0].question) == 100_000


def test_the_memory_recorder_keeps_recalls() -> None:
    recorder = MemoryRecorder()
    recorder.record_recall(recall(1))
    assert recorder.recalls == [recall(1)]


@pytest.fixture
def billed(database: Database) -> Database:
    """Two steps, one with a memory of $0.003 in it, and three recalls that nobody's step asked for."""
    act = call("0.010", role="teacher", purpose="act", model="big")
    record(
        database,
        decision(1, call("0.003"), call("0.001", purpose="sample")),
        recall(1, call("0.003"), episode="e1", decision="de_1"),
        decision(2, act, answered_by="teacher", namespace="b", episode="e2"),
        recall(2, call("0.000000000007"), call("0.002"), episode="e1"),
        recall(3, call("0.004", model="other"), namespace="b", created_at=NOON + timedelta(days=9)),
        recall(4, namespace="c"),
    )
    return database


def test_the_bill_of_memory_by_hand(billed: Database) -> None:
    ledger = Ledger(billed)
    (total,) = ledger.summary()
    assert (total.steps, total.deferred, total.unpriced_calls) == (2, 1, 0)
    assert total.dollars == Decimal("0.020000000007")  # 0.003 + 0.001 + 0.010 + 0.000000000007 + 0.002 + 0.004
    assert (total.teacher_dollars, total.saved_dollars) == (Decimal("0.1"), Decimal("0.079999999993"))
    assert total.usage == Usage(input=600, cached_input=120, cache_write=18, output=60, reasoning=24)
    assert {s.group: (s.steps, s.dollars) for s in ledger.summary("namespace")} == {
        "a": (1, Decimal("0.006000000007")),
        "b": (1, Decimal("0.014")),
    }
    assert {s.group: (s.steps, s.dollars, s.teacher_dollars) for s in ledger.summary("mode")} == {
        "cascade": (2, Decimal("0.014"), Decimal("0.1")),
        "memory": (0, Decimal("0.006000000007"), Decimal(0)),
    }
    assert [(s.group, s.steps, s.dollars, s.saved_dollars) for s in ledger.summary("episode")] == [
        ("", 0, Decimal("0.004"), Decimal("-0.004")),
        ("e1", 1, Decimal("0.006000000007"), Decimal("0.043999999993")),
        ("e2", 1, Decimal("0.010"), Decimal("0.04")),
    ]
    assert ledger.episode_dollars("cascade") == Decimal("0.0080000000035")


def test_what_models_cost_includes_memory(billed: Database) -> None:
    ledger = Ledger(billed)
    assert [(s.role, s.model, s.calls, s.dollars, s.usage.input) for s in ledger.spending()] == [
        ("student", "mini", 4, Decimal("0.006000000007"), 400),
        ("student", "other", 1, Decimal("0.004"), 100),
        ("teacher", "big", 1, Decimal("0.010"), 100),
    ]
    assert [(s.model, s.calls) for s in ledger.spending(namespace="b")] == [("other", 1), ("big", 1)]
    assert [s.model for s in ledger.spending(since=NOON + timedelta(days=8))] == ["other"]
    (late,) = ledger.summary(since=NOON + timedelta(days=8))
    assert (late.steps, late.dollars) == (0, Decimal("0.004"))
    assert ledger.summary(namespace="c") == [], "a recall without chat models costs nothing"


def test_a_recall_without_a_price_makes_the_bill_unknown(database: Database) -> None:
    record(database, decision(1, call("0.001")), recall(1, call(None), call("0.002")))
    (total,) = Ledger(database).summary()
    assert (total.dollars, total.known_dollars, total.unpriced_calls) == (None, Decimal("0.003"), 1)
    totals = DashboardQueries(database).totals(namespace=None, since=NOON - timedelta(days=1))
    assert (totals.dollars, totals.known_dollars, totals.unpriced_calls) == (None, Decimal("0.003"), 1)


def test_the_dashboard_shows_the_ledger_s_figures(billed: Database) -> None:
    insights, since = DashboardQueries(billed), NOON - timedelta(days=1)
    for namespace in (None, "a", "b"):
        totals = insights.totals(namespace=namespace, since=since)
        (line,) = Ledger(billed).summary(namespace=namespace, since=since)
        assert (totals.steps, totals.dollars) == (line.steps, line.dollars)
        assert (totals.teacher_dollars, totals.saved_dollars) == (line.teacher_dollars, line.saved_dollars)
        assert totals.known_saved_dollars == line.saved_dollars
    assert insights.totals(namespace="c", since=since).dollars == 0


def test_a_bucket_of_recalls_alone_has_a_bill(database: Database) -> None:
    at = now()
    record(
        database,
        decision(1, call("0.001"), created_at=at - timedelta(days=2)),
        recall(1, call("0.002"), created_at=at - timedelta(days=2)),
        recall(2, call("0.004"), created_at=at),
    )
    points = DashboardQueries(database).spending("day", namespace="a", since=at - timedelta(days=2))
    assert [(p.steps, p.dollars, p.teacher_dollars, p.saved_dollars) for p in points] == [
        (1, Decimal("0.003"), Decimal("0.05"), Decimal("0.047")),
        (0, Decimal(0), Decimal(0), Decimal(0)),
        (0, Decimal("0.004"), Decimal(0), Decimal("-0.004")),
    ]


def test_the_ledger_of_the_command_line_names_memory(billed: Database, url: str) -> None:
    shown = CliRunner().invoke(main, ["ledger", "--url", url], env={"COLUMNS": "200"})
    assert shown.exit_code == 0, shown.output
    (line,) = (row.split() for row in shown.output.splitlines() if row.startswith("memory"))
    assert line == ["memory", "0", "0.0%", "$0.0060", "$0.0000", "$-0.0060"]
    by_episode = CliRunner().invoke(main, ["ledger", "--by", "episode", "--url", url], env={"COLUMNS": "200"})
    assert "(no episode)" in by_episode.output


def test_old_recalls_go_with_their_calls_and_histories_stay(database: Database, url: str) -> None:
    Histories(database).append("a", "h", [turn(1, at=NOON - timedelta(days=10_000))])
    ages = (100, 91, 89, 0)
    record(database, *(recall(n, call(), created_at=now() - timedelta(days=age)) for n, age in enumerate(ages)))
    assert prune(database, RetentionPolicy(recalls=None)).recalls == 0
    assert prune(database, RetentionPolicy(), dry_run=True).recalls == 2
    assert rows(database, "recalls", "recall_calls") == [4, 4]
    shown = CliRunner().invoke(main, ["db", "prune", "--recalls-days", "95", "--url", url], env={"COLUMNS": "200"})
    assert "1 recalls" in shown.output
    assert prune(database, RetentionPolicy()).recalls == 1
    assert rows(database, "recalls", "recall_calls", "histories", "turns") == [2, 2, 1, 1]


def test_a_database_of_the_last_release_gets_memory_and_keeps_its_bill(url: str) -> None:
    from alembic import command
    from alembic.config import Config

    from agentcascade.storage.engine import new_engine
    from agentcascade.storage.upgrade import MIGRATIONS

    engine = new_engine(url)
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    with engine.execution_options(immediate=True).connect() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0002")
        old = MetaData()
        old.reflect(connection)
        assert "recalls" not in old.tables
        made = decision(1, call("0.000000000007")).model_dump(exclude={"calls"})
        plain = {"votes": {}, "demonstrations": [], "failures": [], "dollars": 7, "teacher_dollars": 5 * 10**10}
        connection.execute(old.tables["decisions"].insert(), made | plain)
        bill = call().model_dump(exclude={"usage"}) | call().usage.model_dump()
        connection.execute(old.tables["calls"].insert(), bill | {"decision": "de_1", "dollars": 7})
        connection.commit()
    engine.dispose()
    opened = open_database(url)
    record(opened, recall(1, call("0.002")))
    Histories(opened).append("a", "h", [turn(1)])
    (total,) = Ledger(opened).summary()
    assert (total.steps, total.dollars) == (1, Decimal("0.002000000007"))
    assert texts(Histories(opened)) == ["said 1"]
    opened.close()
