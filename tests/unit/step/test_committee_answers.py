"""What members of a committee answer: whose it is, what is kept of it, and what is no vote."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

import pytest

from agentcascade.actions.base import AutoActions, TextActions, ToolCallActions
from agentcascade.actions.voting import Seat
from agentcascade.errors import BudgetExceeded
from agentcascade.routers.step.consistency import AgreementThreshold, AlwaysStudent
from agentcascade.steplog.records import PriceLookup, logged_step
from agentcascade.types import Completion
from tests.cascades import DEMONSTRATION, MESSAGES, FakeBank, Model, act, known, make, recorded
from tests.committees import committee
from tests.tool_calls import TOOLS, call
from tests.unit.step.test_rollout import FakeBudgets
from tests.waiting import eventually

LOOK, GO = act("look"), act("go")
DECLINED = "I'm sorry, but I can't assist with that."


class Dated(Model):
    """Its provider calls every model alike, as a gateway does that serves them under one name."""

    async def complete(self, messages: Any, **options: Any) -> Completion:
        completion = await super().complete(messages, **options)
        return completion.model_copy(update={"model": "gpt-4o-mini-2024-07-18", "finish_reasons": ("stop",)})


async def test_an_answer_is_of_the_member_that_was_asked_whatever_its_provider_calls_it() -> None:
    members = Dated("dear", LOOK, price="3"), Dated("cheap", LOOK, price="1")
    completion, decision = await committee(*members).step(MESSAGES)
    assert [(c.model, c.dollars) for c in decision.calls] == [("cheap", Decimal(110)), ("dear", Decimal(330))]
    assert (completion.model, completion.dollars, completion.usage.prompt) == ("cheap", Decimal(110), 100)
    assert completion.fields["model"] == "gpt-4o-mini-2024-07-18", "the caller sees it, as with the bare client"
    assert decision.teacher_dollars == 110, "one answer's tokens, not those of both"


async def test_the_log_knows_each_members_tokens_whatever_its_provider_calls_it() -> None:
    members = Dated("dear", [LOOK, GO], price="3"), Dated("cheap", LOOK, price="1")
    cascade = committee(*members, seats=(Seat(2, 1),), mode="shadow")
    _, decision = await cascade.step(MESSAGES)
    await cascade.settle()
    (shadow,) = recorded(cascade).shadows
    step = logged_step(shadow, (*decision.calls, *shadow.calls), None, PriceLookup(None))
    drawn = [(s.model, s.prompt.input if s.prompt else None, [x.tokens for x in s.samples]) for s in step.students]
    assert drawn == [("cheap", 100, [10]), ("dear", 100, [10, 10])]


class Hangs(Model):
    """Never answers, and its bill is not known to be nothing."""

    async def complete(self, messages: Any, **options: Any) -> Completion:
        self.requests.append(options)
        await asyncio.sleep(60)
        raise AssertionError


async def test_a_shadow_that_runs_out_of_time_logs_the_answers_that_came_and_their_bills() -> None:
    members = Model("a", LOOK), Hangs("never", price="2"), Model("b", LOOK, price="3")
    cascade = committee(*members, needed=2, mode="shadow", shadow={"timeout_seconds": 0.5})
    await cascade.step(MESSAGES)
    await cascade.settle()
    (shadow,) = recorded(cascade).shadows
    assert [(s.member, s.action) for s in shadow.samples] == [("a", "look"), ("never", None), ("b", "look")]
    assert shadow.accepted, "as live, where who is late has no vote"
    assert shadow.agreement == pytest.approx(2 / 3)
    assert "TimeoutError" in shadow.failures[0]
    assert shadow.failures[0].endswith("(never)")
    billed = {c.model: c.dollars for c in shadow.calls}
    assert (billed["a"], billed["b"]) == (Decimal(110), Decimal(330))
    assert known(billed["never"]) > 0, "in doubt, more"


async def test_a_shadow_that_ends_with_its_cascade_logs_the_answers_that_came() -> None:
    members = Model("a", LOOK), Hangs("never", price="2")
    cascade = committee(*members, mode="shadow")
    before = asyncio.all_tasks()
    await cascade.step(MESSAGES)
    (task,) = asyncio.all_tasks() - before
    await eventually(lambda: members[1].requests)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    (shadow,) = recorded(cascade).shadows
    assert [(s.member, s.action) for s in shadow.samples] == [("a", "look")], "who was cut off has not abstained"
    assert {c.model for c in shadow.calls} == {"a", "never"}


class HangsLater(Model):
    """Never answers its second request."""

    async def complete(self, messages: Any, **options: Any) -> Completion:
        self.delay = 60.0 if self.requests else 0.0
        return await super().complete(messages, **options)


async def test_samples_of_one_student_that_came_before_the_time_was_up_are_kept_too() -> None:
    router = AgreementThreshold(3, needed=2)
    limits: dict[str, Any] = {"sampling": {"staged": "always", "timeout_seconds": 0.5}}
    cascade = make(HangsLater("s", [LOOK, GO], [LOOK]), Model("t", GO), FakeBank(DEMONSTRATION), router, **limits)
    _, decision = await cascade.step(MESSAGES)
    assert (decision.answered_by, decision.samples, decision.votes) == ("teacher", 2, {"look": 1, "go": 1})
    assert "TimeoutError" in decision.failures[0]


async def test_what_came_in_time_is_answered_with_where_the_teacher_is_over_budget() -> None:
    """And not bought again."""
    members = Model("a", LOOK), Hangs("never", price="3")
    teacher = Model("t", BudgetExceeded("over"))
    allowed: Any = {"budgets": {"when_exceeded": "student"}}
    cascade = committee(*members, teacher=teacher, sampling={"timeout_seconds": 0.5}, **allowed)
    _, decision = await cascade.step(MESSAGES)
    assert (decision.answered_by, decision.action, decision.reason) == ("student", "look", "the teacher is over budget")
    assert len(members[0].requests) == 1


async def test_a_bandit_learns_nothing_of_a_shadow_that_was_cut_short() -> None:
    seen: list[Any] = []

    class Learner(AgreementThreshold):
        def update(self, situation: Any, votes: Any, teacher: Any) -> None:
            seen.append(votes.counts)

    cascade = committee(Model("a", LOOK), Hangs("never"), router=Learner(2, needed=1), mode="shadow")
    before = asyncio.all_tasks()
    await cascade.step(MESSAGES)
    (task,) = asyncio.all_tasks() - before
    await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert seen == []


async def test_a_step_that_runs_out_of_time_has_the_votes_that_came() -> None:
    members = Model("a", LOOK), Model("b", GO), Hangs("never", price="3")
    limits: dict[str, Any] = {"deadline_seconds": 4, "sampling": {"timeout_seconds": 2, "staged": "always"}}
    _, decision = await committee(*members, needed=2, teacher=Model("t", GO), **limits).step(MESSAGES)
    assert (decision.answered_by, decision.votes) == ("teacher", {"look": 1, "go": 1})
    assert {c.model for c in decision.calls} == {"a", "b", "never", "t"}


@pytest.mark.parametrize("form", [TextActions(), AutoActions(), ToolCallActions()])
@pytest.mark.parametrize("across", ["students", "samples"])
async def test_refusals_that_agree_word_for_word_are_no_votes(form: Any, across: str) -> None:
    tools = None if isinstance(form, TextActions) else TOOLS
    if across == "students":
        cascade = committee(Model("a", DECLINED), Model("b", DECLINED), actions=form)
    else:
        router = AgreementThreshold(3, needed=3)
        cascade = make(Model("a", DECLINED), Model("t", "yes"), FakeBank(DEMONSTRATION), router, actions=form)
    _, decision = await cascade.step(MESSAGES, tools=tools)
    assert (decision.answered_by, decision.votes, decision.agreement) == ("teacher", {}, 0.0)
    assert decision.invalid_samples == decision.samples > 1


async def test_what_says_more_than_a_refusal_is_an_answer_and_so_is_the_teachers() -> None:
    no = "I'm sorry, I can't cancel order 17: it has shipped."
    _, decision = await committee(Model("a", no), Model("b", no), actions=TextActions()).step(MESSAGES)
    assert (decision.answered_by, decision.agreement) == ("student", 1.0)
    declines = committee(Model("a", "x"), Model("b", "y"), actions=TextActions(), teacher=Model("t", DECLINED))
    completion, decision = await declines.step(MESSAGES)
    assert completion.messages[0]["content"] == decision.action == DECLINED


async def test_without_a_teacher_a_refusal_is_what_the_caller_gets() -> None:
    cascade = committee(Model("a", DECLINED), Model("b", LOOK), actions=TextActions(), mode="student")
    alone = cascade.twin(teacher=None)
    completion, decision = await alone.step(MESSAGES)
    assert completion.messages[0]["content"] == DECLINED
    assert "a refusal" in decision.reason


async def test_a_tool_exchange_is_kept_by_the_member_that_made_the_call() -> None:
    """Not by the cheapest: that one was outvoted, and its provider knows nothing of the call."""
    members = [Model(name, price=price) for name, price in (("cheap", "1"), ("b", "2"), ("c", "3"))]
    kept = {"keep_model": True}
    cascade = committee(*members, needed=2, actions=AutoActions(), tools=kept, seats=(Seat(), Seat(2), Seat()))
    answers = call("pay"), call("look", id="call_of_b"), call("look", id="call_of_c")
    for member, answer in zip(members, answers):
        member.answers = [answer]
    completion, decision = await cascade.step(MESSAGES, tools=TOOLS)
    assert decision.reason == "agreement 3/4, answer of b"
    (answer,) = completion.messages
    conversation = [*MESSAGES, answer, {"role": "tool", "tool_call_id": answer["tool_calls"][0]["id"], "content": "ok"}]
    for member in members:
        member.requests.clear()
        member.answers = [f"said {member.name}"]
    completion, decision = await cascade.step(conversation, tools=TOOLS)
    assert (decision.answered_by, decision.reason) == ("student", "agreement 1/1, answer of b")
    assert [[r["n"] for r in m.requests] for m in members] == [[], [1], []]
    assert members[1].requests[0]["messages"][-1]["tool_call_id"] == "call_of_b"
    assert (completion.model, completion.dollars) == ("b", Decimal(220))


async def test_a_kept_exchange_whose_member_fails_is_the_teachers_and_one_of_nobody_is_voted_on() -> None:
    members = [Model("a", call("look")), Model("b", call("look"), price="2")]
    cascade = committee(*members, actions=AutoActions(), tools={"keep_model": True})
    completion, _ = await cascade.step(MESSAGES, tools=TOOLS)
    (answer,) = completion.messages
    conversation = [*MESSAGES, answer, {"role": "tool", "tool_call_id": answer["tool_calls"][0]["id"], "content": "ok"}]
    other = committee(*members, actions=AutoActions(), tools={"keep_model": True})  # another replica: whose was it?
    _, decision = await other.step(conversation, tools=TOOLS)
    assert decision.reason == "agreement 2/2, answer of a"
    members[0].answers = [RuntimeError("down")]
    _, decision = await cascade.step(conversation, tools=TOOLS)
    assert (decision.answered_by, len(members[1].requests)) == ("teacher", 2)


async def test_a_chains_exchange_is_kept_by_the_student_that_made_the_call() -> None:
    first, second = Model("a", RuntimeError("down")), Model("b", call("look", id="call_of_b"))
    settings: Any = {"tools": {"keep_model": True}, "sampling": {"across": "samples"}}
    cascade = committee(first, second, router=AlwaysStudent(), actions=AutoActions(), **settings)
    completion, decision = await cascade.step(MESSAGES, tools=TOOLS)
    (answer,) = completion.messages
    assert (decision.answered_by, decision.calls[-1].model) == ("student", "b")
    conversation = [*MESSAGES, answer, {"role": "tool", "tool_call_id": answer["tool_calls"][0]["id"], "content": "ok"}]
    first.answers, second.answers = ["up again"], ["done"]
    _, decision = await cascade.step(conversation, tools=TOOLS)
    assert (decision.action, decision.samples, len(first.requests)) == ("answer:done", 1, 1)


async def test_a_caller_that_goes_away_leaves_the_votes_and_the_bills_of_all() -> None:
    members = Model("a", LOOK), Hangs("never", price="2")
    cascade = committee(*members, teacher=Model("t", GO))
    step = asyncio.ensure_future(cascade.step(MESSAGES))
    await asyncio.sleep(0.01)
    step.cancel()
    await asyncio.gather(step, return_exceptions=True)
    (decision,) = recorded(cascade).decisions
    assert decision.votes == {"look": 1}
    assert {c.model: bool(c.dollars) for c in decision.calls} == {"a": True, "never": True}


async def test_a_budget_that_ends_between_two_members_is_a_vote_that_lacks() -> None:
    """What is reserved for one is not there for the other, nor for the teacher: the vote that was paid for is taken."""
    members = Model("a", LOOK), Model("b", LOOK, price="1.5")
    limits: Any = {"budgets": {"per_episode": "60", "output_tokens": 10, "when_exceeded": "student"}}
    budgets = FakeBudgets("60")
    _, decision = await committee(*members, teacher=Model("t", GO), **limits).twin(budgets=budgets).step(MESSAGES)
    assert (decision.action, decision.votes, decision.reason) == ("look", {"look": 1}, "the teacher is over budget")
    assert [failure.split(": ")[:2] for failure in decision.failures] == [
        ["student", "BudgetExceeded"],
        ["teacher", "BudgetExceeded"],
    ]
    assert decision.failures[0].endswith("(b)")
    assert ([len(m.requests) for m in members], budgets.open) == ([1, 0], {})
    assert sum(budgets.settled) == decision.dollars == 110
