"""How many samples to buy at a time: exact expected dollars, the cheapest of all sequences, the same decisions."""

from __future__ import annotations

import random
from collections import Counter
from itertools import pairwise, product

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agentcascade import CascadeConfig, ScriptedModel
from agentcascade.actions.base import TextActions
from agentcascade.cascade import Cascade
from agentcascade.models.pricing import Price
from agentcascade.models.prompt_cache import cache_terms
from agentcascade.routers.step.consistency import AgreementThreshold, Unanimity
from agentcascade.step.batch_sizes import BatchSizes
from agentcascade.step.context import StepContext
from agentcascade.step.request import Request
from agentcascade.step.sample_batches import (
    ENOUGH,
    BatchPlanner,
    BatchPrices,
    SampleStatistics,
    all_at_once,
    batch_prices,
)
from agentcascade.step.student import parse
from agentcascade.types import Action, Call, Message, Sample, Situation, Tally, Usage
from tests.cascades import known

SITUATION = Situation(goal="g", episode="ep_1")
NOTHING = Tally(counts={}, total=0)


def tally(classes):
    return Tally(counts=dict(Counter(map(str, classes))), total=len(classes))


def chance(classes, agree):
    """Of a whole sequence of samples, written down from Ewens' urn."""
    theta, result = (1 - agree) / agree, 1.0
    for i, c in enumerate(classes):
        result *= (classes[:i].count(c) or theta) / (i + theta)
    return result


def sequences(n, start=()):
    """Every sequence of n classes, where a new class takes the next free number."""
    if len(start) == n:
        yield start
        return
    for c in range(max(start, default=-1) + 2):
        yield from sequences(n, (*start, c))


def expected(router, paid, agree, waves):
    """Dollars of fixed waves, by adding up all sequences of samples."""
    total = 0.0
    for classes in sequences(router.n):
        bought = dollars = 0
        for size in waves:
            if bought and router.judge(SITUATION, tally(classes[:bought]), router.n - bought) is not None:
                break
            dollars += paid.wave(size, first=not bought)
            bought += size
        total += chance(classes, agree) * dollars
    return total


def compositions(n):
    if not n:
        yield ()
    for first in range(1, n + 1):
        for rest in compositions(n - first):
            yield (first, *rest)


dollars = st.floats(0, 1e-2)
billings = st.builds(
    BatchPrices, prompt=dollars, repeated_prompt=dollars, answer=dollars, once=st.booleans(), wait=dollars
)
routers = st.builds(AgreementThreshold, n=st.integers(1, 5), threshold=st.floats(0.2, 1))
agreements = st.floats(0.05, 0.95)


@given(billings, routers, agreements)
def test_the_plan_is_no_dearer_than_any_fixed_waves_nor_than_all_at_once(paid, router, agree):
    _, planned = BatchPlanner(router, SITUATION, router.n, paid, agree).next(NOTHING)
    best = min(expected(router, paid, agree, waves) for waves in compositions(router.n))
    assert planned <= best * (1 + 1e-6) + 1e-15
    assert planned <= paid.wave(router.n, first=True) * (1 + 1e-6) + 1e-15


@given(billings, routers, agreements, st.lists(st.integers(0, 3), min_size=5, max_size=5))
def test_waves_decide_as_all_samples_at_once_would(paid, router, agree, classes):
    waves, bought = BatchPlanner(router, SITUATION, router.n, paid, agree), 0
    while True:
        votes = tally(classes[:bought])
        verdict = router.judge(SITUATION, votes, router.n - bought) if bought else None
        if verdict is not None:
            break
        size, _ = waves.next(votes)
        assert 1 <= size <= router.n - bought
        bought += size
    everything = tally(classes[: router.n])
    assert verdict is router.judge(SITUATION, everything, 0)
    if verdict.value == "accept":
        assert votes.top[0] == everything.top[0]


@given(billings, routers, agreements, dollars, dollars)
def test_what_is_told_without_a_plan_is_what_the_plan_says_also_of_a_longer_prompt(paid, router, agree, more, again):
    if all_at_once(router, SITUATION, NOTHING, router.n, paid, agree):
        longer = paid._replace(prompt=paid.prompt + more, repeated_prompt=paid.repeated_prompt + again)
        for prices in (paid, longer):
            assert BatchPlanner(router, SITUATION, router.n, prices, agree).next(NOTHING)[0] == router.n


def test_no_plan_is_needed_where_a_prompt_is_long_and_paid_for_once():
    paid = BatchPrices(prompt=100, repeated_prompt=100, answer=1, once=True)
    assert all_at_once(Unanimity(3), SITUATION, NOTHING, 3, paid, 0.7)
    assert all_at_once(AgreementThreshold(3, needed=2), SITUATION, NOTHING, 3, paid, 0.7)
    assert not all_at_once(Unanimity(3), SITUATION, NOTHING, 3, paid._replace(once=False), 0.7)
    assert not all_at_once(Unanimity(3), SITUATION, NOTHING, 3, paid._replace(answer=200), 0.7)


def test_unanimity_of_three_in_plain_numbers():
    free_repeat = BatchPrices(prompt=10, repeated_prompt=10, answer=1, once=False)
    waves = BatchPlanner(Unanimity(3), SITUATION, 3, free_repeat, 0.8)
    assert waves.next(NOTHING) == pytest.approx((2, 22 + 0.8 * 11))
    assert waves.next(tally("a")) == pytest.approx((1, 11 + 0.8 * 11))
    assert waves.next(tally("ab")) == (0, 0.0)
    assert waves.next(Tally(counts={"a": 1}, total=2)) == (0, 0.0), "an invalid sample settles it too"


@pytest.mark.parametrize(
    ("paid", "first"),
    [
        (BatchPrices(prompt=100, repeated_prompt=100, answer=1, once=True), 3),
        (BatchPrices(prompt=1, repeated_prompt=1, answer=100, once=True), 2),
        (BatchPrices(prompt=100, repeated_prompt=100, answer=1, once=False), 2),
        (BatchPrices(prompt=100, repeated_prompt=10, answer=1, once=False), 1),
        (BatchPrices(prompt=100, repeated_prompt=10, answer=1, once=False, wait=1000), 3),
        (BatchPrices(prompt=0, repeated_prompt=0, answer=0, once=True), 3),
    ],
    ids=["one prompt for n", "dear answers", "a prompt each", "cached prompts", "dear seconds", "a tie"],
)
def test_the_first_wave_follows_the_billing(paid, first):
    assert BatchPlanner(Unanimity(3), SITUATION, 3, paid, 0.7).next(NOTHING)[0] == first


def test_ten_samples_are_planned_exactly():
    paid = BatchPrices(prompt=100, repeated_prompt=30, answer=20, once=True)
    router = Unanimity(10)
    _, planned = BatchPlanner(router, SITUATION, 10, paid, 0.7).next(NOTHING)
    theta = 0.3 / 0.7
    agreed = [1.0]  # chance that the first m samples agree
    for m in range(1, 10):
        agreed.append(agreed[-1] * m / (m + theta))
    fixed = []
    for waves in product([False, True], repeat=9):
        cuts = [0, *(i + 1 for i, cut in enumerate(waves) if cut), 10]
        fixed.append(sum((agreed[a - 1] if a else 1.0) * paid.wave(b - a, first=not a) for a, b in pairwise(cuts)))
    assert planned == pytest.approx(min(fixed))


def model(supports_n=False, **price):
    given = {"input": "1", "output": "4"} | price
    return ScriptedModel(["look"], price=Price(**given), supports_n=supports_n)


def test_a_prompt_is_cached_where_reading_has_a_price_writing_has_none_and_it_is_long_enough():
    def paid_for(student, prompt=2000, **more):
        return batch_prices(student, prompt, 50, terms=cache_terms(student, breakpoints=False), **more)

    paid = paid_for(model(cached_input="0.1"))
    assert (paid.prompt, paid.repeated_prompt, paid.answer) == pytest.approx((0.002, 0.0002, 0.0002))
    assert not paid.once
    assert paid_for(model(cached_input="0.1"), 1000).repeated_prompt == pytest.approx(0.001)
    assert paid_for(model()).repeated_prompt == pytest.approx(0.002)
    told = model(cached_input="0.1", cache_write="1.25")
    assert paid_for(told).repeated_prompt == pytest.approx(0.002), "only what it is told to cache"
    marked = known(batch_prices(told, 2000, 50, terms=cache_terms(told)))
    assert (marked.prompt, marked.repeated_prompt) == pytest.approx((0.0025, 0.0002))
    assert paid_for(ScriptedModel(["look"])) is None
    assert paid_for(model(), seconds=2.0, second_dollars=0.5).wait == 1.0


async def test_the_statistics_learns_and_forgets():
    statistics, draw = SampleStatistics(), random.Random(1)
    call = Call(role="student", model="s", usage=Usage(input=10, output=90), dollars=None, seconds=2.0)
    context = StepContext(config=CascadeConfig(), router=Unanimity(3), count=len, actions=TextActions())
    assert statistics.agree == pytest.approx(2 / 3)
    for _ in range(600):
        said = [{"content": "look"}, {"content": "look" if draw.random() < 0.9 else "go"}]
        statistics.add_request(call, 3)
        statistics.add_vote([await parse(context, {"role": "assistant", **m}, SITUATION, _request()) for m in said])
    assert statistics.known
    assert statistics.agree == pytest.approx(0.9, abs=0.06)
    assert (statistics.answer_tokens, statistics.seconds) == pytest.approx((30, 2))
    for _ in range(600):
        said = [{"content": "look"}, {"content": str(draw.random())}]
        statistics.add_vote([await parse(context, {"role": "assistant", **m}, SITUATION, _request()) for m in said])
    assert 0 < statistics.agree < 0.1


def _request():

    return Request([{"role": "user", "content": "go"}])


MESSAGES: list[Message] = [{"role": "user", "content": "word " * 3000}]


async def steps(number, answers, **sampling):
    student = ScriptedModel(
        lambda messages, sample: answers.pop(0),
        price=Price(input="1", cached_input="0.1", output="4"),
        supports_n=False,
    )
    cascade = Cascade(
        StepContext(
            config=CascadeConfig(retrieval={"k": 0}, sampling=sampling),
            router=Unanimity(3),
            count=lambda text: len(text.split()),
            teacher=ScriptedModel(["teach"]),
            student=student,
            actions=TextActions(),
        )
    )
    made = [(await cascade.step(MESSAGES))[1] for _ in range(number)]
    return [d.answered_by for d in made], [len(d.calls) - (d.answered_by == "teacher") for d in made]


async def test_a_cascade_plans_its_waves_once_it_has_seen_enough():
    answered, calls = await steps(ENOUGH + 2, ["look"] * 3 * (ENOUGH + 2))
    assert answered == ["student"] * (ENOUGH + 2)
    assert calls[:ENOUGH] == [2] * ENOUGH, "two, then one: what could settle it"
    assert calls[ENOUGH:] == [3, 3], "one after the other, since a prompt sent before is read from the cache"


def test_a_prompt_is_counted_only_where_its_length_may_matter():
    counted: list[str] = []

    def count(text: str) -> int:
        counted.append(text)
        return len(text.split())

    student = ScriptedModel(["look"], price=Price(input="1", cached_input="0.1", output="4"))
    context = StepContext(
        config=CascadeConfig(), router=Unanimity(3), count=count, student=student, actions=TextActions()
    )
    statistics = SampleStatistics()
    for _ in range(ENOUGH):
        statistics.add_request(Call(role="student", model="s", usage=Usage(output=90), dollars=None), 3)
        statistics.add_vote([Sample(message={}, action=Action(key="look", text="look"))] * 2)

    def first(request: Request) -> int:
        return BatchSizes(context, statistics, Unanimity(3), SITUATION, 3, request).next(NOTHING)

    asked = Request(MESSAGES)
    assert (first(asked.with_demonstrations(MESSAGES, 9000)), counted) == (3, [])
    assert first(asked.with_demonstrations(MESSAGES, 10)) == 3
    assert counted == [MESSAGES[0]["content"]]


@given(
    name=st.sampled_from(["s", "openai/gpt-4o", "anthropic/claude-sonnet-4"]),
    router=routers,
    demonstrations=st.integers(0, 3_000),
    words=st.integers(1, 3_000),
    read=st.sampled_from(["0", "0.1", "0.5", "1"]),
    answer=st.integers(1, 2_000),
    minimum=st.sampled_from([None, 0, 500, 2048]),
    agreed=st.integers(0, ENOUGH),
)
@example(name="s", router=Unanimity(3), demonstrations=1_000, words=200, read="0.1", answer=50, minimum=None, agreed=8)
def test_a_prompt_that_is_not_counted_would_have_been_bought_for_alike(
    name, router, demonstrations, words, read, answer, minimum, agreed
):
    student = ScriptedModel(["look"], name=name, price=Price(input="1", cached_input=read, output="4"))
    config = CascadeConfig.model_validate({"sampling": {"cached_from_tokens": minimum}})
    context = StepContext(
        config=config, router=router, count=lambda text: len(text.split()), student=student, actions=TextActions()
    )
    statistics = SampleStatistics()
    for vote in range(ENOUGH):
        statistics.add_request(Call(role="student", model="s", usage=Usage(output=answer), dollars=None), 1)
        keys = "look", "look" if vote < agreed else "wait"
        statistics.add_vote([Sample(message={}, action=Action(key=key, text=key)) for key in keys])
    messages: list[Message] = [{"role": "user", "content": "word " * words}]
    request = Request(messages).with_demonstrations(messages, demonstrations)
    prompt = request.tokens(context.count) + demonstrations
    terms = cache_terms(student, minimum=minimum)
    exact = batch_prices(student, prompt, statistics.answer_tokens, terms=terms, seconds=statistics.seconds)
    assert exact is not None
    plan = BatchPlanner(router, SITUATION, router.n, exact, statistics.agree)
    sizes = BatchSizes(context, statistics, router, SITUATION, router.n, request)
    assert sizes.next(NOTHING) == plan.next(NOTHING)[0]


def test_the_router_is_asked_about_imagined_votes_with_all_that_is_known_of_the_step():
    seen = []

    class Watching(Unanimity):
        def judge(self, situation, tally, remaining):
            seen.append((tally.total + remaining, tally.similarity))
            return super().judge(situation, tally, remaining)

    votes = Tally(counts={"a": 1}, total=1, similarity=0.5)
    BatchPlanner(Watching(3), SITUATION, 3, BatchPrices(10, 10, 1, once=False), 0.8).next(votes)
    assert set(seen) == {(3, 0.5)}
