"""Drafts of a deferred step: the teacher of that step alone reads them, and its answer is marked as no label."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agentcascade import ScriptedModel, build
from agentcascade.actions.base import RegexActions
from agentcascade.models.pricing import Price
from agentcascade.prompts.defaults import TEMPLATES
from agentcascade.steplog.database import export
from agentcascade.steplog.matching import DRAFTS_SEEN, ModelCall, match_calls, teacher_steps
from agentcascade.storage import open_database
from tests.cascades import DEMONSTRATION, MESSAGES, FakeBank, Model, act, make

SHOWN = {"prompt": {"teacher_sees_drafts": True}}
SPLIT = [act("look"), act("go"), act("look")]


def said(model: Any) -> str:
    return str(model.requests[-1]["messages"])


async def test_only_the_teacher_of_the_deferred_step_reads_drafts() -> None:
    student, teacher = Model("s", SPLIT), Model("t", act("open"))
    cascade = make(student, teacher, **SHOWN)
    answer, decision = await cascade.step(MESSAGES)
    assert "## Draft 1 (2 of 3 votes)\\nlook" in said(teacher)
    assert "so." not in said(teacher), "the student's thoughts"
    assert (decision.teacher_drafts, decision.answered_by) == (2, "teacher")
    assert "Draft" not in str(answer.messages) + str(decision.votes)
    history = [*MESSAGES, answer.messages[0], {"role": "user", "content": "it is open"}]
    await cascade.step(history)
    assert "Draft" not in said(student)
    assert said(teacher).count("# Drafts") == 1


@pytest.mark.parametrize(
    ("student", "settings", "mode"),
    [
        (SPLIT, {}, "cascade"),
        (SPLIT, {"prompt": {"teacher_sees_drafts": True, "draft_tokens": 10}}, "cascade"),
        (["no action"] * 3, SHOWN, "cascade"),
        (SPLIT, SHOWN, "teacher"),
        (SPLIT, SHOWN, "shadow"),
    ],
)
async def test_without_drafts_the_teacher_is_sent_what_it_always_was(student: Any, settings: Any, mode: Any) -> None:
    teacher = Model("t", act("open"))
    cascade = make(Model("s", student), teacher, **settings)
    _, decision = await cascade.step(MESSAGES, mode=mode)
    await cascade.aclose()
    assert teacher.requests[-1]["messages"] == MESSAGES
    assert decision.teacher_drafts == 0


async def test_the_teacher_alone_would_not_have_paid_for_drafts() -> None:
    class Counting(Model):
        async def complete(self, messages: Any, **options: Any) -> Any:
            completion = await super().complete(messages, **options)
            tokens = len(" ".join(str(m["content"]) for m in messages).split())
            usage = completion.usage.model_copy(update={"input": tokens})
            return completion.model_copy(update={"usage": usage, "dollars": self.dollars(usage)})

    found = []
    for settings in ({}, SHOWN):
        cascade = make(Model("s", SPLIT), Counting("t", act("open")), FakeBank(DEMONSTRATION), **settings)
        found.append((await cascade.step(MESSAGES))[1])
    plain, shown = found
    assert shown.calls[-1].usage.input > plain.calls[-1].usage.input + 10
    assert abs(shown.teacher_dollars - plain.teacher_dollars) <= 8, "but for the lines around the drafts"


async def test_the_breakpoint_stands_in_front_of_drafts() -> None:
    class Claude(Model):
        supports_n = True

    teacher = Claude("anthropic/claude-sonnet-4-5", act("open"))
    long = [MESSAGES[0], {"role": "user", "content": "word " * 3000}]
    for messages in (long, [*long, {"role": "assistant", "content": "x"}, {"role": "tool", "content": "seen"}]):
        await make(Model("s", SPLIT), teacher, **SHOWN).step(messages)
        sent = teacher.requests[-1]["messages"]
        parts = [part for message in sent for part in ([message] if message["role"] == "tool" else message["content"])]
        marked = [i for i, part in enumerate(parts) if isinstance(part, dict) and "cache_control" in part]
        drafts = [i for i, part in enumerate(parts) if "# Drafts" in str(part)] or [len(parts)]
        assert marked
        assert max(marked) < drafts[0]
        assert "# Drafts" in str(sent[-1])


async def test_an_audits_teacher_and_the_bank_see_none(tmp_path: Path) -> None:
    price = Price(input=1, output=2)
    teacher = ScriptedModel(lambda messages, _: "Action: open", name="t", price=price)
    answers = iter(["Action: look", "Action: go", "Action: look"] + ["Action: open"] * 9)
    student = ScriptedModel(lambda messages, _: next(answers), name="s", price=price)
    url = f"sqlite:///{tmp_path / 'a.db'}"
    async with build(
        mode="cascade",
        teacher=teacher,
        student=student,
        actions={"format": "react"},
        retrieval={"k": 0},
        bank={"url": url},
        audit={"rate": 1.0},
        **SHOWN,
    ) as cascade:
        episode = cascade.episode("put a mug", id="e")
        first = await episode.complete([{"role": "user", "content": "put a mug"}])
        history = [{"role": "user", "content": "put a mug"}, {"role": "assistant", "content": "Action: open"}]
        second = await episode.complete([*history, {"role": "user", "content": "opened"}])
        await episode.finish(success=True)
    assert [a.agentcascade.teacher_drafts for a in (first, second)] == [2, 0]
    assert [a.agentcascade.answered_by for a in (first, second)] == ["teacher", "student"]
    asked = [str(request) for request in teacher.requests]
    assert ["# Drafts" in request for request in asked] == [True, False], "the second is the audit's"
    database = open_database(url)
    try:
        (audited,) = export(database)
        assert (audited.kind, audited.step) == ("audit", 1), "a deferred step is no label in the log"
        with database.begin() as connection:
            rows = connection.exec_driver_sql("SELECT teacher_drafts FROM decisions ORDER BY step").scalars().all()
            texts = str(connection.exec_driver_sql("SELECT * FROM steps").fetchall())
        assert list(rows) == [2, 0]
        assert "Draft" not in texts
    finally:
        database.close()


def test_foreign_logs_of_such_a_teacher_are_left_out_and_counted() -> None:
    asked = [{"role": "user", "content": "put a mug"}]
    drafted = [{"role": "user", "content": f"put a cup\n\n{TEMPLATES['drafts'].text}"}]
    answer = ({"role": "assistant", "content": "Action: go"},)
    calls = [ModelCall(model, messages, answer) for messages in (asked, drafted) for model in ("t", "s")]
    matched = match_calls(calls, "t", formats=RegexActions())
    assert len(matched.steps) == 1
    assert matched.left_out[DRAFTS_SEEN] == 2
    steps, left_out = teacher_steps([c for c in calls if c.model == "t"], formats=RegexActions())
    assert (len(steps), left_out[DRAFTS_SEEN]) == (1, 1)
