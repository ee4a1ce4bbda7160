"""Audits: the teacher behind the student's answer, what they cost, and what follows when the risk does not hold."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, Unpack

import pytest
from click.testing import CliRunner

from agentcascade import build
from agentcascade.billing.door import NullObserver
from agentcascade.cascade import Cascade
from agentcascade.cli import main
from agentcascade.config.keywords.steps import AuditKeywords
from agentcascade.errors import ConfigError
from agentcascade.ledger.ledger import Ledger, MemoryRecorder
from agentcascade.models.pricing import Price
from agentcascade.models.scripted import ScriptedModel
from agentcascade.steplog.audits import count_audits
from agentcascade.steplog.database import export
from agentcascade.storage import open_database
from tests.cascades import known

MESSAGES = [{"role": "user", "content": "Task: go"}]
PRICE = Price(input=Decimal(1), output=Decimal(2))


class Seen(NullObserver):
    """An observer that remembers audits."""

    def __init__(self) -> None:
        self.audits: list[Any] = []

    def on_audit(self, *what: Any) -> None:
        self.audits.append(what)


def make(
    folder: Path,
    student: Any = ("go",),
    teacher: Any = ("go",),
    recorder: Any = None,
    observer: Any = None,
    **audit: Unpack[AuditKeywords],
) -> Cascade:
    return build(
        teacher=ScriptedModel(list(teacher), name="teacher", price=PRICE),
        student=ScriptedModel(list(student), name="student", price=PRICE),
        bank={"url": f"sqlite:///{folder / 'a.db'}"},
        retrieval={"k": 0},
        router={"name": "threshold", "options": {"n": 3, "threshold": 0.6}},
        audit={"rate": 1.0, **audit},
        recorder=recorder,
        observer=observer,
    )


async def test_an_audit_is_kept_billed_and_changes_nothing(tmp_path: Path) -> None:
    async with make(tmp_path, teacher=("stay",)) as cascade:
        answer = await cascade.episode("go", category="walks").complete(MESSAGES)
        assert answer.choices[0].message.content == "go"
        assert answer.agentcascade.answered_by == "student"
        assert [c.purpose for c in answer.agentcascade.calls] == ["sample"]  # the audit is no part of the step
    database = open_database(tmp_path / "a.db")
    (step,) = export(database, kinds=("audit",))
    assert (step.kind, step.teacher, step.category) == ("audit", "stay", "walks")
    assert [s.action for s in step.student.samples] == ["go"] * 3
    assert step.propensity == 1.0
    found = count_audits(database)
    assert (found.steps, found.differing) == (1, 1)
    assert found.dollars is not None
    assert found.dollars > 0
    (line,) = Ledger(database).summary()
    assert line.dollars == known(answer.agentcascade.dollars) + found.dollars
    database.close()


async def test_only_accepted_steps_are_sent_to_the_teacher(tmp_path: Path) -> None:
    recorder = MemoryRecorder()
    seen = Seen()
    async with make(tmp_path, student=("a", "b", "c"), recorder=recorder, risk=0.5, observer=seen) as cascade:
        await cascade.episode("go").complete(MESSAGES)
    assert recorder.shadows == []
    assert [s[1] for s in seen.audits] == [0.0]  # a loss of 0 for the marginal risk
    seen = Seen()
    async with make(
        tmp_path, student=("a", "b", "c"), recorder=recorder, risk=0.5, count="selective", observer=seen
    ) as cascade:
        await cascade.episode("go").complete(MESSAGES)
    assert seen.audits == []


async def test_the_rate_is_a_share_of_the_steps(tmp_path: Path) -> None:
    recorder = MemoryRecorder()
    async with make(tmp_path, recorder=recorder, rate=0.2, max_pending=1000) as cascade:
        for _ in range(300):
            await cascade.episode("go").complete(MESSAGES)
    assert 30 < len(recorder.shadows) < 90
    assert {s.propensity for s in recorder.shadows} == {0.2}


async def test_a_teacher_that_cannot_be_asked_says_nothing_of_the_student(tmp_path: Path) -> None:
    recorder = MemoryRecorder()
    seen = Seen()
    async with make(tmp_path, teacher=(RuntimeError("down"),), recorder=recorder, risk=0.05, observer=seen) as cascade:
        answer = await cascade.episode("go").complete(MESSAGES)
        assert answer.choices[0].message.content == "go"
    assert seen.audits == []
    assert "RuntimeError" in recorder.shadows[0].failures[0]


@pytest.mark.parametrize(("what", "answered", "reason"), [
    ("teacher", "teacher", "drift alarm"),
    ("tighten", "teacher", "agreement 2/3"),
    ("warn", "student", "agreement 2/3"),
])  # fmt: skip
async def test_what_an_alarm_does(
    tmp_path: Path, what: Literal["warn", "tighten", "teacher"], answered: str, reason: str
) -> None:
    two_of_three = ("go", "go", "run") * 200
    seen = Seen()
    async with make(tmp_path, two_of_three, ("stay",), risk=0.05, when_alarmed=what, observer=seen) as cascade:
        for _ in range(40):
            await cascade.episode("go").complete(MESSAGES)
            await cascade.settle()
            if seen.audits[-1][3]:
                break
        alarmed_after = len(seen.audits)
        assert alarmed_after < 12  # every audit differs: the evidence grows twentyfold by the second or third
        decision = (await cascade.episode("go").complete(MESSAGES)).agentcascade
        assert decision.answered_by == answered
        assert reason in decision.reason
    async with make(
        tmp_path, two_of_three, ("stay",), risk=0.05, when_alarmed=what
    ) as again:  # a restart forgets nothing
        assert again.context.guard is not None
        assert again.context.guard.alarmed
        decision = (await again.episode("go").complete(MESSAGES)).agentcascade
        assert decision.answered_by == answered
    async with make(tmp_path, two_of_three, ("stay",), risk=0.2, when_alarmed=what) as other:  # another promise
        assert other.context.guard is not None
        assert not other.context.guard.alarmed


async def test_the_command_tells_and_acknowledges(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'a.db'}"
    async with make(tmp_path, teacher=("stay",), risk=0.05) as cascade:
        for _ in range(10):
            await cascade.episode("go").complete(MESSAGES)
            await cascade.settle()
    run = CliRunner().invoke
    told = run(main, ["audit", "--url", url])
    assert told.exit_code == 0, told.output
    assert "ALARM" in told.output
    data = json.loads(run(main, ["audit", "--url", url, "--json", "--reset"]).output)
    assert data["watch"]["alarmed"] is True
    assert data["reset"] is True
    assert data["differing"] == data["audited"] > 0
    assert json.loads(run(main, ["audit", "--url", url, "--json"]).output)["watch"] is None
    assert "did you mean 'default'" in run(main, ["audit", "--url", url, "--cascade", "defalt"]).output
    assert "no step was audited" in run(main, ["audit", "--url", _empty(tmp_path)]).output


def _empty(folder: Path) -> str:
    open_database(folder / "empty.db").close()
    return f"sqlite:///{folder / 'empty.db'}"


def test_impossible_settings(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"audit\.rate"):
        make(tmp_path, rate=2)
    with pytest.raises(ConfigError, match=r"audit\.risk"):
        make(tmp_path, risk=1)


async def test_steps_that_need_no_audit_are_left_out_in_the_share_in_which_audits_fail(tmp_path: Path) -> None:
    """Else a teacher that fails makes the marginal risk look small: half of the steps are the student's, all wrong."""
    student = [*("go",) * 3, *("a", "b", "c")] * 60
    down = [RuntimeError("down"), "teacher takes it", "stay", "teacher takes it"] * 60
    seen = Seen()
    async with make(tmp_path, student, down, risk=0.99, when_alarmed="warn", observer=seen) as cascade:
        for _ in range(120):
            await cascade.episode("go").complete(MESSAGES)
            await cascade.settle()
    losses = [audit[1] for audit in seen.audits]
    assert losses.count(1.0) == 30  # of 60, half of them asked in vain
    assert 28 <= losses.count(0.0) <= 36
