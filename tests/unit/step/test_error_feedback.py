"""Error fed back once: when, what is said, who judges what comes back, what it costs, and how the log holds it."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from agentcascade.actions.base import ToolCallActions, one_of
from agentcascade.errors import EmptyCompletion
from agentcascade.steplog.records import PriceLookup, logged_step
from tests.cascades import MESSAGES, Model, act, known, make, recorded

ALWAYS: dict[str, Any] = {"sampling": {"feed_back": "always"}}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "required": ["x"]}}}


async def test_samples_that_are_all_invalid_are_drawn_again_with_the_reason() -> None:
    student, teacher = Model("s", ["no <|im_end|> action"] * 3, [act("look")] * 3), Model("t", act("go"))
    _, decision = await make(student, teacher, **ALWAYS).step(MESSAGES)
    assert (decision.answered_by, decision.action, teacher.requests) == ("student", "look", [])
    assert (decision.samples, decision.invalid_samples, decision.retried) == (6, 3, 3)
    assert decision.reason == "agreement 3/3, after a fault was fed back"
    assert [(c.purpose, c.dollars) for c in decision.calls] == [("sample", Decimal(130))] * 2
    first, again = (str(request["messages"][-1]["content"]) for request in student.requests)
    assert again.startswith(f"{first}\n\n# Response refused\n")
    assert "Answer: no < |im_end|> action\nResult: " in again
    assert decision.teacher_dollars == Decimal(110), "an answer of one sample, not of two"


async def test_what_comes_back_is_judged_as_the_first_was_and_never_a_third_time() -> None:
    student, teacher = Model("s", ["?"] * 3, [act("look"), act("go"), "?"], [act("look")] * 3), Model("t", act("go"))
    shown = {**ALWAYS, "prompt": {"teacher_sees_drafts": True}}
    _, decision = await make(student, teacher, **shown).step(MESSAGES)
    assert (decision.answered_by, decision.reason) == ("teacher", "agreement 1/3")
    assert (decision.samples, decision.invalid_samples, decision.retried, decision.teacher_drafts) == (6, 4, 3, 2)
    assert len(student.requests) == 2


@pytest.mark.parametrize(
    ("answers", "settings"),
    [
        ((["?"] * 3,), {}),
        (([act("look"), "?", "?"],), ALWAYS),
        (([""] * 3,), ALWAYS),
        ((["I'm sorry, but I can't assist with that."] * 3,), ALWAYS),
        ((EmptyCompletion("nothing"),), ALWAYS),
    ],
)
async def test_nothing_else_is_asked_again(answers: Any, settings: Any) -> None:
    student = Model("s", *answers, [act("look")] * 3)
    _, decision = await make(student, Model("t", act("go")), **settings).step(MESSAGES)
    assert (len(student.requests), decision.answered_by, decision.retried) == (1, "teacher", 0)


@pytest.mark.parametrize(("price", "asked"), [("10", 2), ("1", 1), (None, 1)])
async def test_auto_asks_again_where_that_costs_less_than_it_is_expected_to_save(price: Any, asked: int) -> None:
    student = Model("s", ["?"] * 3, [act("look")] * 3)
    cascade = make(student, Model("t", act("go"), price=price), sampling={"feed_back": "auto"})
    await cascade.step([MESSAGES[0], {"role": "user", "content": "word " * 100}])
    assert len(student.requests) == asked


async def test_auto_learns_that_it_does_not_help() -> None:
    student = Model("s", ["?"] * 3)
    cascade = make(student, Model("t", act("go"), price="4"), sampling={"feed_back": "auto"})
    for _ in range(12):
        before = len(student.requests)
        await cascade.step([MESSAGES[0], {"role": "user", "content": "word " * 100}])
    assert len(student.requests) - before == 1
    assert len(student.requests) > 13


async def test_a_validators_reason_and_a_tool_call_are_said() -> None:
    fly = Model("s", [act("fly")] * 3, [act("go")] * 3)
    await make(fly, Model("t", act("go")), validators=[one_of(lambda s: ["go"])], **ALWAYS).step(MESSAGES)
    assert "Answer: > Thought: so.\n> Action: fly\nResult: " in str(fly.requests[1]["messages"][-1]["content"])
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{oops"}}
    tools = Model("s", {"role": "assistant", "content": None, "tool_calls": [call]})
    await make(tools, Model("t", "done"), actions=ToolCallActions(), **ALWAYS).step(MESSAGES, tools=[TOOL])
    assert '{"name": "f", "arguments": "{oops"}' in str(tools.requests[1]["messages"][-1]["content"])


async def test_a_round_that_fails_leaves_the_first_on_the_record() -> None:
    student = Model("s", ["?"] * 3, RuntimeError("gone"))
    _, decision = await make(student, Model("t", act("go")), **ALWAYS).step(MESSAGES)
    assert (decision.answered_by, decision.samples, decision.invalid_samples, decision.retried) == ("teacher", 3, 3, 0)
    assert decision.failures == ("student: RuntimeError: gone",)


async def test_a_shadow_logs_both_rounds_and_replay_judges_the_second_at_the_price_of_both() -> None:
    student = Model("s", ["?"] * 3, [act("look")] * 3)
    cascade = make(student, Model("t", act("look")), mode="shadow", **ALWAYS)
    _, decision = await cascade.step(MESSAGES)
    await cascade.settle()
    (shadow,) = recorded(cascade).shadows
    assert [(s.action, s.retry) for s in shadow.samples] == [(None, False)] * 3 + [("look", True)] * 3
    assert shadow.accepted
    step = logged_step(shadow, [*decision.calls, *shadow.calls], True, PriceLookup(None))
    (drawn,) = step.students
    assert ([s.action for s in drawn.samples], drawn.n) == (["look"] * 3, 3)
    assert (sum(s.tokens or 0 for s in drawn.samples), known(drawn.prompt).input) == (60, 200)
