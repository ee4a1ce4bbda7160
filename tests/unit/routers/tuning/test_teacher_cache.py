"""Rules are costed with the teacher's prompt cache as they would leave it: the same dollars as a live cascade pays."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from agentcascade.models.pricing import Price
from agentcascade.routers.tuning.columns import columns
from agentcascade.routers.tuning.costs import Bill
from agentcascade.routers.tuning.replay import replay
from agentcascade.routers.tuning.rules import TeacherAlone, Threshold
from agentcascade.routers.tuning.teacher_cache import TeacherCache
from agentcascade.steplog.types import LoggedStep, StudentSamples
from agentcascade.types import LoggedSample
from tests.cached_walks import STUDENT, TEACHER, WRITES, Walk
from tests.cascades import known

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def logged(accepts: list[bool], pauses: list[float], price: Price, name: str) -> list[LoggedStep]:
    """A log of the same episode with the teacher at every step, whose provider really keeps a cache."""
    walk = Walk(accepts, price=price, name=name, mode="teacher")
    decisions = asyncio.run(walk.run(pauses))
    probe = Walk([True] * len(accepts), price=price, name=name)  # what the student is billed when it is asked
    asked = asyncio.run(probe.run(pauses))
    at, steps = NOON, []
    for decision, student, accept, pause in zip(decisions, asked, accepts, pauses):
        at += timedelta(seconds=pause)
        (call,), (sampled,) = decision.calls, student.calls
        steps.append(
            LoggedStep(
                id=f"s{decision.step}",
                episode="ep",
                step=decision.step,
                students=(
                    StudentSamples(
                        model="s",
                        n=1,
                        samples=(LoggedSample(action="a" if accept else None, tokens=sampled.usage.output),),
                        prompt=sampled.usage.model_copy(update={"output": 0}),
                        price=STUDENT,
                    ),
                ),
                teacher="a",
                teacher_model=name,
                teacher_usage=call.usage,
                teacher_price=price,
                created_at=at,
            )
        )
    return steps


@given(
    st.lists(st.booleans(), min_size=2, max_size=8),
    st.lists(st.sampled_from([1.0, 250.0, 650.0]), min_size=8, max_size=8),
    st.sampled_from([(TEACHER, "openai/t"), (WRITES, "anthropic/claude-sonnet-4-5")]),
)
@example([False, True, False], [1.0] * 3, (TEACHER, "openai/t"))  # 1,515 tokens sent: 11 blocks of 128 are read
@settings(max_examples=20, deadline=None)
def test_a_replayed_rule_costs_what_the_live_cascade_pays(
    accepts: list[bool], pauses: list[float], of: tuple[Price, str]
) -> None:
    price, name = of
    pauses = pauses[: len(accepts)]
    live = asyncio.run(Walk(accepts, price=price, name=name).run(pauses))
    log = columns(logged(accepts, pauses, price, name))
    replayed = replay(log, Threshold(1, 1))
    assert replayed.acceptance == pytest.approx(sum(accepts) / len(accepts))
    assert replayed.cost * len(accepts) == pytest.approx(float(sum(known(d.dollars) for d in live)), rel=0.02)
    alone = replay(log, TeacherAlone())
    assert alone.cost == pytest.approx(alone.teacher_cost), "with the teacher at every step its cache is as logged"
    if not price.cache_write:
        assert replay(log, Threshold(1, 1), [Bill(discounts=False)]).cost >= replayed.cost - 1e-12


def brute_force(cache: TeacherCache, accept: Any) -> Any:
    """Expected dollars over all ways in which one episode may go, written down plainly."""
    n = len(accept)
    dollars = np.zeros(n)
    for i in range(n):
        for taken in product([True, False], repeat=i):
            chance = float(np.prod([a if t else 1 - a for a, t in zip(accept, taken)])) if i else 1.0
            head = min(cache.cached[0], cache.cached[i])
            held = head
            last = next((j for j in range(i - 1, -1, -1) if not taken[j]), None)
            if last is not None and cache.at[i] - cache.at[last] <= cache.seconds[i]:
                kept = cache.prompt[last] // cache.block[i] * cache.block[i]
                sent = kept if cache.prompt[last] <= cache.prompt[i] else 0
                held = max(head, min(cache.cached[i], sent))
            dollars[i] += chance * max(0.0, cache.cached[i] - held) * cache.dearer[i]
    return dollars


@given(st.integers(1, 7), st.randoms(use_true_random=False), st.sampled_from([1, 128]))
def test_the_expectation_is_over_all_ways_in_which_an_episode_may_go(n: int, random: Any, block: int) -> None:
    prompt = np.array([random.randint(1000, 4000) for _ in range(n)], float)
    cache = TeacherCache(
        prompt=prompt,
        cached=np.array([random.randint(0, int(p)) for p in prompt], float),
        dearer=np.array([random.random() for _ in range(n)]),
        at=np.cumsum([random.choice([1.0, 200.0, 400.0]) for _ in range(n)]),
        seconds=np.full(n, 300.0),
        block=np.full(n, float(block)),
    )
    accept = np.array([random.choice([0.0, 0.5, 0.9, 1.0]) for _ in range(n)])
    expected = brute_force(cache, accept)
    assert cache.cold_dollars(accept, np.array([0])) == pytest.approx(expected, abs=1e-3 * (1 + expected.max()))
    twice = TeacherCache(*(np.tile(v, 2) for v in vars(cache).values()))
    both = twice.cold_dollars(np.tile(accept, 2), np.array([0, n]))
    assert both == pytest.approx(np.tile(expected, 2), abs=1e-3 * (1 + expected.max())), (
        "episodes know nothing of each other"
    )


def test_a_log_without_a_cache_costs_what_it_did() -> None:
    steps = logged([True, False, True, False], [1.0] * 4, TEACHER, "openai/t")
    plain = []
    for step in steps:
        usage = known(step.teacher_usage)
        uncached = usage.model_copy(update={"input": usage.prompt, "cached_input": 0})
        plain.append(step.model_copy(update={"teacher_usage": uncached}))
    log = columns(plain)
    assert log.cache is None
    cached = columns(steps)
    assert known(cached.take(np.array([0, 1])).cache).prompt.shape == (2,)
    no_cache, with_cache = (replay(c, Threshold(1, 1)).cost for c in (log, cached))
    assert with_cache < no_cache
    assert replay(replace(cached, cache=None), Threshold(1, 1)).cost < with_cache, "what it was taken for before"
    assert Decimal(str(round(no_cache, 9))) > 0
