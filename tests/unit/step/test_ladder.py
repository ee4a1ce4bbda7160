"""Ladders: rungs of one model and of others, climbed in turn; what a decision says; ceilings; replay as it was live."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentcascade.actions.base import AutoActions, RegexActions
from agentcascade.cascade import Cascade
from agentcascade.config.effort import Effort, effort_of, parse_effort
from agentcascade.config.load import CascadeConfig
from agentcascade.errors import InvalidRequest
from agentcascade.models.effort import EffortModel, at_effort
from agentcascade.models.pricing import Price, PriceTable
from agentcascade.routers.step.consistency import AgreementThreshold
from agentcascade.routers.tuning.columns import chain
from agentcascade.routers.tuning.costs import Bill
from agentcascade.routers.tuning.replay import replay
from agentcascade.routers.tuning.rules import Chain, Threshold
from agentcascade.step.context import FurtherStudent, StepContext
from agentcascade.step.sample_batches import ENOUGH
from agentcascade.steplog.records import PriceLookup, logged_step
from agentcascade.types import Completion, Usage
from tests.cascades import DEMONSTRATION, MESSAGES, FakeBank, Model, Recorder, act, recorded
from tests.committees import committee
from tests.tool_calls import call

PRICE = {"input": 1, "output": 10}


class Thinks(Model):
    """A model of somebody's own: an answer for each effort, and as many reasoning tokens as it is asked for."""

    efforts = ("none", "low", "high")

    def __init__(self, name: str, by_effort: dict[str, Any], price: dict[str, float] | None = None) -> None:
        super().__init__(name, "?")
        self.by_effort, self.table = by_effort, PriceTable({name: price or PRICE}).lookup(name)

    def dollars(self, usage: Usage) -> Decimal | None:
        assert self.table is not None
        return self.table.dollars(usage)

    async def complete(self, messages: Any, *, n: int = 1, **options: Any) -> Completion:
        effort = options.get("reasoning_effort", "none")
        self.requests.append({"messages": list(messages), "n": n, **options})
        answers = self.by_effort[effort]
        answers = (answers if isinstance(answers, list) else [answers] * n)[:n]
        if isinstance(answers[0], Exception):
            raise answers[0]
        thought = int(parse_effort(effort).expected_tokens() or 0) * n
        usage = Usage(input=100, output=10 * n, reasoning=thought)
        texts = tuple(a if isinstance(a, dict) else {"role": "assistant", "content": a} for a in answers)
        return Completion(model=self.name, messages=texts, usage=usage, dollars=self.dollars(usage))


def rung(model: Any, effort: str) -> Any:
    return at_effort(model, Effort(effort))


def ladder(
    *models: Any, needed: tuple[tuple[int, int], ...] = (), bank: Any = None, actions: Any = None, **config: Any
) -> Cascade:
    """All but the last are judged by `needed` of (needed, samples)."""
    rules = [AgreementThreshold(n, needed=k) for k, n in needed or ((2, 2),) * (len(models) - 1)]
    first, *further = models[:-1]
    return Cascade(
        StepContext(
            config=CascadeConfig(student={"name": first.name}, sampling={"staged": "never"}, **config),
            router=rules[0],
            count=lambda text: len(text.split()),
            teacher=models[-1],
            student=first,
            students=tuple(FurtherStudent(m, r) for m, r in zip(further, rules[1:])),
            bank=bank,
            actions=actions or RegexActions(),
            recorder=Recorder(),
        )
    )


def split(*said: str) -> list[str]:
    return [act(action) for action in said]


async def test_each_rungs_votes_and_dollars_are_in_the_decision_and_sum_to_the_bill() -> None:
    s = Thinks("s", {"none": split("a", "b"), "high": split("c", "c")})
    t = Thinks("t", {"low": split("x", "y"), "high": act("teach")}, {"input": 20, "output": 200})
    cascade = ladder(rung(s, "none"), rung(s, "high"), rung(t, "low"), rung(t, "high"))
    completion, decision = await cascade.step(MESSAGES)
    assert [r.model for r in decision.rungs] == ["s@none", "s@high"]
    below, took = decision.rungs
    assert (below.votes, below.agreement, below.accepted) == ({"a": 1, "b": 1}, 0.5, False)
    assert (took.votes, took.agreement, took.accepted, took.samples) == ({"c": 2}, 1.0, True, 2)
    assert decision.reason == "agreement 2/2, rung s@high"
    assert sum(r.dollars or 0 for r in decision.rungs) == decision.dollars
    assert {c.model: c.usage.reasoning for c in decision.calls} == {"s@none": 0, "s@high": 2 * 4096}
    assert took.dollars == s.dollars(Usage(input=100, output=20, reasoning=8192))
    assert (completion.model, t.requests) == ("s@high", [])


async def test_where_no_rung_is_accepted_the_last_takes_the_step_and_reads_what_its_model_was_sent_below() -> None:
    """The same bytes, demonstrations included: the provider's cache holds them."""
    s = Thinks("s", {"none": split("a", "b"), "high": RuntimeError("down")})
    t = Thinks("t", {"low": split("x", "y"), "high": act("teach")}, {"input": 20, "output": 200})
    bank = FakeBank(DEMONSTRATION)
    cascade = ladder(rung(s, "none"), rung(s, "high"), rung(t, "low"), rung(t, "high"), bank=bank)
    _, decision = await cascade.step(MESSAGES)
    assert [(r.model, r.role, r.accepted) for r in decision.rungs] == [
        ("s@none", "student", False), ("s@high", "student", False), ("t@low", "student", False),
        ("t@high", "teacher", True),
    ]  # fmt: skip
    assert decision.rungs[1].votes == {}
    assert decision.rungs[2].votes == {"x": 1, "y": 1}
    assert sum(r.dollars or 0 for r in decision.rungs) == decision.dollars
    assert (decision.answered_by, decision.action) == ("teacher", "teach")
    for model in (s, t):
        one, other = (request["messages"] for request in model.requests)
        assert one == other
        assert len(str(one)) > len(str(MESSAGES))  # demonstrations
    other = Model("u", act("teach"))
    await ladder(rung(s, "none"), other, bank=bank).step(MESSAGES)
    assert other.requests[0]["messages"] == MESSAGES


@pytest.mark.parametrize("mode", ["cascade", "shadow"])
async def test_rungs_of_one_model_read_the_same_bytes_though_another_model_stands_between_them(mode: Any) -> None:
    """And so does its teacher, though the bank has since been told of something nearer."""

    class Fills(FakeBank):
        async def retrieve(self, situation: Any, k: int) -> Any:
            found = await super().retrieve(situation, k)
            goal = f"goal {len(self.demonstrations)}"
            self.demonstrations.insert(0, DEMONSTRATION.model_copy(update={"goal": goal, "trajectory": goal}))
            return found

    s, t = (Thinks(name, dict.fromkeys(("none", "low", "high"), split("a", "b"))) for name in "st")
    rungs = rung(s, "none"), rung(t, "low"), rung(s, "high"), rung(t, "high")
    cascade = ladder(*rungs, bank=Fills(DEMONSTRATION), mode=mode, shadow={"samples": 2}, retrieval={"k": 1})
    await cascade.step(MESSAGES)
    await cascade.settle()
    for model in (s, t):
        efforts = [r.get("reasoning_effort", "none") for r in model.requests]
        assert len(model.requests) == 2, efforts
    assert s.requests[0]["messages"] == s.requests[1]["messages"]
    below, top = t.requests if mode == "cascade" else (t.requests[1], None)
    assert below["messages"] != s.requests[0]["messages"]  # it was retrieved for that model anew
    assert top is None or top["messages"] == below["messages"]


@pytest.mark.parametrize("below", [0, 1, 2])
async def test_what_a_climb_asked_in_vain_is_no_part_of_what_the_teacher_alone_would_have_cost(below: int) -> None:
    t = Model("t", act("teach"), price="10")
    in_vain = [Thinks(f"s{i}", {"none": split("a", "b")}) for i in range(below)]
    cascade = ladder(*in_vain, Thinks("took", {"none": split("c", "c")}), t)
    _, decision = await cascade.step(MESSAGES)
    assert (decision.answered_by, decision.samples) == ("student", 2)
    assert decision.teacher_dollars == t.dollars(Usage(input=100, output=10)), "one prompt, and one answer"


@pytest.mark.parametrize(("effort", "thought"), [("none", 0), ("low", 1024), ("high", 4096)])
async def test_the_teacher_alone_thinks_no_more_than_its_own_effort_though_the_student_did(
    effort: str, thought: int
) -> None:
    s, t = Thinks("s", {"high": split("c", "c")}), Thinks("t", {}, {"input": 20, "output": 200})
    _, decision = await ladder(rung(s, "high"), rung(t, effort)).step(MESSAGES)
    assert decision.calls[0].usage.reasoning == 2 * 4096
    assert decision.teacher_dollars == t.dollars(Usage(input=100, output=10, reasoning=thought))


@pytest.mark.parametrize(
    ("ceiling", "asked", "efforts"),
    [
        (None, ["s@none", "s@high", "t@low", "t@high"], ["low", "high"]),
        ("high", ["s@none", "s@high", "t@low", "t@high"], ["low", "high"]),
        ("low", ["s@none", "t@low"], ["low"]),  # as the teacher, not twice
        (2000, ["s@none", "t@low"], ["low"]),
        ("none", ["s@none", "t@none"], ["none"]),
        (False, ["s@none", "t@none"], ["none"]),
    ],
)
async def test_a_ceiling_is_kept_by_every_rung(ceiling: Any, asked: list[str], efforts: list[str]) -> None:
    s = Thinks("s", {"none": split("a", "b"), "high": split("c", "d")})
    both = split("x", "y")
    t = Thinks("t", {"none": both, "low": both, "high": both}, {"input": 20, "output": 200})
    cascade = ladder(rung(s, "none"), rung(s, "high"), rung(t, "low"), rung(t, "high"))
    options = {} if ceiling is None else {"max_effort": ceiling}
    _, decision = await cascade.step(MESSAGES, options=options)
    assert [r.model for r in decision.rungs] == asked
    assert [request["reasoning_effort"] for request in t.requests] == efforts
    assert all("max_effort" not in request for request in (*s.requests, *t.requests))


@pytest.mark.parametrize(("ceiling", "is_shown"), [(None, True), ("low", False), ("none", False)])
async def test_a_teacher_whose_own_rung_was_not_asked_is_shown_no_demonstrations(ceiling: Any, is_shown: bool) -> None:
    """No cache holds them: they would only be paid."""
    s, both = Thinks("s", {"none": split("a", "b")}), split("x", "y")
    t = Thinks("t", {"none": both, "low": both, "high": both}, {"input": 20, "output": 200})
    cascade = ladder(rung(s, "none"), rung(t, "low"), rung(t, "high"), bank=FakeBank(DEMONSTRATION))
    _, decision = await cascade.step(MESSAGES, options={} if ceiling is None else {"max_effort": ceiling})
    assert (decision.answered_by, len(t.requests)) == ("teacher", 2 if is_shown else 1)
    assert (t.requests[-1]["messages"] != MESSAGES) == is_shown
    assert s.requests[0]["messages"] != MESSAGES


@pytest.mark.parametrize("first", [0, 1])
async def test_a_committee_with_a_member_above_the_ceiling_is_not_asked_wherever_that_sits(first: int) -> None:
    members: list[Any] = [rung(Thinks("s", {"high": act("c")}), "high"), Model("u", act("c"))]
    cascade = committee(members[first], members[1 - first])
    _, decision = await cascade.step(MESSAGES, options={"max_effort": "low"})
    assert [call.model for call in decision.calls] == ["t"]
    assert decision.reason == "no student is asked under max_effort low"
    _, decision = await cascade.step(MESSAGES, options={"max_effort": "high"})
    assert (decision.answered_by, decision.samples) == ("student", 2)


@pytest.mark.parametrize("wrong", ["hgih", "0.5x", 0, "max "[:3] + "!"])
async def test_a_ceiling_that_is_none_is_the_callers_error(wrong: Any) -> None:
    teacher = Model("t", act("teach"))
    cascade = ladder(rung(Thinks("s", {"none": split("a", "b")}), "none"), teacher)
    with pytest.raises(InvalidRequest, match="max_effort"):
        await cascade.step(MESSAGES, options={"max_effort": wrong})
    assert teacher.requests == []


async def test_what_a_request_asks_itself_of_the_teacher_is_under_its_ceiling() -> None:
    teacher = Thinks("t", {"low": act("teach"), "none": act("teach")})
    cascade = ladder(rung(Thinks("s", {"none": split("a", "b")}), "none"), teacher)
    await cascade.step(MESSAGES, options={"reasoning_effort": "high", "max_effort": "low"})
    budget = {"type": "enabled", "budget_tokens": 9000}
    await cascade.step(MESSAGES, options={"extra_body": {"max_effort": "low"}, "thinking": budget})
    assert teacher.requests[0]["reasoning_effort"] == "low"
    assert teacher.requests[1]["thinking"]["budget_tokens"] == 1024


async def test_one_models_tool_calls_and_thoughts_are_its_own_at_every_effort_and_no_other_models() -> None:
    thought = {"reasoning_content": "hm"}
    made = [{**call("look", id="call_of_s"), **thought}]
    s = Thinks("s", {"none": made * 2, "low": ["said", "said"], "high": ["told", "told"]})
    t = Model("t", "teach")
    cascade = ladder(rung(s, "none"), rung(s, "high"), t, actions=AutoActions())
    tools = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}]
    completion, decision = await cascade.step(MESSAGES, tools=tools)
    assert decision.answered_by == "student"
    (answer,) = completion.messages
    result = {"role": "tool", "tool_call_id": answer["tool_calls"][0]["id"], "content": "a bed"}
    s.by_effort = {"none": ["a", "b"], "high": ["c", "d"]}
    s.requests.clear()
    await cascade.step([*MESSAGES, answer, result], tools=tools)
    at_none, at_high = (request["messages"] for request in s.requests)
    assert at_none == at_high
    assert at_none[-2]["reasoning_content"] == "hm"
    assert at_none[-1]["tool_call_id"] == "call_of_s"
    assert "reasoning_content" not in t.requests[-1]["messages"][-2]
    top = ladder(rung(s, "none"), rung(s, "high"), actions=AutoActions()).twin(ids=cascade.context.ids)
    s.requests.clear()
    await top.step([*MESSAGES, answer, result], tools=tools)
    assert [request["reasoning_effort"] for request in s.requests] == ["none", "high"]
    assert s.requests[0]["messages"] == s.requests[1]["messages"]


ANSWERS = st.lists(st.sampled_from(["a", "b", "c", None]), min_size=3, max_size=3)
RULE = st.integers(1, 3).flatmap(lambda n: st.tuples(st.integers(1, n), st.just(n)))
PRICES = {"s": Price(input="1", output="10"), "t": Price(input="20", output="200")}


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(RULE, ANSWERS), min_size=2, max_size=3))
def test_a_replay_is_what_the_ladder_did_live(rungs: list[tuple[tuple[int, int], list[str | None]]]) -> None:
    """The rung that takes the step, its action, and the dollars, of the log of a shadow."""
    efforts = ("none", "low", "high")[: len(rungs)]
    said = [["?" if a is None else act(a) for a in answers] for _, answers in rungs]

    async def run(mode: str) -> tuple[Any, Any]:
        s = Thinks("s", dict(zip(efforts, said)))
        t = Thinks("t", {"high": act("a")}, {"input": 20, "output": 200})
        shadow = {"shadow": {"samples": 3}} if mode == "shadow" else {}
        rules = tuple(rule for rule, _ in rungs)
        cascade = ladder(*(rung(s, e) for e in efforts), rung(t, "high"), needed=rules, mode=mode, **shadow)
        _, decision = await cascade.step(MESSAGES)
        await cascade.settle()
        return cascade, decision

    shadowed, decision = asyncio.run(run("shadow"))
    [shadow] = shadowed.context.recorder.shadows
    table = PriceLookup(PriceTable(PRICES))
    logged = logged_step(shadow, (*decision.calls, *shadow.calls), None, table)
    assert [student.model for student in logged.students] == [f"s@{effort}" for effort in efforts]
    _, acted = asyncio.run(run("cascade"))
    rule = Chain(tuple(Threshold(n, k) for (k, n), _ in rungs))
    outcome = rule.on(chain([logged]))
    assert bool(outcome.taken[0]) is shadow.accepted is (acted.answered_by == "student")
    if shadow.accepted:
        assert bool(outcome.fine["teacher"][0]) is (acted.action == "a")
    # Exact dollars where the averages over draws are the draw: of rules that ask for every logged sample.
    if all(n == 3 for (_, n), _ in rungs):
        row = replay(chain([logged]), rule, [Bill("one-call")])
        assert row.cost == pytest.approx(float(acted.dollars))
        assert row.unit == "dollars"


async def test_a_shadow_of_a_ladder_holds_every_rung_whose_failure_spoils_no_other() -> None:
    s = Thinks("s", {"none": RuntimeError("down"), "high": split("a", "a")})
    cascade = ladder(rung(s, "none"), rung(s, "high"), Model("t", act("a")), mode="shadow")
    _, decision = await cascade.step(MESSAGES)
    await cascade.settle()
    [shadow] = recorded(cascade).shadows
    assert {sample.member for sample in shadow.samples} == {"s@high"}
    assert shadow.accepted
    assert shadow.failures[0].endswith("(s@none)")
    assert decision.rungs == ()


async def test_a_rung_whose_samples_are_all_invalid_is_told_why_in_a_shadow_as_it_is_live() -> None:
    """And each rung's rounds stay its own in the log, which replay prices."""

    def rungs(mode: str) -> Cascade:
        low, high = (Model(name, ["?"] * 2, split(*said)) for name, said in (("s", "aa"), ("u", "bb")))
        feeds = {"staged": "never", "feed_back": "always"}
        rules = AgreementThreshold(2, needed=2), AgreementThreshold(2, needed=2)
        return Cascade(
            StepContext(
                config=CascadeConfig(student={"name": "s"}, sampling=feeds, mode=mode, shadow={"samples": 2}),
                router=rules[0],
                count=lambda text: len(text.split()),
                teacher=Model("t", act("b")),
                student=low,
                students=(FurtherStudent(high, rules[1]),),
                actions=RegexActions(),
                recorder=Recorder(),
            )
        )

    live = rungs("cascade")
    _, acted = await live.step(MESSAGES)
    assert (acted.action, acted.retried) == ("a", 2)
    cascade = rungs("shadow")
    _, decision = await cascade.step(MESSAGES)
    await cascade.settle()
    [shadow] = recorded(cascade).shadows
    assert [(s.member, s.action, s.retry) for s in shadow.samples] == [
        ("s", None, False), ("s", None, False), ("s", "a", True), ("s", "a", True),
        ("u", None, False), ("u", None, False), ("u", "b", True), ("u", "b", True),
    ]  # fmt: skip
    step = logged_step(shadow, [*decision.calls, *shadow.calls], None, PriceLookup(None))
    assert [[s.action for s in student.samples] for student in step.students] == [["a", "a"], ["b", "b"]]
    tokens = sum(call.usage.completion for call in shadow.calls if call.model == "s")
    assert sum(s.tokens or 0 for s in step.students[0].samples) == tokens
    assert shadow.accepted


async def test_whether_another_round_pays_is_asked_of_the_rungs_own_calls() -> None:
    """What a rung below spent is spent: it counted, and a cheap rung above it was never told what was wrong."""
    dear = Model("s", split("a", "b"), price="9")
    cheap = Model("u", ["?"] * 2, split("c", "c"), price="1")
    made = ladder(dear, cheap, Model("t", act("teach"), price="20"))
    sampling = {"staged": "never", "feed_back": "auto"}
    config = CascadeConfig(student={"name": "s"}, sampling=sampling)
    _, decision = await Cascade(replace(made.context, config=config)).step(MESSAGES)
    assert (decision.action, decision.answered_by, decision.retried) == ("c", "student", 2)


async def test_an_effort_that_an_endpoint_refused_is_noted_in_the_decision() -> None:
    s = Thinks("s", {"high": split("a", "a")})
    s.refused = {"reasoning_effort"}  # type: ignore[attr-defined]
    _, decision = await ladder(rung(s, "high"), Model("t", act("teach"))).step(MESSAGES)
    assert decision.failures == ("effort high: s@high refuses reasoning_effort",)
    assert isinstance(rung(s, "high"), EffortModel)
    assert effort_of("s@high") == Effort("high")


@pytest.mark.parametrize(
    ("name", "waves"),
    [
        ("hosted_vllm/Qwen/Qwen3-8B", 2),  # its template says behind the prompt how much it thinks
        ("openai/gpt-5.1", 3),  # its provider's cache is another at each effort: one request to write it, then the rest
    ],
)
async def test_waves_are_planned_by_what_the_rung_below_left_in_the_cache(name: str, waves: int) -> None:
    class Unsettled(Thinks):
        supports_n = False

        async def complete(self, messages: Any, *, n: int = 1, **options: Any) -> Completion:
            said = f"do {len(self.requests)}" if options.get("reasoning_effort", "none") == "none" else "look"
            self.by_effort = dict.fromkeys(self.efforts, act(said))
            return await super().complete(messages, n=n, **options)

    model = Unsettled(name, {}, {"input": 1, "cached_input": 0.1, "output": 4})
    cascade = ladder(rung(model, "none"), rung(model, "high"), Model("t", act("teach")), needed=((3, 3), (3, 3)))
    settings = cascade.context.config.sampling.model_copy(update={"staged": "auto"})
    config = cascade.context.config.model_copy(update={"sampling": settings})
    cascade = Cascade(replace(cascade.context, config=config))
    long: list[Any] = [{"role": "user", "content": "word " * 3000}]
    for _ in range(ENOUGH + 1):
        _, decision = await cascade.step(long)
        assert decision.answered_by == "student"
    calls = [call.requests for call in decision.calls if call.model == f"{name}@high"]
    assert len(calls) == waves
