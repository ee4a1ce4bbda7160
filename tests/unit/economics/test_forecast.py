"""Forecast of a step's dollars, against the bills of real cascades of scripted models."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from decimal import Decimal
from itertools import count
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentcascade import ScriptedModel
from agentcascade.actions.voting import Seat
from agentcascade.cascade import Cascade
from agentcascade.config.load import CascadeConfig
from agentcascade.economics.forecast import Plan, Policy, Scorer, StepTokens, forecast
from agentcascade.economics.levers import levers, student_price_for
from agentcascade.economics.outlook import plan_of
from agentcascade.economics.vote_paths import vote_paths
from agentcascade.errors import UnknownPrice
from agentcascade.models.fan_out import sum_completions
from agentcascade.models.pricing import Price
from agentcascade.models.tokens import count_messages, token_counter
from agentcascade.protocols import ChatModel
from agentcascade.routers.agreement import Agreement
from agentcascade.routers.step.consistency import AgreementThreshold
from agentcascade.step.context import FurtherStudent, StepContext
from agentcascade.types import Decision
from tests.cascades import Recorder, recorded

MESSAGES = [{"role": "system", "content": "Act in the house."}, {"role": "user", "content": "Put a mug on the desk."}]
YES, NO = "go to desk 1", [f"go to desk {i}" for i in range(2, 10)]  # all of as many tokens
COUNT = token_counter()
PROMPT = count_messages(MESSAGES, COUNT)
ANSWER = count_messages([{"role": "assistant", "content": YES}], COUNT)
ROUNDING = Decimal(10) ** -15
"""Of a share that is a float: tokens are whole in these forecasts, so that nothing else is rounded"""
prices = st.builds(Price, input=st.decimals("0.01", "20", places=2), output=st.decimals("0.01", "80", places=2))


def tokens(**changed: Any) -> StepTokens:
    known = StepTokens(PROMPT, 0, ANSWER, ANSWER, lambda before, after: 40.0 * (before + 1 + after), episode_steps=1)
    return replace(known, **changed)


def play(cascade: Cascade, steps: int) -> list[Decision]:
    """So many steps, each an episode of its own; returns all decisions."""

    async def run():
        for _ in range(steps):
            await cascade.episode(mode="cascade").complete(MESSAGES)

    asyncio.run(run())
    return recorded(cascade).decisions


class Student(ScriptedModel):
    """Agrees with itself while `agreeing`, and never otherwise. Without n, each sample is a request with its prompt."""

    def __init__(self, **options: Any) -> None:
        self.agreeing, numbers = True, count()
        super().__init__(lambda messages, sample: YES if self.agreeing else NO[next(numbers) % len(NO)], **options)

    async def complete(self, messages, *, n=1, **options):
        if self.supports_n:
            return await super().complete(messages, n=n, **options)
        return sum_completions(self.name, [await super(Student, self).complete(messages) for _ in range(n)])


def cascade_of(teacher, student, router, **config):
    models = {"teacher": ScriptedModel([YES], name="t", price=teacher), "student": student}
    context = StepContext(
        config=CascadeConfig(retrieval={"k": 0}, **config), router=router, count=COUNT, recorder=Recorder(), **models
    )
    return Cascade(context)


def bills(teacher_price, student_price, *, n, needed, supports_n, staged, accepted, steps):
    """The decisions of `steps` steps, `accepted` of which are the student's, and the cascade's plan."""
    student = Student(name="s", price=student_price, supports_n=supports_n)
    router = AgreementThreshold(n, needed=needed)
    cascade = cascade_of(teacher_price, student, router, sampling={"staged": staged})
    play(cascade, accepted)
    student.agreeing = False
    return play(cascade, steps - accepted), plan_of(cascade.context)


@settings(max_examples=40, deadline=None)
@given(
    prices, prices, st.integers(1, 5), st.data(), st.booleans(), st.sampled_from(["always", "never", "auto"]),
    st.integers(0, 6),
)  # fmt: skip
def test_bills_of_a_cascade_lie_within_its_forecast(teacher, student, n, data, supports_n, staged, accepted):
    needed, steps = data.draw(st.integers(min(n, 2), n)), 6
    decided, plan = bills(
        teacher, student, n=n, needed=needed, supports_n=supports_n, staged=staged, accepted=accepted, steps=steps
    )
    taken = [d.answered_by == "student" for d in decided]
    assert sum(taken) == (accepted if n > 1 else steps)
    costs = forecast(plan, tokens())
    share = sum(taken) / steps
    spent = sum(d.dollars for d in decided) / steps
    assert costs.least.dollars(share) - ROUNDING <= spent <= costs.most.dollars(share) + ROUNDING
    assert {d.teacher_dollars for d in decided if d.answered_by == "teacher"} <= {costs.most.teacher}
    if n == needed == 1 or (staged == "never" and supports_n):
        assert costs.least == costs.most


@pytest.mark.parametrize(("n", "supports_n"), [(3, True), (3, False), (2, False), (5, True)])
def test_from_the_break_even_on_the_real_cascade_is_cheaper_and_before_it_dearer(n, supports_n):
    teacher, student = Price(input=3, output=15), Price(input="0.9", output="3.6")
    steps, seen = 8, []
    for accepted in range(steps + 1):
        decided, plan = bills(
            teacher, student, n=n, needed=n, supports_n=supports_n, staged="never", accepted=accepted, steps=steps
        )
        costs = forecast(plan, tokens())
        saved = steps * costs.most.teacher - sum(d.dollars for d in decided)
        seen.append(saved > 0)
        needed = costs.most.break_even
        assert costs.least == costs.most
        if needed is None:
            assert saved <= 0
        elif abs(accepted / steps - needed) > 0.02:
            assert (saved > 0) == (accepted / steps > needed), (accepted, needed, saved)
    if n == 3 and supports_n:
        assert True in seen
        assert False in seen


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(prices, st.integers(1, 2), st.integers(1, 2)), min_size=2, max_size=4), st.data())
def test_a_committees_bills_lie_within_its_forecast(members, data):
    seats = [Seat(samples, weight) for _, samples, weight in members]
    total = sum(seat.votes for seat in seats)
    needed = data.draw(st.integers(2, total))
    agree = [data.draw(st.booleans()) for _ in members]
    models = [
        ScriptedModel([YES if same else NO[i]], name=f"m{i}", price=price)
        for i, ((price, _, _), same) in enumerate(zip(members, agree))
    ]
    own = {"name": "m0", "samples": seats[0].samples, "weight": seats[0].weight}
    cascade = Cascade(
        StepContext(
            config=CascadeConfig(student=own, retrieval={"k": 0}, sampling={"across": "students"}),
            router=AgreementThreshold(total, needed=needed),
            count=COUNT,
            teacher=ScriptedModel([YES], name="t", price=Price(input=3, output=15)),
            student=models[0],
            students=tuple(FurtherStudent(m, AgreementThreshold(1), s) for m, s in zip(models[1:], seats[1:])),
            recorder=Recorder(),
        )
    )
    (decision,) = play(cascade, 1)
    plan = plan_of(cascade.context)
    assert plan is not None
    costs = forecast(plan, tokens())
    kind = "accepted" if decision.answered_by == "student" else "deferred"
    assert getattr(costs.least, kind) <= decision.dollars <= getattr(costs.most, kind)


def model(input_price="1", output_price="2", supports_n=True, name="s", **classes):
    return ScriptedModel(
        [YES], name=name, price=Price(input=input_price, output=output_price, **classes), supports_n=supports_n
    )


def plan(
    n: int = 3,
    needed: int | None = None,
    k: int = 6,
    window: tuple[int, int] = (2, 2),
    student: ChatModel | None = None,
    **changed: Any,
) -> Plan:
    policy = Policy(Agreement(n, needed or n), ((student or model(), Seat(n)),))
    return Plan(teacher=model("10", "30", name="t"), policies=(policy,), k=k, window=window, **changed)


@given(st.integers(1, 6), st.integers(0, 8), st.integers(0, 4), st.integers(0, 4), st.booleans(), st.booleans())
def test_costs_rise_with_samples_demonstrations_and_windows(n, k, before, after, supports_n, sticky):
    cached = {"cached_input": "0.1"}
    base = plan(n, k=k, window=(before, after), student=model(supports_n=supports_n, **cached), sticky=sticky)
    size = tokens(prompt=1500, new=200)

    def accepted(changed):
        return forecast(changed, size).most.accepted

    more = Policy(Agreement(n + 1, n + 1), ((base.policies[0].members[0][0], Seat(n + 1)),))
    assert accepted(replace(base, policies=(more,))) > accepted(base)
    assert accepted(replace(base, k=k + 1)) > accepted(base)
    if k:
        assert accepted(replace(base, window=(before + 1, after))) > accepted(base)
        assert accepted(replace(base, sticky=True)) <= accepted(base)
    assert accepted(replace(base, audits=0.1)) > accepted(base)


def test_a_verifier_costs_its_dollars_where_it_is_asked_and_the_samples_that_it_waits_for():
    size, judge = tokens(prompt=1500), model("3", "5", name="v")
    each = (Decimal(1500 + 150) * 3 + Decimal(60) * 5) / 10**6
    base = plan(k=0, student=model(supports_n=True), staged="never")
    vote, split = forecast(base, size), forecast(replace(base, scorer=Scorer(judge, True)), size)
    assert split.least == vote.least
    assert split.most.accepted == vote.most.accepted + each
    assert split.most.deferred == vote.most.deferred + each
    always = forecast(replace(base, scorer=Scorer(judge, True, accepted=True, every=True)), size)
    assert always.least.accepted == vote.least.accepted + each
    short = forecast(replace(base, scorer=Scorer(judge, True, context_tokens=500)), size)
    assert short.most.accepted == vote.most.accepted + each - Decimal(1000) * 3 / 10**6
    staged = replace(base, staged="always")
    early, late = forecast(staged, size), forecast(replace(staged, scorer=Scorer(judge, True)), size)
    assert late.least.deferred > early.least.deferred
    unknown = replace(base, scorer=Scorer(ScriptedModel([YES], name="v"), True))
    with pytest.raises(UnknownPrice, match="v is not known"):
        forecast(unknown, size)


def test_demonstrations_are_in_the_students_prompt_alone():
    with_demonstrations, without = forecast(plan(k=6), tokens()), forecast(plan(k=0), tokens())
    assert with_demonstrations.most.teacher == without.most.teacher
    shown = 6 * 40 * 5
    assert with_demonstrations.most.accepted - without.most.accepted == Decimal(shown) / 10**6
    assert with_demonstrations.most.deferred - with_demonstrations.most.accepted == without.most.teacher
    seen = forecast(plan(k=6, teacher_sees_demonstrations=True), tokens())
    assert seen.most.deferred - with_demonstrations.most.deferred == 10 * Decimal(shown) / 10**6
    assert forecast(plan(k=6, token_budget=3 * 200), tokens()) == forecast(plan(k=3), tokens())


def test_prompt_caches_are_read_by_the_later_steps_of_an_episode_where_demonstrations_stay():
    student = model("1", "0", cached_input="0.1")
    size = tokens(prompt=2000, new=500, episode_steps=10)
    fresh = forecast(replace(plan(1, k=1, student=student), place="first"), size).most.accepted
    sticky = forecast(plan(1, k=1, student=student, sticky=True), size).most.accepted
    assert fresh == Decimal(2200) / 10**6
    read = Decimal(9) / 10 * 1700  # at nine of ten steps, all but what is new
    assert sticky == (2200 - read + read / 10) / 10**6
    behind = forecast(plan(1, k=1, student=student), size).most.accepted
    history = Decimal(9) / 10 * 1500  # behind it, fresh demonstrations leave the history in the cache
    assert behind == (2200 - history + history / 10) / 10**6
    claude = model("1", "0", cached_input="0.1", cache_write="1.25", name="anthropic/claude-sonnet-4-5")
    marked = forecast(plan(1, k=1, student=claude, sticky=True), size).most.accepted
    assert marked == ((2200 - read) * Decimal("1.25") + read / 10) / 10**6, "what is new is written, at its price"
    writes = model("1", "0", cached_input="0.1", cache_write="1.25")  # it caches nothing that it is not told to
    assert forecast(plan(1, k=1, student=writes, sticky=True), size).most.accepted == fresh
    short = tokens(prompt=700, new=100, episode_steps=10)
    assert forecast(plan(1, k=0, student=student, sticky=True), short).most.accepted == Decimal(700) / 10**6


def test_a_bounded_history_begins_anew_for_a_students_cache_alone():
    student = model("1", "0", cached_input="0.1")
    size = tokens(prompt=2000, new=500, episode_steps=20)
    whole, bounded = (forecast(plan(1, k=0, student=student, history=h), size).most for h in (None, (8, 5)))
    assert whole.accepted == (2000 - Decimal("0.9") * Decimal("0.95") * 1500) / 10**6
    assert bounded.accepted == (2000 - Decimal("0.9") * Decimal("0.75") * 1500) / 10**6, "one step in 20, and one in 5"
    assert bounded.teacher == whole.teacher
    short = tokens(prompt=2000, new=500, episode_steps=8)
    assert forecast(plan(1, k=0, student=student, history=(8, 5)), short) == forecast(
        plan(1, k=0, student=student), short
    )


def test_thinking_is_paid_for_each_sample():
    thinking = model("1", "2", reasoning="8")
    quiet, loud = (forecast(plan(3, k=0, student=thinking), tokens(reasoning=r)) for r in (0, 100))
    assert loud.most.accepted - quiet.most.accepted == 3 * 100 * Decimal(8) / 10**6
    assert forecast(plan(k=0), tokens(teacher_reasoning=100)).most.teacher - quiet.most.teacher == Decimal(3000) / 10**6


def test_a_chain_is_as_cheap_as_its_first_student_and_as_dear_as_all():
    cheap, dear = (
        Policy(Agreement(1, 1), ((model(price, "0", name=name), Seat()),)) for name, price in (("a", "1"), ("b", "4"))
    )
    both = forecast(replace(plan(k=0), policies=(cheap, dear)), tokens())
    assert both.least.accepted == Decimal(PROMPT) / 10**6
    assert both.most.accepted == 5 * Decimal(PROMPT) / 10**6
    assert both.least.deferred == both.most.deferred


def test_an_unknown_price_is_unknown_and_is_named():
    nameless = ScriptedModel([YES], name="x/unpriced")
    with pytest.raises(UnknownPrice, match="the price of x/unpriced is not known"):
        forecast(plan(student=nameless), tokens())


@pytest.mark.parametrize(
    ("n", "needed", "staged", "accepted", "deferred"),
    [
        (3, 3, False, {(3,)}, {(3,)}),
        (3, 3, True, {(2, 1)}, {(2,), (2, 1)}),
        (3, 2, True, {(2,), (2, 1)}, {(2, 1)}),
        (1, 1, True, {(1,)}, {(1,)}),  # where it is no valid action
    ],
)
def test_the_ways_of_a_vote(n, needed, staged, accepted, deferred):
    paths = vote_paths(Agreement(n, needed), [Seat()] * n, staged=staged)
    assert {path.waves for path in paths if path.accepted} == accepted
    assert {path.waves for path in paths if not path.accepted} == deferred


@given(st.integers(1, 40), st.data(), st.booleans())
def test_no_vote_buys_more_than_it_may(n, data, staged):
    needed = data.draw(st.integers(1, n))
    paths = vote_paths(Agreement(n, needed), [Seat()] * n, staged=staged)
    assert any(path.accepted for path in paths)
    assert all(0 < sum(path.waves) <= n for path in paths)
    assert min(sum(path.waves) for path in paths if path.accepted) >= (needed if staged else n)


def test_the_strongest_lever_comes_first_and_each_makes_steps_cheaper():
    student = model("4", "8", supports_n=False, cached_input="1")
    size = tokens(prompt=900, new=100, episode_steps=10)
    base = plan(3, student=student, audits=0.1)
    found = levers(base, size)
    shares = [lever.accepted_share for lever in found]
    assert shares == sorted(shares)
    now = forecast(base, size).most.accepted_share
    assert now is not None
    assert all(share < now for share in shares)
    said = " · ".join(lever.change for lever in found)
    for words in ("retrieval.k 3 instead of 6", "window_before/after 1/1 instead of 2/2", "sticky: always",
                  "2 samples of s instead of 3", "takes n in one request", "no audits"):  # fmt: skip
        assert words in said
    assert levers(plan(2, k=0, window=(0, 0)), size) == []


@given(st.floats(0.05, 0.95), st.integers(1, 4))
def test_at_the_price_that_is_named_the_cascade_breaks_even(acceptance, n):
    base, size = plan(n, student=model("7", "21")), tokens(prompt=1000)
    factor = student_price_for(base, size, acceptance)
    assert factor is not None
    cheaper = model(str(Decimal("7") * Decimal(str(factor))), str(Decimal("21") * Decimal(str(factor))))
    costs = forecast(plan(n, student=cheaper), size).most
    assert costs.saving(acceptance) == pytest.approx(0, abs=1e-6)


def test_drafts_are_in_a_deferred_steps_prompt_alone_and_varied_prompts_are_paid_one_by_one():
    plain, drafted = forecast(plan(3, k=0), tokens()), forecast(plan(3, k=0, draft_tokens=1000), tokens())
    assert (drafted.most.teacher, drafted.most.accepted) == (plain.most.teacher, plain.most.accepted)
    assert drafted.most.deferred > plain.most.deferred
    assert forecast(plan(3, k=0, draft_tokens=1), tokens()).most.deferred - plain.most.deferred == Decimal(10) / 10**6
    once, each = (forecast(replace(plan(3, k=2), varied=varied, staged="never"), tokens()) for varied in (False, True))
    shown = 2 * 40 * 5
    assert each.most.accepted - once.most.accepted == 2 * Decimal(PROMPT + shown) / 10**6
