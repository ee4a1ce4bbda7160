"""Averages over subsets, against every order written out, and against the code that samples for real."""

from __future__ import annotations

import itertools
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from agentcascade.actions.voting import next_wave
from agentcascade.protocols import Verdict
from agentcascade.routers.step.consistency import AgreementThreshold
from agentcascade.routers.tuning.subsets import NOWHERE, pattern, staged, winning
from agentcascade.types import Tally

answers = st.lists(st.sampled_from(["a", "b", "c", None]), min_size=1, max_size=6)


def played(order: list[str | None], n: int, needed: int) -> tuple[str | None, int, int]:
    """(accepted action, samples, requests) of the real router and the real waves, on samples in this order."""
    router = AgreementThreshold(n, needed / n)
    drawn: list[str | None] = []
    requests = 0
    while True:
        counts = Counter(a for a in drawn if a is not None)
        tally = Tally(counts=dict(counts), total=len(drawn))
        verdict = router.judge(NOWHERE, tally, n - len(drawn)) if drawn else None
        if verdict is not None:
            top = tally.top
            return (top[0] if verdict is Verdict.ACCEPT and top else None), len(drawn), requests
        wave = next_wave(router, NOWHERE, tally, n - len(drawn))
        drawn += order[len(drawn) : len(drawn) + wave]
        requests += 1


@given(answers, st.integers(1, 6), st.data())
def test_every_order_of_every_subset_is_averaged(given_answers: list[str | None], n: int, data: st.DataObject) -> None:
    needed = data.draw(st.integers(1, n))
    padded = given_answers + [None] * (n - len(given_answers))
    runs = [played(list(order), n, needed) for order in itertools.permutations(padded, n)]
    of = pattern(given_answers)
    for action, size in Counter(a for a in given_answers if a is not None).items():
        share = sum(taken == action for taken, _, _ in runs) / len(runs)
        assert abs(winning(of, size, n, needed) - share) < 1e-12
    samples, requests = staged(of, n, needed)
    assert abs(samples - sum(s for _, s, _ in runs) / len(runs)) < 1e-9
    assert abs(requests - sum(r for _, _, r in runs) / len(runs)) < 1e-9


def test_a_hand_computed_vote() -> None:
    of = pattern(["a"] * 6 + ["b"] * 2 + [None] * 2)
    assert of == (10, (6, 2))
    assert winning(of, 6, 3, 3) == 20 / 120  # C(6,3) of C(10,3)
    assert winning(of, 2, 3, 3) == 0
    assert abs(winning(of, 6, 2, 1) - (15 + 6 * 2 + 6 * 2 / 2) / 45) < 1e-12  # both, one of two, or a tie that it opens


def test_more_samples_than_were_logged_vote_for_nothing() -> None:
    assert winning((2, (2,)), 2, 3, 3) == 0
    assert winning((2, (2,)), 2, 3, 2) == 1
