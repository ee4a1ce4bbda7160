"""Rolling out: a share of the episodes, the kill switch, budgets, tools with side effects, a guard on switching."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

import pytest

from agentcascade.actions.base import AutoActions
from agentcascade.errors import BudgetExceeded, UnknownPrice
from agentcascade.routers.step.consistency import AgreementThreshold
from agentcascade.types import Account
from tests.cascades import DEMONSTRATION, MESSAGES, FakeBank, Model, act, make, recorded
from tests.tool_calls import TOOLS, call
from tests.waiting import eventually


class FakeBudgets:
    def __init__(self, left="1000", error=None):
        self.left, self.error, self.open, self.settled, self.asked = Decimal(left), error, {}, [], []
        self.booked = []

    async def reserve(self, accounts, dollars, seconds):
        if self.error:
            raise self.error
        self.asked.append((tuple(a.scope for a in accounts), dollars))
        if dollars > self.left - sum(self.open.values()):
            raise BudgetExceeded("over", accounts[0].scope)
        self.open[id := f"r{len(self.asked)}"] = dollars
        return id

    async def settle(self, reservation, dollars):
        self.left -= dollars
        self.open.pop(reservation)
        self.settled.append(dollars)

    async def book(self, accounts, dollars):
        self.booked.append(([a.scope for a in accounts], dollars))


class Position:
    on = False


async def test_the_share_of_episodes_in_the_cascade_is_sticky_and_the_rest_go_to_the_teacher():
    cascade = make(
        Model("s", act("look")), Model("t", act("go")), rollout={"share": 0.5}, prompt={"min_demonstrations": 0}
    )
    modes = {f"ep{i}": cascade.episode(id=f"ep{i}").mode for i in range(200)}
    assert set(modes.values()) == {"cascade", "teacher"}
    assert 60 < sum(m == "cascade" for m in modes.values()) < 140
    assert modes == {id: cascade.episode(id=id).mode for id in modes}
    assert cascade.episode(id="ep1", mode="collect").mode == "collect"


async def test_the_kill_switch_sends_every_step_to_the_teacher_and_back():
    student = Model("s", act("look"))
    cascade = make(student, Model("t", act("go")), FakeBank(DEMONSTRATION))
    switch = Position()
    cascade = cascade.twin(switch=switch)
    answers = []
    for on in (False, True, False):
        switch.on = on
        _, decision = await cascade.step(MESSAGES)
        answers.append((decision.answered_by, decision.mode))
    assert answers == [("student", "cascade"), ("teacher", "teacher"), ("student", "cascade")]
    assert len(student.requests) == 2


async def test_every_call_is_reserved_at_its_worst_and_settled_at_what_it_cost():
    cascade = make(Model("s", [act("a"), act("b"), act("c")]), Model("t", act("go")), FakeBank(DEMONSTRATION))
    budgets = FakeBudgets("100000")
    cascade = cascade.twin(budgets=budgets)
    account = Account(scope="key", name="k", limit=Decimal(100000))
    _, decision = await cascade.step(MESSAGES, accounts=[account], options={"max_tokens": 50})
    assert decision.answered_by == "teacher"
    assert budgets.settled == [Decimal(130), Decimal(110)]
    assert decision.dollars == 240
    assert budgets.open == {}
    (_, student), (_, teacher) = budgets.asked
    assert student > teacher > 50


async def test_no_account_no_reservation():
    cascade = make(Model("s", act("look")), Model("t", act("go")), FakeBank(DEMONSTRATION))
    budgets = FakeBudgets("0")
    await cascade.twin(budgets=budgets).step(MESSAGES)
    assert budgets.asked == []


async def test_over_budget_is_a_typed_error_that_says_whose():
    cascade = make(None, Model("t", act("go")), mode="teacher", budgets={"per_episode": "1"})
    cascade = cascade.twin(budgets=FakeBudgets("10"))
    with pytest.raises(BudgetExceeded) as raised:
        await cascade.step(MESSAGES)
    assert raised.value.scope == "episode"
    (decision,) = recorded(cascade).decisions
    assert "BudgetExceeded" in decision.failures[0]


async def test_where_the_teacher_does_not_fit_the_student_may_answer_alone():
    budgets = {"per_namespace": "1", "when_exceeded": "student", "output_tokens": 10}
    student = Model("s", [act("a"), act("b"), act("a")], act("x"))
    cascade = make(student, Model("t", act("go"), price="100"), FakeBank(DEMONSTRATION), budgets=budgets)
    cascade = cascade.twin(budgets=FakeBudgets("500"))
    completion, decision = await cascade.step(MESSAGES)
    assert completion.messages[0]["content"] == act("a")
    assert (decision.answered_by, decision.reason) == ("student", "the teacher is over budget")
    assert len(student.requests) == 1


@pytest.mark.parametrize(("feed_back", "samples"), [("never", 4), ("always", 7)])
async def test_over_budget_samples_in_vain_are_in_the_decision_beside_the_one_that_is_taken(feed_back, samples):
    budgets = {"per_namespace": "1", "when_exceeded": "student", "output_tokens": 10}
    student = Model("s", *[["?"] * 3] * (samples // 3), act("a"))
    cascade = make(student, Model("t", act("go"), price="100"), budgets=budgets, sampling={"feed_back": feed_back})
    cascade = cascade.twin(budgets=FakeBudgets("500"))
    _, decision = await cascade.step(MESSAGES)
    assert (decision.action, decision.samples, decision.invalid_samples) == ("a", samples, samples - 1)
    assert sum(call.usage.output for call in decision.calls) == 10 * samples


async def test_over_budget_in_mode_teacher_the_student_is_asked_now():
    budgets = {"per_namespace": "1", "when_exceeded": "student", "output_tokens": 10}
    cascade = make(Model("s", act("a")), Model("t", act("go"), price="100"), mode="teacher", budgets=budgets)
    cascade = cascade.twin(budgets=FakeBudgets("500"))
    _, decision = await cascade.step(MESSAGES)
    assert decision.answered_by == "student"


async def test_a_budget_over_an_unknown_price_is_refused_rather_than_ignored():
    cascade = make(None, Model("t", act("go"), price=None), mode="teacher", budgets={"per_episode": "1"})
    cascade = cascade.twin(budgets=FakeBudgets())
    with pytest.raises(UnknownPrice, match="set price"):
        await cascade.step(MESSAGES)


async def test_a_database_that_cannot_be_asked_lets_the_step_go_on_unless_told_otherwise():
    for policy, answered in (("allow", True), ("refuse", False)):
        section = {"per_episode": "1", "when_unavailable": policy}
        cascade = make(None, Model("t", act("go")), mode="teacher", budgets=section)
        budgets = FakeBudgets(error=ConnectionError("database gone"))
        cascade = cascade.twin(budgets=budgets)
        if answered:
            _, decision = await cascade.step(MESSAGES)
            assert "budget: ConnectionError" in decision.failures[0]
            await asyncio.sleep(0)  # it is booked behind the answer
            assert budgets.booked == [(["episode"], decision.dollars)]
        else:
            with pytest.raises(ConnectionError):
                await cascade.step(MESSAGES)


async def test_a_call_that_is_cancelled_is_settled_at_the_worst_that_may_come_of_it(monkeypatch):
    monkeypatch.setattr("agentcascade.billing.door.LINGER_SECONDS", 0)
    teacher = Model("t", act("go"), delay=60)
    cascade = make(None, teacher, mode="teacher", budgets={"per_episode": "1"})
    budgets = FakeBudgets("100000")
    cascade = cascade.twin(budgets=budgets)
    task = asyncio.create_task(cascade.step(MESSAGES))
    await eventually(lambda: teacher.requests)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await eventually(lambda: not budgets.open)
    ((_, reserved),) = budgets.asked
    assert budgets.settled == [reserved]


@pytest.mark.parametrize(
    ("names", "answered_by", "requests"),
    [
        (["look"] * 3, "student", 1),
        (["pay"] * 3 + ["pay"] * 2, "student", 2),
        (["pay"] * 3 + ["look"] * 2, "teacher", 2),
    ],
)
async def test_tools_with_side_effects_need_more_agreement(names, answered_by, requests):
    student = Model("s", [call(n) for n in names[:3]], [call(n) for n in names[3:]])
    tools = {"side_effects": ["pay"], "side_effects_samples": 5, "side_effects_agreement": 1.0}
    cascade = make(student, Model("t", call("look")), FakeBank(DEMONSTRATION), tools=tools, actions=AutoActions())
    _, decision = await cascade.step(MESSAGES, tools=TOOLS)
    assert decision.answered_by == answered_by
    assert len(student.requests) == requests
    if answered_by == "teacher":
        assert "on pay" in decision.reason


async def test_a_lower_threshold_for_the_rest_does_not_lower_it_for_side_effects():
    for name, answered_by in (("look", "student"), ("pay", "teacher")):
        student = Model("s", [call(name), call(name), call(name, x=2)])
        cascade = make(
            student,
            Model("t", call("look")),
            tools={"side_effects": ["pay"]},
            actions=AutoActions(),
            router=AgreementThreshold(3, 0.6),
        )
        _, decision = await cascade.step(MESSAGES, tools=TOOLS)
        assert decision.answered_by == answered_by


async def test_the_switch_guard_keeps_a_model_until_its_tool_exchange_is_answered():
    student, teacher = Model("s", call("look")), Model("t", call("pay"))
    cascade = make(student, teacher, FakeBank(DEMONSTRATION), tools={"keep_model": True}, actions=AutoActions())
    conversation = list(MESSAGES)
    seen = []
    for mode in ("student", "cascade", "teacher", "cascade"):
        completion, decision = await cascade.step(conversation, tools=TOOLS, mode=mode)
        seen.append(decision.answered_by)
        message = completion.messages[0]
        result = {"role": "tool", "tool_call_id": message["tool_calls"][0]["id"], "content": "ok"}
        conversation += [message, result]
    assert seen == ["student", "student", "teacher", "teacher"]
    assert student.requests[1]["n"] == 1


async def test_ids_stay_consistent_when_models_switch_in_mid_episode():
    student, teacher = Model("s", call("look", id="call_A")), Model("t", call("pay", id="toolu_0123__thought__AbC=="))
    cascade = make(student, teacher, FakeBank(DEMONSTRATION), actions=AutoActions())
    conversation = list(MESSAGES)
    for mode in ("student", "teacher", "student", "teacher"):
        completion, _ = await cascade.step(conversation, tools=TOOLS, mode=mode)
        (made,) = completion.messages[0]["tool_calls"]
        assert made["id"].isalnum()
        assert len(made["id"]) == 9
        conversation += [completion.messages[0], {"role": "tool", "tool_call_id": made["id"], "content": "ok"}]
    for model in (student, teacher):
        sent = model.requests[-1]["messages"]
        calls = [c["id"] for m in sent for c in m.get("tool_calls") or ()]
        results = [m["tool_call_id"] for m in sent if m["role"] == "tool"]
        assert calls == results
        assert len(set(calls)) == len(calls)
    assert "toolu_0123__thought__AbC==" in [
        c["id"] for m in teacher.requests[-1]["messages"] for c in m.get("tool_calls") or ()
    ]


async def test_structured_answers_agree_on_their_values_and_must_fit_the_schema():
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    same = ['{"a": 1, "b": 2}', '{"b":2,"a":1}', '```json\n{"b": 2.0, "a": 1}\n```']
    for texts, answered_by in ((same, "student"), (['{"b": 1}'] * 3, "teacher"), (["no json"] * 3, "teacher")):
        cascade = make(Model("s", texts), Model("t", '{"a": 0}'), FakeBank(DEMONSTRATION), actions=AutoActions())
        _, decision = await cascade.step(MESSAGES, options={"response_format": wanted})
        assert decision.answered_by == answered_by, texts


async def test_several_answers_at_once_all_come_from_the_teacher():
    student, teacher = Model("s", act("look")), Model("t", [act("a"), act("b")])
    episode = make(student, teacher, FakeBank(DEMONSTRATION)).episode()
    answer = await episode.complete(MESSAGES, n=2)
    assert [c.message.content for c in answer.choices] == [act("a"), act("b")]
    assert teacher.requests[0]["n"] == 2
    assert student.requests == []


async def test_the_student_gets_only_options_that_mean_the_same_to_every_model():
    student, teacher = Model("s", [act("a"), act("b"), act("c")]), Model("t", act("go"))
    episode = make(student, teacher, FakeBank(DEMONSTRATION)).episode()
    secret: dict[str, Any] = {"extra_headers": {"x-api-key": "teachers-own"}, "thinking": {"type": "enabled"}}
    await episode.complete(MESSAGES, max_tokens=9, **secret)
    assert student.requests[0]["max_tokens"] == 9
    assert not secret.keys() & student.requests[0].keys()
    assert secret.items() <= teacher.requests[0].items()
