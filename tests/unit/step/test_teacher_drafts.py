"""Drafts of a deferred step: the teacher of that step alone reads them, and its answer is marked as no label."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from agentcascade import ScriptedModel, build
from agentcascade.actions.base import RegexActions
from agentcascade.cli import main
from agentcascade.cli.logs import draft_tokens
from agentcascade.models.pricing import Price
from agentcascade.prompts.defaults import TEMPLATES
from agentcascade.prompts.drafts import DRAFT_FRAME, DRAFT_HEADING
from agentcascade.routers.tuning.columns import chain, columns
from agentcascade.routers.tuning.costs import Bill
from agentcascade.routers.tuning.replay import replay
from agentcascade.routers.tuning.rules import Chain, TeacherAlone, Threshold
from agentcascade.steplog.database import export
from agentcascade.steplog.matching import DRAFTS_SEEN, ModelCall, match_calls, teacher_steps
from agentcascade.steplog.types import LoggedStep, StudentSamples
from agentcascade.storage import open_database
from agentcascade.types import LoggedSample, Usage
from tests.cascades import DEMONSTRATION, MESSAGES, FakeBank, Model, act, known, make

SHOWN: dict[str, Any] = {"prompt": {"teacher_sees_drafts": True}}
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
    every: tuple[dict[str, Any], ...] = ({}, SHOWN)
    for settings in every:
        cascade = make(Model("s", SPLIT), Counting("t", act("open")), FakeBank(DEMONSTRATION), **settings)
        found.append((await cascade.step(MESSAGES))[1])
    plain, shown = found
    assert shown.calls[-1].usage.input > plain.calls[-1].usage.input + 10
    assert abs(known(shown.teacher_dollars) - known(plain.teacher_dollars)) <= 8, "but for the lines around the drafts"


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


def logged(teacher: str, *rungs: list[str | None], prices: bool = True) -> LoggedStep:
    """Prompts of 100 tokens and answers of 10, a dollar a token for the teacher and a cent for its students."""
    cheap, dear = (Price(input=p * 1_000_000, output=p * 1_000_000) if prices else None for p in (0.01, 1))
    return LoggedStep(
        id="a",
        students=tuple(
            StudentSamples(
                model=f"s{i}",
                samples=tuple(LoggedSample(action=action, tokens=10) for action in said),
                prompt=Usage(input=100),
                price=cheap,
            )
            for i, said in enumerate(rungs)
        ),
        teacher=teacher,
        teacher_usage=Usage(input=100, output=10),
        teacher_price=dear,
    )


@pytest.mark.parametrize(
    ("rungs", "rule", "drafts"),
    [
        ([["look", "go", "look"]], Threshold(3, 3), 2),
        ([["look", "go", None]], Threshold(3, 3), 2),
        ([["look", "go", "look"]], Threshold(3, 2), 0),  # accepted
        ([[None, None, None]], Threshold(3, 3), 0),  # nothing to show
        ([["look", "go", "open"]], TeacherAlone(), 0),
        ([["look", "go", "open"], ["look", "go", "go"]], Chain((Threshold(3, 3),) * 2), 2),  # of the rung asked last
        ([["look", "look", "look"], ["look", "go", "go"]], Chain((Threshold(3, 3),) * 2), 0),
    ],
)
def test_a_replay_prices_the_drafts_that_a_deferred_steps_teacher_reads(rungs: Any, rule: Any, drafts: int) -> None:
    step = logged("go", *rungs)
    log = chain([step]) if len(rungs) > 1 else columns([step])
    plain, shown, cut = (replay(log, rule, [Bill(draft_tokens=most)]).cost for most in (0, 1000, 80))
    tokens = DRAFT_FRAME + drafts * (10 + DRAFT_HEADING) if drafts else 0
    assert shown - plain == pytest.approx(tokens)
    assert cut - plain == pytest.approx(min(80, tokens))


def test_replay_and_tune_take_what_is_configured_or_said(tmp_path: Path) -> None:
    file = tmp_path / "log.jsonl"
    steps = [logged("go", ["look", "go", "open"]).model_copy(update={"id": str(i)}) for i in range(3)]
    file.write_text("\n".join(step.model_dump_json() for step in steps))
    ask = ["replay", "--log", str(file), "--n", "3", "--json"]
    costs = []
    for more in ([], ["--draft-tokens", "1000"]):
        result = CliRunner().invoke(main, [*ask, *more])
        assert result.exit_code == 0, result.output
        costs.append(next(row["cost"] for row in json.loads(result.output) if row["rule"] == "3 of 3"))
    assert costs[1] - costs[0] == pytest.approx(DRAFT_FRAME + 3 * (10 + DRAFT_HEADING))
    config = tmp_path / "c.yaml"
    config.write_text("prompt: {teacher_sees_drafts: true, draft_tokens: 123}")
    options = {"draft_tokens": None, "logs": (), "config": config, "url": None}
    assert draft_tokens(options) == 123
    assert draft_tokens({**options, "logs": (file,)}) == 0
    assert draft_tokens({**options, "draft_tokens": 7}) == 7
