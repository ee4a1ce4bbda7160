"""The teacher alone has a prompt cache of its own: what the cascade is compared with is what that would have cost."""

from __future__ import annotations

from collections.abc import Coroutine
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentcascade.models.pricing import Price
from agentcascade.types import Decision, Usage
from tests.cached_walks import ANSWER, TEACHER, WRITES, Walk
from tests.cascades import known


def alone(pauses: list[float], price: Price, name: str) -> Coroutine[Any, Any, list[Decision]]:
    return Walk([False] * len(pauses), price=price, name=name, mode="teacher").run(pauses)


@pytest.mark.parametrize(
    ("price", "name"), [(TEACHER, "openai/t"), (WRITES, "anthropic/claude-sonnet-4-5"), (WRITES, "openai/gpt-6")]
)
async def test_it_is_what_the_provider_would_have_billed_the_teacher_alone(price: Price, name: str) -> None:
    """Ten steps by the student, and ten by the teacher alone, whose provider really keeps a cache."""
    pauses = [1.0] * 4 + [700.0] + [5.0] * 5
    taken = await Walk([True] * 10, price=price, name=name).run(pauses)
    billed = await alone(pauses, price, name)
    assert [d.answered_by for d in taken] == ["student"] * 10
    for estimated, real in zip(taken, billed):
        alone_dollars = float(known(estimated.teacher_dollars))
        assert alone_dollars == pytest.approx(float(known(real.dollars)), rel=0.01), estimated.step
        assert real.teacher_dollars == real.dollars
        assert real.cache_regret == estimated.cache_regret == 0
    uncached = sum(
        price.dollars(Usage(input=d.calls[0].usage.prompt, output=d.calls[0].usage.completion)) for d in taken
    )
    assert sum(known(d.teacher_dollars) for d in taken) < Decimal("0.75") * uncached, (
        "without a cache it was overstated"
    )


async def test_a_switch_pays_for_the_cache_that_it_abandons() -> None:
    accepts = [False] + [True] * 6 + [False, False, True, False]
    decisions = await Walk(accepts).run([1.0] * 11)
    by_step = {d.step: d for d in decisions}
    first, back, stays = by_step[0], by_step[7], by_step[8]
    assert first.cache_regret == stays.cache_regret == 0, "the teacher's own first step, and one after its own"
    assert known(back.cache_regret) > 0
    paid = next(c for c in back.calls if c.role == "teacher")
    assert known(paid.dollars) - known(back.cache_regret) == back.teacher_dollars
    real = await alone([1.0] * 11, TEACHER, "openai/t")
    assert float(known(back.teacher_dollars)) == pytest.approx(float(known(real[7].dollars)), rel=0.01)


async def test_what_has_expired_is_no_regret_of_a_switch_but_what_it_let_expire_is() -> None:
    """After a night the teacher alone would be cold as well; after six short steps by the student it would not be."""
    night = await Walk([False, True, False]).run([1.0, 1.0, 40_000.0])
    assert night[2].cache_regret == 0
    slow = await Walk([False] + [True] * 6 + [False]).run([1.0] + [400.0] * 7)
    assert known(slow[7].cache_regret) > 0
    quick = await Walk([False] + [True] * 6 + [False]).run([1.0] * 8)
    assert known(slow[7].cache_regret) > known(quick[7].cache_regret) > 0, (
        "a cold read of all, a warm one of what was there"
    )


async def test_another_process_takes_what_was_sent_before_to_be_cached() -> None:
    walk = Walk([True] * 8)
    decisions = await walk.run([1.0] * 8)
    messages = [{"role": "system", "content": "rules " * 1500}, {"role": "user", "content": "go"}]
    for _ in range(4):
        messages += [{"role": "assistant", "content": ANSWER}, {"role": "user", "content": "a shelf " * 40}]
    other = Walk([True] * 8)
    other.step = 0
    fresh = await other.cascade.episode(id="ep", goal="go").complete(messages)
    priced = known(fresh.agentcascade.teacher_dollars)
    assert priced < TEACHER.dollars(Usage(input=decisions[0].calls[0].usage.prompt))


@given(
    st.lists(st.booleans(), min_size=2, max_size=7),
    st.lists(st.sampled_from([1.0, 200.0, 650.0]), min_size=7, max_size=7),
    st.sampled_from([(TEACHER, "openai/t"), (WRITES, "anthropic/claude-sonnet-4-5")]),
)
@settings(max_examples=25, deadline=None)
def test_never_cheaper_than_all_cached_nor_dearer_than_none(
    accepts: list[bool], pauses: list[float], of: tuple[Price, str]
) -> None:
    import asyncio

    price, name = of
    decisions = asyncio.run(Walk(accepts, price=price, name=name).run(pauses[: len(accepts)]))
    for decision in decisions:
        call = decision.calls[-1]
        usage = call.usage
        output = usage.completion
        least = price.dollars(Usage(cached_input=usage.prompt, output=output))
        most = price.dollars(Usage(cache_write=usage.prompt, output=output))
        alone, regret = known(decision.teacher_dollars), known(decision.cache_regret)
        assert least <= alone <= most
        assert regret >= 0
        if decision.answered_by == "teacher":
            assert alone + regret == call.dollars
