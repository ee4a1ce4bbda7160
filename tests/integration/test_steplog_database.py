"""The log of steps out of the database and into it: the same on SQLite and on a real PostgreSQL."""

from __future__ import annotations

import tracemalloc
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from agentcascade.ledger.ledger import DatabaseRecorder, Ledger
from agentcascade.models.pricing import Price, PriceTable
from agentcascade.steplog import database as steplog
from agentcascade.steplog.files import read_log, write_log
from agentcascade.steplog.types import LoggedStep, StudentSamples
from agentcascade.storage import Database, open_database, tables
from agentcascade.storage.record_rows import write_records
from agentcascade.types import Call, Decision, EpisodeEnd, LoggedSample, Shadow, Usage

START = datetime(2026, 1, 1, tzinfo=UTC)
CHEAP, DEAR = Price(input=Decimal(1), output=Decimal(4)), Price(input=Decimal(10), output=Decimal(30))
PRICES = PriceTable({"small": CHEAP, "big": DEAR})


def call(role: Any, purpose: Any, usage: Usage, **more: Any) -> Call:
    price = CHEAP if role == "student" else DEAR
    model = "small" if role == "student" else "big"
    return Call(role=role, purpose=purpose, model=model, usage=usage, dollars=price.dollars(usage), **more)


def records(number: int, *, calls: tuple[Call, ...] = (), behind: tuple[Call, ...] = (), **values: Any) -> list[Any]:
    """A step's decision and its shadow."""
    own = {"decision": f"de_{number}", "episode": "e", "namespace": "default", "step": number}
    time = START + timedelta(minutes=number)
    shadow = Shadow(**own | {"calls": behind, "created_at": time, "teacher_action": "look"} | values)
    decision = Decision(
        id=shadow.decision,
        episode=shadow.episode,
        namespace=shadow.namespace,
        step=number,
        cascade=f"cascade {number % 2}",
        mode="shadow",
        answered_by="teacher",
        reason="mode shadow",
        calls=calls,
        created_at=time,
    )
    return [decision, shadow]


def fill(database: Database, *entries: Any) -> None:
    with database.begin(write=True) as connection:
        write_records(connection, list(entries))


def samples(*answers: tuple[str | None, int | None]) -> tuple[LoggedSample, ...]:
    return tuple(LoggedSample(action=action, tokens=tokens) for action, tokens in answers)


def end(episode: str, success: bool | None, **values: Any) -> EpisodeEnd:
    return EpisodeEnd(
        **{"episode": episode, "goal": "g", "mode": "shadow", "success": success, "steps": 1, "started_at": START}
        | values
    )


def rows(database: Database) -> dict[str, int]:
    counted = tables.decisions, tables.shadows, tables.calls, tables.episodes
    with database.begin() as connection:
        return {t.name: connection.execute(select(func.count()).select_from(t)).scalar_one() for t in counted}


def test_a_shadow_is_a_step_of_the_log_with_its_bill_of_one_request(database: Database) -> None:
    acted = call("teacher", "act", Usage(input=700, cached_input=300, output=40, reasoning=10))
    drawn = (
        call("student", "shadow", Usage(input=2000, cached_input=100, output=90)),
        *(call("student", "shadow", Usage(input=300, cached_input=800, output=21)),),
    )
    three = samples(("look", 50), ("look", None), ("go", None))
    values = {"temperature": 0.7, "k": 6, "similarity": 0.8, "demonstrations": ("t:0-3",), "goal": "find it"}
    values |= {"category": "find", "observation": "a room", "propensity": 0.5, "gold": "look", "accepted": True}
    fill(database, *records(1, calls=(acted,), behind=drawn, samples=three, **values), end("e", True))
    [step] = steplog.export(database, prices=PRICES)
    assert step == LoggedStep(
        id="de_1",
        episode="e",
        step=1,
        goal="find it",
        category="find",
        observation="a room",
        students=(
            StudentSamples(
                model="small",
                samples=samples(("look", 50), ("look", 31), ("go", 30)),  # 90 + 21 tokens, of which 50 were known
                n=3,
                temperature=0.7,
                k=6,
                demonstrations=("t:0-3",),
                similarity=0.8,
                prompt=Usage(input=2000, cached_input=100),
                price=CHEAP,
            ),
        ),
        teacher="look",
        teacher_model="big",
        teacher_usage=Usage(input=700, cached_input=300, output=40, reasoning=10),
        teacher_price=DEAR,
        gold="look",
        success=True,
        propensity=0.5,
        accepted=True,
        created_at=START + timedelta(minutes=1),
    )


def test_a_provider_that_gives_one_answer_a_request_pays_for_one_prompt_in_each(database: Database) -> None:
    drawn = call("student", "shadow", Usage(input=600, cached_input=300, output=60), requests=3)
    fill(database, *records(1, behind=(drawn,), samples=samples(("a", None), ("a", None), (None, None))))
    [step] = steplog.export(database)
    assert step.student.prompt == Usage(input=200, cached_input=100)
    assert [s.tokens for s in step.student.samples] == [20, 20, 20]
    assert step.student.price is None, "no price table was given"


def test_an_audit_has_its_teachers_bill_apart_and_its_students_in_the_decision(database: Database) -> None:
    paid = call("student", "sample", Usage(input=100, output=30))
    checked = call("teacher", "audit", Usage(input=100, output=15))
    audit = records(1, calls=(paid,), behind=(checked,), kind="audit", samples=samples(("a", None), ("a", None)))
    fill(database, *audit, *records(2))
    [step] = steplog.export(database, kinds=("audit",), prices=PRICES)
    assert step.kind == "audit"
    assert step.student.prompt == Usage(input=100)
    assert [s.tokens for s in step.student.samples] == [15, 15]
    assert step.teacher_usage == Usage(input=100, output=15)
    assert len(list(steplog.export(database))) == 2


def test_what_was_not_counted_is_not_known(database: Database) -> None:
    fill(database, *records(1, samples=samples(("a", None))))
    [step] = steplog.export(database, prices=PRICES)
    assert step.student.prompt is None
    assert step.student.price is None
    assert step.student.samples[0].tokens is None
    assert (step.teacher_usage, step.teacher_price, step.success) == (None, None, None)


def test_a_log_is_bounded_by_namespace_time_and_cascade_and_comes_in_the_order_of_time(database: Database) -> None:
    for number in (3, 1, 2):
        fill(database, *records(number))
    fill(database, *records(4, namespace="other"))

    def ids(**bounds: Any) -> list[str]:
        return [step.id for step in steplog.export(database, **bounds)]

    assert ids() == ["de_1", "de_2", "de_3", "de_4"]
    assert ids(namespace="default") == ["de_1", "de_2", "de_3"]
    assert ids(namespace="nobody") == []
    assert ids(since=START + timedelta(minutes=2)) == ["de_2", "de_3", "de_4"]
    assert ids(cascade="cascade 1") == ["de_1", "de_3"]


def test_chunks_leave_out_nothing_where_times_are_equal(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steplog, "CHUNK_STEPS", 2)
    for number in range(7):
        fill(database, *records(number, created_at=START, episode=f"e{number}"), end(f"e{number}", number % 2 == 0))
    steps = list(steplog.export(database))
    assert [step.id for step in steps] == [f"de_{n}" for n in range(7)]
    assert [step.success for step in steps] == [True, False] * 3 + [True]


def test_a_log_that_is_loaded_into_an_empty_database_comes_out_the_same(database: Database, tmp_path: Path) -> None:
    paid = call("student", "sample", Usage(input=100, output=30))
    checked = call("teacher", "audit", Usage(input=100, output=15))
    acted = call("teacher", "act", Usage(input=700, cached_input=300, output=40))
    drawn = call("student", "shadow", Usage(input=2000, output=90))
    more: dict[str, Any] = {"samples": samples(("a", None), (None, None), ("b", None)), "gold": "a", "k": 2}
    fill(
        database,
        *records(1, calls=(acted,), behind=(drawn,), accepted=True, **more),
        *records(2, calls=(paid,), behind=(checked,), kind="audit", accepted=True, **more),
        *records(3, episode="f"),
        end("e", False),
    )
    steps = list(steplog.export(database, prices=PRICES))
    with_file = open_database(tmp_path / "other.db")
    assert steplog.import_steps(with_file, steps) == 3
    assert list(steplog.export(with_file, prices=PRICES)) == steps
    before = rows(with_file)
    assert steplog.import_steps(with_file, steps) == 0, "loaded a second time"
    assert rows(with_file) == before
    bills = {(line.role, line.model): line.known_dollars for line in Ledger(with_file).spending()}
    # 1: 700 + 300 at 10 and 40 at 30, 2: 100 at 10 and 15 at 30; a model without a name has no price
    assert bills["teacher", "big"] == Decimal("0.0112") + Decimal("0.00145")
    assert bills["student", "small"] == Decimal("0.00236") + Decimal("0.00022")
    with_file.close()


def test_a_committees_shadow_is_a_step_of_several_students_and_comes_out_again(
    database: Database, tmp_path: Path
) -> None:
    votes = [("small", "look", 50), ("small", "go", None), ("large", "look", None), ("down", None, None)]
    three = tuple(LoggedSample(action=a, tokens=t, member=m, weight=1 + (m == "large")) for m, a, t in votes)
    small = call("student", "shadow", Usage(input=2000, output=80))
    large = small.model_copy(update={"model": "large", "usage": Usage(input=1900, output=40)})
    acted = call("teacher", "act", Usage(input=700, output=40))
    fill(database, *records(1, calls=(acted,), behind=(large, small), samples=three, accepted=True, k=2))
    with database.begin() as connection:
        stored = connection.execute(select(tables.shadows.c.samples)).scalar_one()
    assert [sample["member"] for sample in stored] == ["small", "small", "large", "down"]
    assert [sample.get("weight") for sample in stored] == [None, None, 2, None]
    steps = list(steplog.export(database, prices=PRICES))
    assert [(s.model, [x.action for x in s.samples], s.n, s.price) for s in steps[0].students] == [
        ("small", ["look", "go"], 2, CHEAP),
        ("large", ["look"], 1, None),
        ("down", [None], 1, None),
    ]
    assert [[x.tokens for x in s.samples] for s in steps[0].students] == [[50, 30], [40], [None]]
    assert [s.prompt for s in steps[0].students] == [Usage(input=2000), Usage(input=1900), None]
    for name in ("log.jsonl", "log.parquet"):
        assert write_log(tmp_path / name, steps) == 1
        assert read_log(tmp_path / name) == steps
    assert "member" not in (tmp_path / "log.jsonl").read_text()  # so that older versions read it
    other = open_database(tmp_path / "other.db")
    assert steplog.import_steps(other, steps) == 1
    assert list(steplog.export(other, prices=PRICES)) == steps
    other.close()


def test_what_is_stored_of_one_students_samples_has_no_new_key(database: Database) -> None:
    fill(database, *records(1, samples=samples(("a", 3))))
    with database.begin() as connection:
        [stored] = connection.execute(select(tables.shadows.c.samples)).scalar_one()
    assert set(stored) == {"action", "text", "invalid", "logprob", "tokens"}


def test_loading_does_not_change_what_the_database_knows_of_its_own(database: Database) -> None:
    fill(database, *records(1, samples=samples(("a", 3))), end("e", True, plan="the real one"))
    [step] = steplog.export(database)
    changed = step.model_copy(update={"success": False, "teacher": "another"})
    assert steplog.import_steps(database, [changed]) == 0
    assert next(steplog.export(database)) == step


def test_a_foreign_log_is_loaded_once_whatever_its_ids(database: Database) -> None:
    student = (StudentSamples(samples=samples(("18", None), ("17", None))),)
    steps = [
        LoggedStep(id="7", namespace=space, students=student, teacher="18", gold="18", success=True)
        for space in ("a", "b")
    ]
    assert steplog.import_steps(database, steps) == 2
    assert steplog.import_steps(database, steps) == 0
    found = list(steplog.export(database))
    assert [(s.namespace, s.gold, s.success) for s in found] == [("a", "18", True), ("b", "18", True)]
    assert [s.action for s in found[0].student.samples] == ["18", "17"]
    assert found[0].student.prompt is None, "nothing was counted"
    assert found[0].teacher_usage is None


def test_records_of_a_running_program_come_out(database: Database) -> None:
    recorder = DatabaseRecorder(database)
    decision, shadow = records(5, behind=(call("student", "shadow", Usage(input=10, output=6), requests=2),))
    recorder.record(decision)
    recorder.record_shadow(shadow.model_copy(update={"samples": samples(("a", None), ("b", None)), "k": 3}))
    recorder.close()
    [step] = steplog.export(database)
    assert (step.student.k, step.student.prompt) == (3, Usage(input=5))


def test_a_long_log_is_not_held_in_memory(tmp_path: Path) -> None:
    database = open_database(tmp_path / "long.db")
    text = "x" * 1000
    made = (
        LoggedStep(id=str(i), students=(StudentSamples(samples=samples(("a", 1)) * 5),), teacher="a", observation=text)
        for i in range(5_000)
    )
    assert steplog.import_steps(database, made) == 5_000
    tracemalloc.start()
    assert sum(1 for _ in steplog.export(database)) == 5_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 9_000_000, "a chunk of 500 steps takes a few megabytes, all of them would take more than twenty"
    database.close()
