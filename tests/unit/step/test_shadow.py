"""Shadow mode: the teacher answers at once, the student is asked behind it, and everything it said is logged."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections import Counter
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from agentcascade import lifetime
from agentcascade._util.stable_draw import included, pick
from agentcascade.actions.base import AutoActions
from agentcascade.assembly.components import make_router
from agentcascade.cascade import Cascade
from agentcascade.config.sections import RouterConfig
from agentcascade.errors import ConfigError
from agentcascade.prompts.demonstrations import demonstrations_in
from agentcascade.types import Situation, Usage
from tests.cascades import DEMONSTRATION, MESSAGES, FakeBank, Model, act, make, recorded
from tests.tool_calls import TOOLS, call


async def shadowed(cascade: Any) -> Any:
    await cascade.settle()
    return recorded(cascade).shadows


async def test_the_teacher_answers_and_every_sample_of_the_student_is_logged():
    student = Model("s", [act("look"), act("look"), act("go east")])
    cascade = make(student, Model("t", act("look")), FakeBank(DEMONSTRATION), mode="shadow")
    completion, decision = await cascade.step(MESSAGES)
    assert completion.messages[0]["content"] == act("look")
    assert (decision.answered_by, decision.mode, decision.samples) == ("teacher", "shadow", 0)
    assert [c.role for c in decision.calls] == ["teacher"]
    (shadow,) = await shadowed(cascade)
    assert shadow.decision == decision.id
    assert [s.action for s in shadow.samples] == ["look", "look", "go east"]
    assert (shadow.teacher_action, shadow.accepted) == ("look", False)
    assert shadow.agreement == pytest.approx(2 / 3)
    assert [(c.role, c.purpose, c.dollars) for c in shadow.calls] == [("student", "shadow", Decimal(130))]
    assert shadow.demonstrations == ("tr_1:0-1",)
    assert demonstrations_in(student.requests[0]["messages"][1])


async def test_a_unanimous_shadow_would_have_been_accepted():
    cascade = make(Model("s", act("look")), Model("t", act("go")), FakeBank(DEMONSTRATION), mode="shadow")
    await cascade.step(MESSAGES)
    (shadow,) = await shadowed(cascade)
    assert shadow.accepted
    assert shadow.agreement == 1.0


async def test_the_log_says_which_call_was_struck_and_which_does_not_fit_its_tool() -> None:
    """A message that calls a tool has no text: what is no action was logged without a word."""

    class Strikes:
        async def complaint(self, action: Any, situation: Any) -> str:
            return "it is known to fail"

        async def note(self, situation: Any) -> None: ...

    student = Model("s", [call("look", x=7), call("pay", x="much"), call("look", x=7)])
    made = make(student, Model("t", act("look")), mode="shadow", actions=AutoActions())
    failures: Any = Strikes()
    cascade = Cascade(replace(made.context, failures=failures))
    await cascade.step(MESSAGES, tools=TOOLS)
    (shadow,) = await shadowed(cascade)
    assert [(s.action, s.text) for s in shadow.samples][:2] == [
        (None, 'look({"x": 7})'),
        (None, 'pay({"x": "much"})'),
    ]
    assert shadow.samples[0].invalid == "it is known to fail"


async def test_without_the_demonstrations_that_a_cascade_needs_it_would_not():
    cascade = make(Model("s", act("look")), Model("t", act("go")), FakeBank(), mode="shadow")
    await cascade.step(MESSAGES)
    (shadow,) = await shadowed(cascade)
    assert not shadow.accepted


async def test_a_slow_student_does_not_delay_the_answer():
    cascade = make(Model("s", act("look"), delay=0.5), Model("t", act("go")), mode="shadow")
    await cascade.step(MESSAGES)
    assert recorded(cascade).shadows == []
    (shadow,) = await shadowed(cascade)
    assert len(shadow.samples) == 3


@pytest.mark.parametrize("fault", [RuntimeError("boom"), ConnectionError("down")])
async def test_a_failing_student_breaks_nothing_and_is_recorded(fault):
    cascade = make(Model("s", fault), Model("t", act("go")), mode="shadow")
    completion, _ = await cascade.step(MESSAGES)
    assert completion.messages[0]["content"] == act("go")
    (shadow,) = await shadowed(cascade)
    assert shadow.samples == ()
    assert type(fault).__name__ in shadow.failures[0]


async def test_a_shadow_has_a_deadline_of_its_own():
    settings: dict[str, Any] = {"mode": "shadow", "shadow": {"timeout_seconds": 0.05}}
    cascade = make(Model("s", act("look"), delay=60.0), Model("t", act("go")), **settings)
    await cascade.step(MESSAGES)
    started = time.perf_counter()
    (shadow,) = await shadowed(cascade)
    assert time.perf_counter() - started < 30
    assert "TimeoutError" in shadow.failures[0]


async def test_the_rate_is_a_share_of_the_steps_and_more_samples_may_be_drawn_than_the_router_wants():
    settings: dict[str, Any] = {"mode": "shadow", "shadow": {"rate": 0.3, "samples": 7}}
    student = Model("s", act("look"))
    cascade = make(student, Model("t", act("go")), **settings)
    for _ in range(100):
        await cascade.step(MESSAGES)
    shadows = await shadowed(cascade)
    assert 10 < len(shadows) < 55
    assert {len(s.samples) for s in shadows} == {7}
    assert {r["n"] for r in student.requests} == {7}


async def test_shadows_beyond_the_limit_are_left_out():
    settings: dict[str, Any] = {"mode": "shadow", "shadow": {"max_pending": 2}}
    cascade = make(Model("s", act("look"), delay=0.1), Model("t", act("go")), **settings)
    await asyncio.gather(*(cascade.step(MESSAGES) for _ in range(5)))
    assert len(await shadowed(cascade)) == 2


async def test_closing_waits_for_the_shadows():
    cascade = make(Model("s", act("look"), delay=0.1), Model("t", act("go")), mode="shadow")
    await cascade.step(MESSAGES)
    await cascade.aclose()
    assert len(recorded(cascade).shadows) == 1


def test_shadow_needs_both_models():
    with pytest.raises(ConfigError, match=r"mode 'shadow' needs a student"):
        make(None, Model("t", act("go"))).engine.check_mode("shadow")


def test_a_share_is_sticky_and_grows():
    ids = [f"ep_{i}" for i in range(2000)]
    few, many = ({i for i in ids if included(i, share)} for share in (0.2, 0.5))
    assert few < many
    assert 300 < len(few) < 500
    assert all(included(i, 1.0) and not included(i, 0.0) for i in ids)


async def test_a_shadow_says_what_tuning_needs():
    settings: dict[str, Any] = {
        "mode": "shadow",
        "shadow": {"rate": 0.999},
        "sampling": {"temperature": 0.4},
        "retrieval": {"k": 5},
    }
    cascade = make(Model("s", act("look")), Model("t", act("go")), FakeBank(DEMONSTRATION), **settings)
    situation = Situation(goal="find a mug", observation="a room", category="find", episode="e", history=())
    await cascade.step(MESSAGES, situation=situation)
    (shadow,) = await shadowed(cascade)
    assert (shadow.goal, shadow.observation, shadow.category) == ("find a mug", "a room", "find")
    assert (shadow.temperature, shadow.k, shadow.similarity, shadow.propensity) == (0.4, 5, 0.9, 0.999)


async def test_without_demonstrations_there_is_neither_k_nor_similarity():
    cascade = make(Model("s", act("look")), Model("t", act("go")), mode="shadow")
    await cascade.step(MESSAGES)
    (shadow,) = await shadowed(cascade)
    assert (shadow.k, shadow.similarity) == (0, None)


async def test_a_log_holds_several_settings_each_step_one_of_them_the_same_in_every_run():
    more = [DEMONSTRATION.model_copy(update={"trajectory": f"tr_{i}"}) for i in range(6)]
    runs = []
    for _ in range(2):
        student = Model("s", act("look"))
        settings: dict[str, Any] = {
            "mode": "shadow",
            "shadow": {"temperatures": [0.0, 0.7], "ks": [0, 2, 4], "max_pending": 200},
        }
        cascade = make(student, Model("t", act("go")), FakeBank(*more), **settings)
        for number in range(120):
            await cascade.step(MESSAGES, situation=Situation(goal="g", episode=f"e{number // 10}", history=()))
            await cascade.settle()
        shadows = recorded(cascade).shadows
        assert [r["temperature"] for r in student.requests] == [s.temperature for s in shadows]
        assert all(len(s.demonstrations) == s.k for s in shadows)
        runs.append([(s.temperature, s.k) for s in shadows])
    assert runs[0] == runs[1]


def test_lots_fall_evenly_and_apart_from_each_other():
    steps = [f"ep_{i}:{j}" for i in range(500) for j in range(6)]
    counts = Counter((pick(s, (0.1, 0.7), "temperature"), pick(s, (0, 3, 6), "k")) for s in steps)
    assert len(counts) == 6
    assert all(400 < count < 600 for count in counts.values())


@pytest.mark.parametrize("wrong", [{"temperatures": [0.1, 3]}, {"ks": [-1]}])
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        make(None, Model("t", act("go")), shadow=wrong)


async def test_the_teachers_estimate_counts_one_prompt_however_many_requests_the_samples_took():
    class OneByOne(Model):
        async def complete(self, messages, *, n=1, **options):
            made = await super().complete(messages, n=n, **options)
            return made.model_copy(update={"usage": Usage(input=100 * n, output=10 * n), "calls": n})

    student, teacher = OneByOne("s", act("look")), Model("t", act("look"), price="10")
    _, decision = await make(student, teacher, mode="cascade", sampling={"staged": "never"}).step(MESSAGES)
    assert (decision.calls[0].usage.prompt, decision.calls[0].requests) == (300, 3)
    assert decision.teacher_dollars == Decimal(10) * (100 + 10)


@pytest.mark.parametrize("router", ["teacher", "random", "student"])
async def test_a_router_that_wants_no_samples_gets_a_bounded_shadow(router):
    student = Model("s", [act("look")] * 400)
    made = make_router(RouterConfig(name=router, options={"p": 1.0} if router == "random" else {}))
    cascade = make(student, Model("t", act("look")), mode="shadow", router=made)
    await cascade.step(MESSAGES)
    (shadow,) = await shadowed(cascade)
    assert len(shadow.samples) == (1 if router == "student" else 3)
    assert shadow.accepted is (router == "student")


async def test_a_router_without_a_verdict_ends_with_its_samples():
    class Undecided:
        name = "undecided"

        def samples(self, situation):
            return 2

        def judge(self, situation, tally, remaining):
            return None

    cascade = make(Model("s", [act("look")] * 400), Model("t", act("look")))
    cascade = cascade.twin(router=Undecided())
    _, decision = await cascade.step(MESSAGES)
    assert (decision.answered_by, decision.samples) == ("teacher", 2)


@pytest.mark.parametrize("mode", ["shadow", "cascade"])
async def test_a_cascade_that_nobody_holds_is_open_until_its_shadows_and_audits_are_recorded(
    mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lifetime, "EXIT_SECONDS", 0.01)
    asked, go_on, closed = asyncio.Event(), asyncio.Event(), threading.Event()

    class Gated(Model):
        async def complete(self, messages: Any, **options: Any) -> Any:
            asked.set()
            await go_on.wait()
            return await super().complete(messages, **options)

    gated, quick = Gated("gated", act("look")), Model("quick", act("look"))
    student, teacher = (gated, quick) if mode == "shadow" else (quick, gated)
    cascade = make(student, teacher, mode=mode, audit={"rate": 1.0}, retrieval={"k": 0})
    recorder = recorded(cascade)
    cascade.on_close(closed.set)
    await cascade.step(MESSAGES)
    await asyncio.wait_for(asked.wait(), 60)
    del cascade, student, teacher
    gc.collect()
    assert not await asyncio.to_thread(closed.wait, 0.2)
    go_on.set()
    await asyncio.gather(*(asyncio.all_tasks() - {asyncio.current_task()}))
    assert len(recorder.shadows) == 1
    gc.collect()
    assert await asyncio.to_thread(closed.wait, 10)
