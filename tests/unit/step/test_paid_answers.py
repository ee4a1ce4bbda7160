"""What a model wrote was paid for: whatever it is, it reaches the caller, and nobody waits while it is parsed."""

from __future__ import annotations

import threading
from decimal import Decimal
from typing import Any

import pytest

from agentcascade.actions.formats import make_format
from agentcascade.cascade import Cascade
from agentcascade.config.load import CascadeConfig
from agentcascade.errors import InvalidRequest
from agentcascade.routers.step.consistency import Unanimity
from agentcascade.step.context import StepContext
from agentcascade.types import Completion, Usage

ASKED = [{"role": "user", "content": "go"}]


def called(arguments: Any) -> dict[str, Any]:
    call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": arguments}}
    return {"role": "assistant", "content": None, "tool_calls": [call]}


def tool(schema: Any) -> list[dict[str, Any]]:
    return [{"type": "function", "function": {"name": "f", "parameters": schema}}]


HOSTILE = {
    "deep": called('{"a":' * 600 + "1" + "}" * 600),
    "digits": called("[" + "9" * 5_000 + "]"),
    "half a character": called('{"a": "\\ud800"}'),
    "no text": called('{"a": 1'),
    "a shape of its own": {"role": "assistant", "content": [{"type": "text", "text": None}, {"type": "odd"}]},
}


class Model:
    name, supports_n = "m", True

    def __init__(self, answer: dict[str, Any]) -> None:
        self._answer = answer

    def dollars(self, usage: Usage) -> Decimal:
        return Decimal(1)

    async def complete(self, messages: Any, *, n: int = 1, **options: Any) -> Completion:
        return Completion(model="m", messages=(self._answer,) * n, usage=Usage(input=9, output=9), dollars=Decimal(1))


def cascade(answer: dict[str, Any], format: str = "auto", **config: Any) -> Cascade:
    return Cascade(
        StepContext(
            config=CascadeConfig(mode="teacher", **config),
            router=Unanimity(3),
            count=lambda text: len(text.split()),
            teacher=Model(answer),
            actions=make_format(format),
        )
    )


@pytest.mark.parametrize("answer", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("format", ["auto", "tools", "text", "react", "json", "python", "sql"])
async def test_the_teachers_answer_reaches_the_caller_whatever_it_is(answer: dict[str, Any], format: str) -> None:
    async with cascade(answer, format) as made:
        completion, decision = await made.step(ASKED, tools=tool({"type": "object"}))
        assert decision.answered_by == "teacher"
        assert len(completion.messages) == 1


async def test_so_does_one_that_a_format_or_a_validator_of_ones_own_breaks_on() -> None:
    class Own:
        def parse(self, message: Any, tools: Any = None) -> Any:
            raise KeyError("mine")

    def broken(action: Any, situation: Any) -> str | None:
        raise RuntimeError("mine too")

    for change in ({"actions": Own()}, {"validators": (broken,)}):
        async with cascade({"role": "assistant", "content": "look"}).twin(**change) as made:
            episode = made.episode("g")
            answer = await episode.complete(ASKED)
            assert answer.choices[0].message.content == "look"
            assert answer.agentcascade.action is None
            assert len(episode.steps) == 1


@pytest.mark.parametrize(
    ("schema", "apart"),
    [
        ({"properties": {"a": {"type": "string"}}}, False),
        ({"properties": {"a": {"pattern": "^(a+)+$"}}}, True),
        ({"$ref": "#/$defs/x", "$defs": {"x": {}}}, True),
        ({"properties": {f"p{i}": {"type": "string"} for i in range(300)}}, True),
    ],
    ids=["plain", "pattern", "reference", "large"],
)
async def test_what_may_be_slow_is_parsed_in_a_thread(monkeypatch: Any, schema: Any, apart: bool) -> None:
    seen = []
    from agentcascade.models import json_schema

    check = json_schema.check

    def watched(*given: Any) -> Any:
        seen.append(threading.current_thread())
        return check(*given)

    monkeypatch.setattr(json_schema, "check", watched)
    async with cascade(called('{"a": "aaaa!"}')) as made:
        await made.step(ASKED, tools=tool(schema))
    assert seen
    assert (seen[0] is not threading.main_thread()) == apart


@pytest.mark.parametrize(
    ("format", "text"), [("sql", "SELECT a FROM t WHERE " + "a = 1 OR " * 50 + "b"), ("python", "x = 1\n" * 200)]
)
async def test_so_are_long_programs_and_statements_of_the_conversation(
    monkeypatch: Any, format: str, text: str
) -> None:
    seen = []
    formats = make_format(format)
    parse = formats.parse

    def watched(*given: Any) -> Any:
        seen.append(threading.current_thread())
        return parse(*given)

    monkeypatch.setattr(formats, "parse", watched)
    async with cascade({"role": "assistant", "content": text}).twin(actions=formats) as made:
        await made.step([*ASKED, {"role": "assistant", "content": text}, *ASKED])
    assert len(seen) >= 2
    assert threading.main_thread() not in seen


@pytest.mark.parametrize("content", [7, {"a": 1}, ["hi"], [None]])
async def test_messages_of_no_shape_are_the_callers_mistake(content: Any) -> None:
    async with cascade({"role": "assistant", "content": "look"}) as made:
        with pytest.raises(InvalidRequest, match=r"messages\[0\].content"):
            await made.step([{"role": "user", "content": content}])


async def test_so_is_a_role_of_no_shape() -> None:
    async with cascade({"role": "assistant", "content": "look"}) as made:
        with pytest.raises(InvalidRequest, match="needs a role"):
            await made.step([{"role": ["user"], "content": "x"}])
