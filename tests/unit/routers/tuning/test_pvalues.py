"""P-values are seldom small under the null hypothesis, often small when the risk is low, and agree with textbooks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentcascade.errors import InvalidRequest
from agentcascade.routers.tuning import multiple
from agentcascade.routers.tuning.pvalues import FUNCTIONS, TESTS, Test, binomial, upper_bound

ones = np.ones


def test_no_error_in_59_is_just_enough_for_five_percent() -> None:
    assert binomial(np.zeros(59), ones(59), 0.05) <= 0.05 < binomial(np.zeros(58), ones(58), 0.05)


def test_the_upper_bound_is_clopper_and_pearsons() -> None:
    loss = np.array([1.0] * 3 + [0.0] * 97)
    assert upper_bound("binomial", loss, ones(100), 0.05) == pytest.approx(0.07571, abs=1e-4)  # beta.ppf(.95, 4, 97)


@pytest.mark.parametrize("test", TESTS)
def test_false_alarms_are_as_rare_as_promised(test: Test) -> None:
    rng = np.random.default_rng(1)
    small = sum(FUNCTIONS[test]((rng.random(80) < 0.1).astype(float), ones(80), 0.1) <= 0.1 for _ in range(2000))
    assert small <= 2000 * 0.1 + 3 * (2000 * 0.1 * 0.9) ** 0.5


@pytest.mark.parametrize("test", ["hoeffding-bentkus", "betting"])
def test_clusters_of_equal_steps_do_not_fool_the_tests(test: Test) -> None:
    """Every episode is wholly right or wholly wrong: ten steps say no more than one."""
    rng = np.random.default_rng(2)
    alarms = 0
    for _ in range(1000):
        wrong = (rng.random(60) < 0.1).astype(float)  # of all steps of an episode
        alarms += FUNCTIONS[test](wrong, ones(60), 0.1) <= 0.05
    assert alarms <= 50 + 3 * 47.5**0.5


@pytest.mark.parametrize("test", TESTS)
def test_a_low_risk_is_seen(test: Test) -> None:
    rng = np.random.default_rng(3)
    assert FUNCTIONS[test]((rng.random(400) < 0.02).astype(float), ones(400), 0.1) < 1e-3


def test_selective_risk_counts_accepted_steps_alone() -> None:
    loss, base = np.zeros(100), np.r_[ones(59), np.zeros(41)]
    assert binomial(loss, base, 0.05) == pytest.approx(0.95**59)
    assert binomial(loss, np.zeros(100), 0.05) == 1.0  # nothing accepted, nothing known
    with pytest.raises(InvalidRequest, match="one step an episode"):
        binomial(np.full(3, 0.5), ones(3), 0.1)


@given(
    st.lists(st.floats(0, 1), min_size=1, max_size=40),
    st.floats(0.01, 0.9),
    st.sampled_from(["hoeffding-bentkus", "betting"]),
)
def test_p_values_are_probabilities_and_fall_with_the_bound(loss: list[float], risk: float, test: Test) -> None:
    values = np.array(loss)
    p = FUNCTIONS[test](values, ones(len(loss)), risk)
    assert 0 <= p <= 1
    assert FUNCTIONS[test](values, ones(len(loss)), min(0.99, risk + 0.05)) <= p + 1e-9


def test_a_chain_stops_at_its_first_failure_and_passes_its_share_on() -> None:
    table = [[0.01, 0.02, 0.5, 0.0], [0.04, 0.04]]
    found = multiple.certify([4, 2], lambda i, j: table[i][j], 0.05, "sequence")
    assert [t.certified for t in found[0]] == [True, True, False, False]
    assert [t.certified for t in found[1]] == [False, False]  # 0.04 > 0.025
    assert found[0][3].p is None
    table[0] = [0.01, 0.02, 0.02, 0.02]  # all pass: the other chain gets the whole 0.05
    found = multiple.certify([4, 2], lambda i, j: table[i][j], 0.05, "sequence")
    assert all(t.certified for chain in found for t in chain)
    assert found[1][0].level == pytest.approx(0.05)
    found = multiple.certify([4, 2], lambda i, j: table[i][j], 0.06, "bonferroni")
    assert [t.certified for t in found[0]] == [True, False, False, False]


@given(st.lists(st.lists(st.floats(0, 1), min_size=1, max_size=5), min_size=1, max_size=5), st.floats(0.001, 0.3))
def test_levels_never_sum_to_more_than_delta(table: list[list[float]], delta: float) -> None:
    found = multiple.certify([len(c) for c in table], lambda i, j: table[i][j], delta, "sequence")
    waiting = [next((t.level for t in chain if not t.certified), 0.0) for chain in found]
    assert sum(waiting) <= delta + 1e-9
