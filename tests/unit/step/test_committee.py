"""A committee of students: who is asked, what counts as a vote, whose answer it is, and what it costs."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentcascade import build
from agentcascade.actions import voting
from agentcascade.actions.base import ToolCallActions
from agentcascade.actions.formats import make_format
from agentcascade.actions.voting import Seat
from agentcascade.assembly.committee import check_committee
from agentcascade.config.keywords.bank import BankKeywords
from agentcascade.config.keywords.models import LinkKeywords
from agentcascade.config.keywords.steps import SamplingKeywords
from agentcascade.config.load import CascadeConfig
from agentcascade.errors import BudgetExceeded, ConfigError, EmptyCompletion, InvalidRequest
from agentcascade.protocols import ChatModel, Verdict
from agentcascade.routers.step.consistency import AgreementThreshold, AlwaysStudent, RandomMix, Unanimity
from agentcascade.types import Action, Sample, Situation
from tests.cascades import MESSAGES, Model, act, known, recorded
from tests.committees import committee
from tests.tool_calls import TOOLS, call
from tests.unit.step.test_rollout import FakeBudgets

LOOK, GO = act("look"), act("go")


async def test_members_that_agree_are_taken_and_the_cheapest_of_them_answers():
    dear, cheap = Model("dear", LOOK, price="3"), Model("cheap", LOOK, price="1")
    completion, decision = await committee(dear, cheap).step(MESSAGES)
    assert (decision.answered_by, decision.reason) == ("student", "agreement 2/2, answer of cheap")
    assert (decision.samples, decision.votes, decision.agreement) == (2, {"look": 2}, 1.0)
    assert [c.model for c in decision.calls] == ["cheap", "dear"]
    assert {c.role for c in decision.calls} == {"student"}
    assert (completion.model, completion.dollars, completion.usage.completion) == ("cheap", Decimal(110), 10)
    assert decision.dollars == 110 + 330
    assert decision.teacher_dollars == 110  # one answer's tokens at the teacher's price


async def test_who_could_change_nothing_any_more_is_not_asked():
    dear = Model("dear", GO, price="9")
    _, decision = await committee(Model("a", LOOK), dear, Model("b", LOOK, price="2"), needed=2).step(MESSAGES)
    assert (decision.reason, dear.requests) == ("agreement 2/2, answer of a", [])
    _, decision = await committee(Model("a", LOOK), dear, Model("b", GO, price="2"), needed=2).step(MESSAGES)
    assert (decision.action, decision.reason, len(dear.requests)) == ("go", "agreement 2/3, answer of b", 1)
    last = Model("c", LOOK, price="9")  # of three that must agree two do not: the third would change nothing
    _, decision = await committee(Model("a", LOOK), Model("b", GO, price="2"), last).step(MESSAGES)
    assert (decision.answered_by, decision.reason, last.requests) == ("teacher", "agreement 1/2", [])


async def test_all_are_asked_at_once_where_nothing_is_staged():
    members = [Model(name, LOOK, price=price, delay=1) for name, price in (("a", "1"), ("b", "2"), ("c", "9"))]
    _, decision = await committee(*members, needed=2, sampling={"staged": "never"}).step(MESSAGES)
    assert [len(m.requests) for m in members] == [1, 1, 1]
    assert (decision.reason, decision.samples) == ("agreement 3/3, answer of a", 3)
    assert decision.seconds < 2.9  # side by side, and what three models took at once is no overhead of ours
    assert decision.overhead_ms < 1000


@pytest.mark.parametrize("broken", [RuntimeError("boom"), EmptyCompletion("no"), BudgetExceeded("k"), "refuses"])
async def test_a_member_that_gives_nothing_is_no_vote_and_is_recorded(broken: Any) -> None:
    bad = Model("bad", broken if isinstance(broken, BaseException) else "I cannot help with that.", price="0.5")
    _, decision = await committee(bad, Model("a", LOOK), Model("b", LOOK), needed=2).step(MESSAGES)
    assert (decision.answered_by, decision.reason) == ("student", "agreement 2/3, answer of a")
    assert (decision.samples, decision.invalid_samples) == (3, 1)
    if isinstance(broken, Exception) and not isinstance(broken, EmptyCompletion):
        assert decision.failures[0].startswith(f"student: {type(broken).__name__}")
        assert decision.failures[0].endswith("(bad)")
    _, decision = await committee(bad, Model("a", LOOK)).step(MESSAGES)
    assert (decision.answered_by, decision.reason) == ("teacher", "agreement 1/2")


async def test_a_slow_member_is_waited_for_as_long_as_a_call_may_take() -> None:
    slow = Model("slow", LOOK, price="0.5", delay=60)
    cascade = committee(slow, Model("a", LOOK), Model("b", LOOK), needed=2, sampling={"timeout_seconds": 0.5})
    _, decision = await cascade.step(MESSAGES)
    assert (decision.answered_by, decision.reason) == ("student", "agreement 2/3, answer of a")
    assert "TimeoutError" in decision.failures[0]


async def test_members_that_hang_one_after_the_other_leave_the_teacher_its_time() -> None:
    members = [Model(f"m{i}", LOOK, delay=60) for i in range(6)]
    first_vote = AlwaysStudent()
    first_vote.samples = lambda situation: 6  # type: ignore[method-assign]
    cascade = committee(*members, router=first_vote, sampling={"timeout_seconds": 0.5}, deadline_seconds=4)
    _, decision = await cascade.step(MESSAGES)
    assert (decision.answered_by, decision.reason) == ("teacher", "student failed: TimeoutError")
    assert 1 < sum(len(m.requests) for m in members) < 6


async def test_all_abstain_and_the_teacher_answers() -> None:
    _, decision = await committee(Model("a", RuntimeError("x")), Model("b", "hm")).step(MESSAGES)
    assert (decision.answered_by, decision.reason, decision.action) == ("teacher", "agreement 0/2", "teach")


async def test_weights_and_samples_of_members() -> None:
    heavy, twice, light = Model("heavy", LOOK), Model("twice", [GO, LOOK]), Model("light", GO, price="5")
    seats = (Seat(1, 2), Seat(2, 1), Seat(1, 1))
    _, decision = await committee(heavy, twice, light, seats=seats, needed=3).step(MESSAGES)
    assert (decision.action, decision.votes, decision.samples) == ("look", {"look": 3, "go": 1}, 3)
    assert [r["n"] for r in twice.requests] == [2]
    assert light.requests == []  # 3 votes to 1: one more is no majority for the other
    _, decision = await committee(heavy, twice, light, seats=seats, needed=4).step(MESSAGES)
    assert (decision.answered_by, decision.votes) == ("teacher", {"look": 3, "go": 2})


async def test_a_member_without_a_price_is_asked_last_and_has_no_vote_under_a_budget() -> None:
    free = Model("free", LOOK, price=None)
    cascade = committee(free, Model("a", LOOK), Model("b", LOOK, price="2"), needed=2)
    assert [m.name for m in cascade.engine._policies[0].members] == ["a", "b", "free"]  # type: ignore[attr-defined]
    paid = committee(free, Model("a", LOOK), needed=2, budgets={"per_episode": "100000", "output_tokens": 10})
    _, decision = await paid.twin(budgets=FakeBudgets("100000")).step(MESSAGES)
    assert decision.answered_by == "teacher"
    assert any("UnknownPrice" in failure and "(free)" in failure for failure in decision.failures)
    assert free.requests == []


async def test_what_the_caller_asked_wrong_is_his_to_hear_and_cancelling_ends_all() -> None:
    with pytest.raises(InvalidRequest, match="wrong"):
        await committee(Model("a", InvalidRequest("wrong")), Model("b", LOOK, delay=0.01)).step(MESSAGES)
    cascade = committee(Model("a", LOOK, delay=5), Model("b", LOOK, delay=5))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.02):
            await cascade.step(MESSAGES)
    assert recorded(cascade).decisions[0].failures


@pytest.mark.parametrize(
    ("form", "one", "other"),
    [
        ("tools", call("look", id="x"), call("look", id="y")),
        ("sql", "SELECT a FROM t WHERE b=1", "select a\nfrom t where b = 1"),
        ("python", "x = f(1)", "x=f( 1 )"),
        ("text", "forty-two", "forty-two"),
    ],
)
async def test_members_agree_in_every_format(form: str, one: Any, other: Any) -> None:
    cascade = committee(Model("a", one), Model("b", other), actions=make_format(form))
    completion, decision = await cascade.step(MESSAGES, tools=TOOLS if form == "tools" else None)
    assert (decision.answered_by, decision.agreement, completion.model) == ("student", 1.0, "a")
    if form == "tools":
        assert completion.messages[0]["tool_calls"][0]["id"].startswith("s")


async def test_a_member_that_knows_no_tools_is_one_that_does_not_agree() -> None:
    plain = Model("plain", "I would look around.", price="0.5")
    members = plain, Model("a", call("look")), Model("b", call("look"))
    _, decision = await committee(*members, needed=2, actions=ToolCallActions()).step(MESSAGES, tools=TOOLS)
    assert decision.answered_by == "student"
    assert decision.agreement == pytest.approx(2 / 3)


async def test_a_call_with_side_effects_asks_those_that_were_not_asked_yet() -> None:
    tools = {"side_effects": ["pay"], "side_effects_samples": 3}
    for last, answered in ((call("pay"), "student"), (call("look"), "teacher")):
        members = Model("a", call("pay")), Model("b", call("pay")), Model("c", last, price="5")
        cascade = committee(*members, needed=2, actions=ToolCallActions(), tools=tools)
        _, decision = await cascade.step(MESSAGES, tools=TOOLS)
        assert (decision.answered_by, len(members[2].requests)) == (answered, 1)


async def test_further_samples_before_side_effects_are_those_of_all_members() -> None:
    tools = {"side_effects": ["pay"], "side_effects_samples": 7, "side_effects_agreement": 0.8}
    members = Model("a", call("pay")), Model("b", call("pay")), Model("c", call("look"), price="5")
    cascade = committee(*members, needed=2, actions=ToolCallActions(), tools=tools)
    _, decision = await cascade.step(MESSAGES, tools=TOOLS)
    assert [sum(r["n"] for r in m.requests) for m in members] == [3, 2, 2]
    assert (decision.answered_by, decision.reason) == ("teacher", "agreement 0.71 on pay, 0.8 needed")
    seeds = [(m.name, r["seed"] + i) for m in members for r in m.requests for i in range(r["n"])]
    assert len({seed for _, seed in seeds}) == 7


@pytest.mark.parametrize(("router", "asked"), [(AlwaysStudent(), [1, 0]), (RandomMix(0.0), [1, 0]), (None, [1, 0])])
async def test_one_vote_is_the_cheapest_members(router: Any, asked: list[int]) -> None:
    members = Model("a", LOOK), Model("b", GO, price="2")
    cascade = committee(*members, router=router, mode="cascade" if router else "student", sampling={"staged": "never"})
    _, decision = await cascade.step(MESSAGES)
    assert ([len(m.requests) for m in members], decision.action) == (asked, "look")


async def test_a_router_that_wants_more_votes_than_there_are_ends() -> None:
    _, decision = await committee(Model("a", LOOK), Model("b", LOOK), router=Unanimity(3)).step(MESSAGES)
    assert (decision.answered_by, decision.reason) == ("teacher", "agreement 2/2")


async def test_shadows_log_every_member() -> None:
    teacher = Model("t", LOOK)
    members = Model("dear", [LOOK, GO], price="4"), Model("cheap", LOOK), Model("bad", RuntimeError("down"), price="5")
    cascade = committee(*members, needed=2, seats=(Seat(2, 1),), teacher=teacher, mode="shadow")
    await cascade.step(MESSAGES)
    await cascade.settle()
    shadow = recorded(cascade).shadows[0]
    assert [(s.member, s.action) for s in shadow.samples] == [
        *(("cheap", "look"), ("dear", "look"), ("dear", "go"), ("bad", None))
    ]
    assert (shadow.accepted, shadow.agreement) == (True, 0.5)
    assert "weight" not in shadow.samples[0].model_dump()
    assert {c.model: c.purpose for c in shadow.calls} == {"cheap": "shadow", "dear": "shadow"}
    assert "(bad)" in shadow.failures[0]


async def test_a_bandit_learns_from_all_votes_of_a_committee(tmp_path: Any) -> None:
    url: BankKeywords = {"url": f"sqlite:///{tmp_path}/a.db"}
    seats: dict[str, Any] = {
        "student": {**ONE, "weight": 2},
        "students": [TWO],
        "router": {"name": "linucb"},
        "sampling": ACROSS,
    }
    async with build(mode="shadow", bank=url, **{**OFF, "teacher": Model("t", "look")}, **seats) as cascade:
        bandit = cascade.context.router
        assert bandit.n == 3  # type: ignore[attr-defined]
        seen: list[Any] = []
        bandit.update = lambda situation, tally, teacher: seen.append((tally.counts, teacher))  # type: ignore[attr-defined]
        await cascade.step(MESSAGES)
        await cascade.settle()
    assert seen == [({"look": 3}, "look")]


async def test_more_shadows_than_votes_are_of_each_member() -> None:
    members = Model("a", [LOOK, GO, GO]), Model("b", [LOOK, GO, GO], price="2")
    cascade = committee(*members, mode="shadow", shadow={"samples": 3})
    await cascade.step(MESSAGES)
    await cascade.settle()
    shadow = recorded(cascade).shadows[0]
    assert (len(shadow.samples), shadow.accepted, shadow.agreement) == (6, True, 1.0)


async def test_a_twin_keeps_the_committee_and_what_was_learnt_of_each() -> None:
    cascade = committee(Model("a", LOOK), Model("b", LOOK))
    twin = cascade.twin(teacher=Model("other", GO))
    assert [m.name for m in twin.engine._policies[0].members] == ["a", "b"]  # type: ignore[attr-defined]
    new = cascade.twin(student=Model("c", LOOK))
    own, old = (c.engine._students for c in (new, cascade))
    assert own[1].learned is old[1].learned
    assert own[0].learned is not old[0].learned


def sample(key: str | None, seat: Seat) -> Sample:
    return Sample(message={}, action=None if key is None else Action(key=key, text=key), weight=seat.weight)


@given(
    st.lists(
        st.tuples(st.integers(1, 3), st.integers(1, 3), st.lists(st.sampled_from(["a", "b", None]), min_size=3)),
        min_size=2,
        max_size=4,
    ),
    st.data(),
)
def test_stopping_early_gives_the_verdict_of_all_votes(members: list[Any], data: st.DataObject) -> None:
    """Whatever those that were not asked would have said, accepted is what all would accept, and no other action."""
    seats = [Seat(samples, weight) for samples, weight, _ in members]
    said = [[sample(key, seat) for key in keys[: seat.samples]] for seat, (_, _, keys) in zip(seats, members)]
    n = sum(seat.votes for seat in seats)
    router, nowhere = AgreementThreshold(n, needed=data.draw(st.integers(1, n))), Situation(goal="")
    drawn: list[Sample] = []
    asked = 0
    verdict = None
    while verdict is None:
        size = voting.next_members(router, nowhere, voting.tally(drawn), n, seats[asked:])
        assert 1 <= size <= len(seats) - asked
        for answers in said[asked : asked + size]:
            drawn += answers
        asked += size
        votes = voting.tally(drawn)
        verdict = router.judge(nowhere, votes, n - votes.total)
    everything = voting.tally([s for answers in said for s in answers])
    assert router.judge(nowhere, everything, 0) is verdict
    if verdict is Verdict.ACCEPT:
        assert everything.top is not None
        assert votes.top is not None
        assert votes.top[0] == everything.top[0]


@given(st.permutations(range(3)), st.integers(1, 3), st.lists(st.sampled_from(["look", "go", "?"]), min_size=3))
def test_it_costs_no_more_than_the_sum_of_its_calls(order: list[int], needed: int, words: list[str]) -> None:
    prices = ["1", "2", "4"]
    members = [Model(f"m{i}", act(words[i]) if words[i] != "?" else "?", price=prices[i]) for i in order]
    _, decision = asyncio.run(committee(*members, needed=needed).step(MESSAGES))
    students = [c for c in decision.calls if c.role == "student"]
    assert len(students) == sum(len(m.requests) for m in members) <= 3
    assert all(len(m.requests) <= 1 for m in members)
    assert [c.model for c in students] == [f"m{i}" for i in range(len(students))]  # cheapest first
    asked = [m for m in members if m.requests]
    assert sum(known(c.dollars) for c in students) == sum(Decimal(known(m.price)) * 110 for m in asked)


ONE: LinkKeywords = {
    "name": "agentcascade.models.scripted:ScriptedModel",
    "options": {"script": ["look"], "name": "one"},
}
TWO: LinkKeywords = {
    "name": "agentcascade.models.scripted:ScriptedModel",
    "options": {"script": ["look"], "name": "two"},
}
OFF: dict[str, Any] = {"retrieval": {"k": 0}, "teacher": Model("t", "go")}
ACROSS: SamplingKeywords = {"across": "students"}


async def test_a_configuration_is_a_committee(tmp_path: Any) -> None:
    config = tmp_path / "agentcascade.yaml"
    config.write_text(
        f"""
bank: {{url: "sqlite:///{tmp_path}/a.db"}}
retrieval: {{k: 0}}
teacher: {{name: "agentcascade.models.scripted:ScriptedModel", options: {{script: [go]}}}}
student: {{name: "{ONE["name"]}", options: {{script: [look], name: one}}, weight: 2}}
students:
  - {{name: "{TWO["name"]}", options: {{script: [look], name: two}}, samples: 2}}
sampling: {{across: students}}
router: {{name: threshold, options: {{needed: 3}}}}
"""
    )
    async with build(config) as cascade:
        assert isinstance(cascade.context.router, AgreementThreshold)
        assert (cascade.context.router.n, cascade.context.router.needed) == (4, 3)
        _, decision = await cascade.step(MESSAGES)
        assert (decision.answered_by, decision.votes) == ("student", {"look": 4})


async def test_models_of_ones_own_are_a_committee(tmp_path: Any) -> None:
    url: BankKeywords = {"url": f"sqlite:///{tmp_path}/a.db"}
    students: list[ChatModel | LinkKeywords] = [Model("b", LOOK), {**ONE, "weight": 2}, Model("c", LOOK)]
    with build(student=Model("a", LOOK), students=students, sampling=ACROSS, bank=url, **OFF) as cascade:
        members = cascade.engine._policies[0].members  # type: ignore[attr-defined]
        assert {m.name: m.seat for m in members} == {"a": (1, 1), "b": (1, 1), "c": (1, 1), "one": (1, 2)}
        assert cascade.context.router.n == 5  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"student": ONE, "sampling": ACROSS}, "there is one student"),
        ({"student": ONE, "students": [ONE], "sampling": ACROSS}, "'one' sits twice"),
        ({"student": {**ONE, "weight": 2}, "students": [TWO]}, "student: samples and weight are those of a committee"),
        ({"student": ONE, "students": [{**TWO, "samples": 3}]}, "students.0: samples and weight"),
        (
            {"student": ONE, "students": [{**TWO, "router": {"name": "unanimity"}}], "sampling": ACROSS},
            r"students\.0\.router",
        ),
        (
            {"student": ONE, "students": [TWO], "sampling": ACROSS, "router": {"options": {"n": 3}}},
            "n is 3, and the committee has 2 votes",
        ),
        (
            {
                "student": ONE,
                "students": [TWO],
                "sampling": ACROSS,
                "router": {"name": "threshold", "options": {"needed": 3}},
            },
            "router.needed is 3: it is a number of votes, 1 to 2",
        ),
        ({"student": {**ONE, "weight": 0}}, "student.weight"),
        ({"student": ONE, "sampling": {"across": "models"}}, "sampling.across"),
    ],
)
def test_what_is_no_committee_is_refused(config: dict[str, Any], message: str, tmp_path: Any) -> None:
    with pytest.raises(ConfigError, match=message):
        build(bank={"url": f"sqlite:///{tmp_path}/a.db"}, **OFF, **config)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"ladder": ["s", "t"], "sampling": ACROSS}, "ladder and sampling.across students exclude each other"),
        ({"ladder": ["s", {"model": "u", "weight": 2}, "t"]}, "ladder.1: samples and weight"),
    ],
)
def test_a_ladder_is_no_committee_and_is_told_so_by_the_names_that_it_has(config: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_committee(CascadeConfig(**config))


@pytest.mark.parametrize("across", ["students", "samples"])
async def test_no_student_is_sent_ids_and_thoughts_of_another(across: str) -> None:
    """Neither in a committee nor in a chain: providers refuse ids and signed thoughts that are not their own."""
    thought = {"reasoning_content": "hm", "thinking_blocks": [{"type": "thinking", "thinking": "hm", "signature": "x"}]}
    calls = {name: {**call("look", x=1), **thought} for name in "ab"}
    for name, answer in calls.items():
        answer["tool_calls"] = [{**answer["tool_calls"][0], "id": f"call_of_{name}", "signature": "x"}]
    members = [Model("a", calls["a"]), Model("b", calls["b"])]
    routers = {"students": AgreementThreshold(2, needed=2), "samples": AlwaysStudent()}
    cascade = committee(*members, router=routers[across], actions=ToolCallActions(), sampling={"across": across})
    completion, _ = await cascade.step(MESSAGES, tools=TOOLS)
    (answer,) = completion.messages
    assert answer["reasoning_content"] == "hm"
    result = {"role": "tool", "tool_call_id": answer["tool_calls"][0]["id"], "content": "1"}
    for model in members:
        model.answers = [call("look", x=2)] if across == "students" else [RuntimeError("down")]
    await cascade.step([*MESSAGES, answer, result], tools=TOOLS)
    own, others = (model.requests[-1]["messages"][-2:] for model in members)
    assert own[0] == calls["a"]
    assert own[1]["tool_call_id"] == "call_of_a"
    assert others[1] == result
    assert others[0]["tool_calls"] == [{k: v for k, v in answer["tool_calls"][0].items() if k != "signature"}]
    assert not others[0].keys() & thought.keys()
