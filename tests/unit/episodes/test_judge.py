"""Who says whether an episode succeeded: the caller, a function, or a model; and what a model's word costs."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentcascade import ScriptedModel, build
from agentcascade.episodes.judge import ModelJudge, ask
from agentcascade.errors import InvalidAction, InvalidRequest
from agentcascade.ledger.ledger import Ledger
from agentcascade.models.pricing import Price
from agentcascade.prompts.yes_no import verdict
from agentcascade.types import Judgement, Step, Trajectory
from tests.cascades import MESSAGES, FakeBank, Model, act, make

PLAYED = Trajectory(goal="put a mug on the desk", steps=(Step(observation="o", action="look"),), success=False)


async def collected(judge: Any) -> tuple[Any, Any]:
    bank = FakeBank()
    cascade = make(None, Model("t", act("look")), bank, mode="collect")
    cascade = cascade.twin(judge=judge)
    episode = cascade.episode()
    await episode.complete(MESSAGES)
    return episode, bank


async def test_a_function_decides_where_the_caller_does_not() -> None:
    seen: list[Trajectory] = []

    def judge(trajectory: Trajectory) -> bool:
        seen.append(trajectory)
        return trajectory.steps[-1].action == "look"

    episode, bank = await collected(judge)
    assert await episode.finish()
    assert [t.success for t in bank.added] == [True]
    assert seen[0].goal == "put a mug on the desk"
    assert episode._context.recorder.ends[0].success


async def test_an_async_function_may_say_no_and_the_callers_word_goes_first() -> None:
    async def judge(_: Trajectory) -> bool:
        return False

    episode, bank = await collected(judge)
    assert not await episode.finish()
    assert bank.added == []
    episode, bank = await collected(judge)
    assert await episode.finish(success=True)


async def test_without_a_judge_finish_asks_for_the_outcome() -> None:
    episode, _ = await collected(None)
    with pytest.raises(InvalidRequest, match="no judge"):
        await episode.finish()
    assert await episode.finish(success=True)


async def test_a_judge_that_fails_leaves_the_episode_open() -> None:
    def judge(_: Trajectory) -> bool:
        raise ConnectionError("judge down")

    episode, _ = await collected(judge)
    with pytest.raises(ConnectionError):
        await episode.finish()
    assert await episode.finish(success=True)


@pytest.mark.parametrize(("answer", "success"), [
    ("Yes.", True),
    ("no", False),
    ("It looks so, but no: No", False),
    ("Yes. There is no doubt about it.", True),
    ("No. A yes would need a mug on the desk.", False),
    ("**Yes** — no mug was left behind", True),
    ("<think>no, or yes? no</think>Yes", True),
    ("There is no mug on the table, it is on the desk.\n\nThe answer is yes.", True),
    ("Answer: no\n(the last line says yes)", False),
    ("Let me see. There was no error.\nYes", True),
    ("Hm. Was it done?\nno\nWait.\n</think>\n\nno", False),
    ("Hm. It was no desk, or was it?\n</think>\n\nYes. No doubt", True),
])  # fmt: skip
async def test_a_models_verdict_counts_and_not_the_words_in_its_reasons(answer: str, success: bool) -> None:
    model = ScriptedModel([answer], price=Price(input=Decimal(1), output=Decimal(1)))
    verdict = await ask(ModelJudge(model, "Did it?"), PLAYED)
    assert verdict.success == success
    assert [c.purpose for c in verdict.calls] == ["judge"]
    (asked,) = model.requests
    assert "put a mug on the desk" in asked[0]["content"]
    assert "Action: look" in asked[0]["content"]


@pytest.mark.parametrize("answer", ["perhaps", "", "No doubt it did", "Yes\tand no", "No.</think>yes", "yes</think>"])
async def test_a_model_that_says_neither_is_no_judge(answer: str) -> None:
    model = ScriptedModel([answer or " "])
    with pytest.raises(InvalidAction, match="neither yes nor no"):
        await ask(ModelJudge(model, "Did it?"), PLAYED)


@given(st.text(max_size=40), st.sampled_from(["yes", "no"]))
def test_what_follows_a_first_word_never_turns_it_round(rest: str, word: str) -> None:
    assert verdict(f"{word.title()}. {rest}") is (word == "yes")


async def test_a_verdict_may_bring_its_own_bill() -> None:
    assert await ask(lambda _: Judgement(True), PLAYED) == Judgement(True)


async def test_the_judges_call_is_in_the_ledger_once(tmp_path: Path) -> None:
    own = Price(input=Decimal(1), output=Decimal(1))
    with build(
        teacher=ScriptedModel(["look"], price=own),
        mode="collect",
        bank={"url": f"sqlite:///{tmp_path}/a.db"},
        retrieval={"embedder": "hashing", "index": "exact"},
        judge={"model": {"name": "agentcascade.models.scripted:ScriptedModel", "options": {"script": ["yes"]}}},
    ) as cascade:
        episode = cascade.episode()
        await episode.complete([{"role": "user", "content": "put a mug on the desk"}])
        assert await episode.finish()
        assert cascade.context.recorder is not None
        cascade.context.recorder.flush()
        assert cascade.context.database is not None
        spending = {(s.role, s.model): s.calls for s in Ledger(cascade.context.database).spending()}
    assert sum(spending.values()) == 2
