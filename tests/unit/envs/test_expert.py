from __future__ import annotations

from decimal import Decimal

import pytest

from agentcascade.envs.alfworld.verbalize import explain_command, outline_plan
from agentcascade.envs.offline.expert import Expert
from agentcascade.errors import ConfigError
from agentcascade.prompts.planning import asking
from agentcascade.protocols import ChatModel
from agentcascade.types import Message, Usage

PLAN_TO_HEAT = [
    "go to cabinet 2",
    "open cabinet 2",
    "take mug 1 from cabinet 2",
    "go to microwave 1",
    "heat mug 1 with microwave 1",
    "go to desk 1",
    "move mug 1 to desk 1",
]
ASKED: list[Message] = [{"role": "user", "content": "Your task is to: put a hot mug in desk."}]


class World:
    def __init__(self, plan: list[str]) -> None:
        self.plan = plan

    def expert_outline(self) -> str:
        return outline_plan(self.plan)

    def expert_answer(self) -> str:
        return f"Thought: {explain_command(self.plan)}\nAction: {self.plan[0]}"


def words(text: str) -> int:
    return len(text.split())


def expert(plan: list[str]) -> Expert:
    model = Expert(words, lambda usage: Decimal(usage.prompt + 10 * usage.output))
    model.bind(World(plan))
    return model


def test_it_is_a_chat_model() -> None:
    assert isinstance(expert([]), ChatModel)


async def test_answers_with_the_plans_first_command_and_bills_the_prompt_once() -> None:
    completion = await expert(PLAN_TO_HEAT).complete(ASKED, n=2)
    text = "Thought: I need the mug; it is at the cabinet. I go to the cabinet.\nAction: go to cabinet 2"
    assert [m["content"] for m in completion.messages] == [text, text]
    assert completion.usage.output == 2 * words(text)
    one = await expert(PLAN_TO_HEAT).complete(ASKED)
    assert completion.usage.prompt == one.usage.prompt >= words(ASKED[0]["content"])
    assert completion.dollars == completion.usage.prompt + 10 * completion.usage.output
    assert completion.model == "offline/expert"


async def test_an_unknown_price_stays_unknown() -> None:
    model = Expert(words, lambda usage: None)
    model.bind(World(["look"]))
    assert (await model.complete(ASKED)).dollars is None
    assert model.dollars(Usage(input=5)) is None


@pytest.mark.parametrize(
    ("done", "says"),
    [
        (1, "I need the mug; it is at the cabinet. The cabinet is closed. I open it."),
        (2, "I see the mug I need. I take it."),
        (3, "I carry the mug; it must be heated with the microwave. I go to the microwave."),
        (4, "I am at the microwave. I heat the mug."),
        (5, "I carry the mug; it belongs at the desk. I go to the desk."),
        (6, "I am at the desk. I put the mug here."),
        (7, "The task is done."),
    ],
)
def test_thoughts_say_what_the_command_is_for(done: int, says: str) -> None:
    assert explain_command(PLAN_TO_HEAT[done:]) == says


async def test_asked_for_a_plan_it_outlines_one_without_numbers() -> None:
    completion = await expert(PLAN_TO_HEAT).complete(asking(ASKED, "plan"))
    assert completion.messages[0]["content"].splitlines() == [
        "1. take mug",
        "2. heat mug with microwave",
        "3. move mug to desk",
    ]


async def test_without_a_world_it_says_where_it_belongs() -> None:
    with pytest.raises(ConfigError, match="agentcascade bench alfworld"):
        await Expert(words, lambda usage: None).complete(ASKED)
