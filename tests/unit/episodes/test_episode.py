"""Episodes: the steps so far, the papers' two preparations, and what is banked."""

from typing import Any

import pytest

from agentcascade.episodes.banking import without_failed
from agentcascade.episodes.judge import ModelJudge
from agentcascade.errors import BankError, CascadeClosed, EpisodeClosed, InvalidRequest
from agentcascade.types import Step
from tests.cascades import DEMONSTRATION, MESSAGES, FakeBank, Model, act, make, recorded


def conversation(*turns):
    messages = list(MESSAGES)
    for answer, observation in turns:
        messages += [{"role": "assistant", "content": answer}, {"role": "user", "content": observation}]
    return messages


async def test_collect_banks_a_success_with_its_steps() -> None:
    bank = FakeBank()
    cascade = make(None, Model("t", act("look"), act("take mug")), bank, mode="collect")
    episode = cascade.episode()
    first = await episode.complete(MESSAGES)
    await episode.complete(conversation((first.choices[0].message.content, "a mug 1")))
    assert await episode.finish(success=True)
    (trajectory,) = bank.added
    assert (trajectory.goal, trajectory.model) == ("put a mug on the desk", "t")
    assert trajectory.metadata == {"episode": episode.id}
    assert [(s.observation, s.reasoning, s.action) for s in trajectory.steps] == [
        ("put a mug on the desk", "so.", "look"),
        ("a mug 1", "so.", "take mug"),
    ]
    (end,) = recorded(cascade).ends
    assert (end.success, end.steps) == (True, 2)


@pytest.mark.parametrize(("mode", "success"), [("collect", False), ("cascade", True), ("teacher", True)])
async def test_only_successful_collected_episodes_are_banked(mode: str, success: bool) -> None:
    bank = FakeBank(DEMONSTRATION)
    episode = make(Model("s", act("look")), Model("t", act("look")), bank, mode=mode).episode()
    await episode.complete(MESSAGES)
    assert not await episode.finish(success=success)
    assert bank.added == []


async def test_a_failing_bank_leaves_the_episode_open_so_nothing_is_lost() -> None:
    bank = FakeBank(error=BankError("disk full"))
    episode = make(None, Model("t", act("look")), bank, mode="collect").episode()
    await episode.complete(MESSAGES)
    with pytest.raises(BankError):
        await episode.finish(success=True)
    bank.error = None
    assert await episode.finish(success=True)
    with pytest.raises(EpisodeClosed):
        await episode.finish(success=True)
    with pytest.raises(EpisodeClosed, match="start a new one"):
        await episode.complete(MESSAGES)


async def test_plan_and_first_thought_are_asked_once_shown_and_billed() -> None:
    teacher = Model("t", "1. look\n2. take", "Mugs are near sinks.\n\nMore.", act("look"), act("take"))
    bank = FakeBank()
    episode = make(None, teacher, bank, mode="collect", collect={"plan": True, "first_thought": True}).episode()
    first = await episode.complete(MESSAGES)
    second = await episode.complete(conversation((first.choices[0].message.content, "a mug 1")))
    plan, thought, act_one, act_two = (r["messages"] for r in teacher.requests)
    assert "write the plan" in plan[-1]["content"]
    assert "think step by step" in thought[-1]["content"]
    assert "Your plan:\n1. look\n2. take" in act_one[1]["content"]
    assert "Thought: Mugs are near sinks." in act_one[-1]["content"]
    assert "Your plan" in act_two[1]["content"]
    assert "Mugs are near sinks" not in act_two[-1]["content"]
    assert str(first.choices[0].message.content).startswith("Thought: Mugs are near sinks.")
    assert [c.purpose for c in first.agentcascade.calls] == ["plan", "first-thought", "act"]
    assert first.agentcascade.dollars == 330
    assert [c.purpose for c in second.agentcascade.calls] == ["act"]
    await episode.finish(success=True)
    assert bank.added[0].plan == "1. look\n2. take"


async def test_the_answer_is_an_openai_object() -> None:
    answer = await make(Model("s", act("look")), Model("t", act("go"))).episode().complete(MESSAGES)
    assert answer.choices[0].message.role == "assistant"
    assert answer.usage is not None
    assert answer.usage.total_tokens == 130
    assert answer.model == "s"
    assert answer.agentcascade.answered_by == "student"
    assert '"answered_by":"student"' in answer.model_dump_json().replace(" ", "")


@pytest.mark.parametrize("options", [{"stream": True}, {"n": 0}, {"n": "two"}])
async def test_what_cannot_be_honoured_is_refused(options: dict[str, Any]) -> None:
    episode = make(Model("s", act("look")), Model("t", act("go"))).episode()
    with pytest.raises(InvalidRequest):
        await episode.complete(MESSAGES, **options)


def test_failed_actions_are_dropped_but_their_observation_stays() -> None:
    steps = [
        Step(observation="a room", action="fly"),
        Step(observation="Nothing happens.", action="swim"),
        Step(observation="Nothing happens.", action="go"),
        Step(observation="a desk", action="take"),
    ]
    assert [(s.observation, s.action) for s in without_failed(steps, ["Nothing happens"])] == [
        ("a room", "go"),
        ("a desk", "take"),
    ]
    assert without_failed(steps, []) == tuple(steps)


def test_the_sync_face_is_the_same_step() -> None:
    with make(Model("s", act("look")), Model("t", act("go"))) as cascade:
        episode = cascade.sync_episode()
        assert episode.complete(MESSAGES).agentcascade.answered_by == "student"
        assert episode.finish(success=True) is False


@pytest.mark.parametrize(
    "preparation", [{"plan": True}, {"plan": True, "first_thought": True}, {"first_thought": True}]
)
async def test_nothing_is_bought_for_a_first_step_that_cannot_be_taken(preparation: dict[str, bool]) -> None:
    without_user = [{"role": "tool", "tool_call_id": "1", "content": "a mug"}]
    teacher = Model("t", "words")
    for stateless in (False, True):
        cascade = make(None, teacher, FakeBank(), mode="collect", collect=preparation)
        plan = "" if preparation.get("plan") else "given"
        with pytest.raises(InvalidRequest, match="a plan needs a user message"):
            await cascade.episode(stateless=stateless, plan=plan).complete(without_user)
        episode = cascade.episode(stateless=stateless)
        await cascade.aclose()
        with pytest.raises(CascadeClosed):
            await episode.complete(MESSAGES)
    assert teacher.requests == []


async def test_no_judge_is_paid_when_the_cascade_is_closed() -> None:
    judge = Model("j", "yes")
    cascade = make(None, Model("t", act("look")), FakeBank(), mode="collect").twin(judge=ModelJudge(judge, "Done?"))
    episode = cascade.episode()
    await episode.complete(MESSAGES)
    await cascade.aclose()
    with pytest.raises(CascadeClosed):
        await episode.finish()
    assert judge.requests == []
    assert await episode.finish(success=True)
