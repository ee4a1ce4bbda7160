"""Samples of varied prompts: a request for each prompt, deterministic, on the bill, and marked in decision and log."""

from __future__ import annotations

from typing import Any

import pytest

from agentcascade.prompts.demonstrations import demonstrations_in
from agentcascade.routers.tuning.columns import Arm, arm_of
from agentcascade.steplog.records import PriceLookup, logged_step
from tests.cascades import DEMONSTRATION, MESSAGES, FakeBank, Model, act, make

BANK = [DEMONSTRATION.model_copy(update={"trajectory": f"tr_{i}", "goal": f"goal {i}"}) for i in range(3)]


def shown(request: Any) -> list[str]:
    found = next(found for message in request["messages"] if (found := demonstrations_in(message)))
    return [d.goal[-1] for d in found.demonstrations]


def varying(how: str, student: Any, number: int = 3, **settings: Any) -> Any:
    sampling = {"vary": how, "staged": "never", **settings.pop("sampling", {})}
    return make(student, Model("t", act("go")), FakeBank(*BANK[:number]), sampling=sampling, **settings)


@pytest.mark.parametrize(
    ("how", "prompts"), [("order", ["012", "120", "201"]), ("subsets", ["01", "02", "12"]), ("none", ["012"])]
)
async def test_each_sample_has_its_own_prompt_and_pays_for_it(how: str, prompts: list[str]) -> None:
    for _ in range(2):
        student = Model("s", act("look"))
        _, decision = await varying(how, student).step(MESSAGES, seed=5)
        assert ["".join(shown(request)) for request in student.requests] == prompts
        assert [request["seed"] for request in student.requests] == [5, 6, 7][: len(prompts)]
        assert (decision.prompts, decision.samples, decision.reason) == (len(prompts), 3, "agreement 3/3")
        assert sum(c.usage.prompt for c in decision.calls) == 100 * len(prompts)


async def test_staged_samples_go_on_with_the_next_prompt() -> None:
    student = Model("s", act("look"))
    await varying("order", student, sampling={"staged": "auto"}).step(MESSAGES)
    assert ["".join(shown(request)) for request in student.requests] == ["012", "120", "201"]


async def test_one_demonstration_leaves_one_prompt() -> None:
    student = Model("s", act("look"))
    _, decision = await varying("order", student, 1).step(MESSAGES)
    assert (len(student.requests), student.requests[0]["n"], decision.prompts) == (1, 3, 1)


async def test_a_prompt_that_fails_has_no_vote_and_none_at_all_is_a_failure() -> None:
    student = Model("s", act("look"), RuntimeError("gone"), act("look"))
    _, decision = await varying("order", student).step(MESSAGES)
    assert (decision.answered_by, decision.reason) == ("teacher", "agreement 2/3")
    assert decision.failures == ("student: RuntimeError: gone",)
    _, decision = await varying("order", Model("s", RuntimeError("gone"))).step(MESSAGES)
    assert (decision.answered_by, decision.samples) == ("teacher", 0)


async def test_a_log_says_how_its_samples_were_drawn() -> None:
    cascade = varying("subsets", Model("s", act("look")), mode="shadow")
    _, decision = await cascade.step(MESSAGES)
    await cascade.settle()
    (shadow,) = cascade.context.recorder.shadows
    step = logged_step(shadow, [*decision.calls, *shadow.calls], True, PriceLookup(None))
    assert arm_of(step, step.students[0]) == Arm("s", 0.1, 6, "2/2", "subsets")
    assert "vary=subsets" in str(arm_of(step, step.students[0]))
