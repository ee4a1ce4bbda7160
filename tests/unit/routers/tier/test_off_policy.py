"""Off-policy estimates against a known truth: unbiased, covered by their intervals, and honest about thin logs."""

from __future__ import annotations

from dataclasses import replace
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest

from agentcascade.errors import InvalidRequest
from agentcascade.memory.combinations import STAGES
from agentcascade.memory.types import TierRouter
from agentcascade.routers.tier import fitted_q, off_policy
from agentcascade.routers.tier.baselines import FixedTiers, RandomTiers
from agentcascade.routers.tier.log import TierLog
from agentcascade.routers.tier.off_policy import OffPolicyEstimates, estimate_value
from agentcascade.routers.tier.outcome_table import Reward
from agentcascade.routers.tier.replay import RouterAnswers, exact_value, simulate_log
from agentcascade.types import MODULES
from tests.tier_sweeps import TIERS_OF, Hard, Soft, make_sweep

NAMES = ("ips", "snips", "dr")


@pytest.fixture(scope="module")
def sweep() -> TierLog:
    return make_sweep(40, 10)


def means(found: OffPolicyEstimates) -> np.ndarray:
    return np.array([getattr(found, name).mean for name in NAMES])


def walked(log: TierLog, router: TierRouter, question: int) -> float:
    """The value of one question, by the definition: each combination's probability, decision by decision."""
    total = 0.0
    for row in log.rows_of(question):
        chance = 1.0
        for place, module in enumerate(MODULES):
            chance *= router.probabilities(module, log.state(int(row), module))[log.tiers[row, place]]
        total += chance * log.score[row]
    return total


@pytest.mark.parametrize("router", [Soft(3), Hard(3), FixedTiers("mid"), RandomTiers([0.5, 0.5, 0])])
def test_exact_is_the_expectation_over_all_combinations(sweep: TierLog, router: TierRouter) -> None:
    few = sweep.select([3, 0, 7])
    found = exact_value(few, router)
    assert found.values == pytest.approx([walked(few, router, i) for i in range(3)])
    assert found.value == found.score == pytest.approx(found.values.mean())
    assert found.chances.sum(axis=1) == pytest.approx(1)


def test_exact_of_fixed_tiers_is_their_column(sweep: TierLog) -> None:
    score, cost = sweep.tables()
    found = exact_value(sweep, FixedTiers("high"), value="cost")
    assert (found.score, found.cost) == pytest.approx((score[:, 242].mean(), cost[:, 242].mean()))
    assert found.value == found.cost


def test_exact_asks_no_state_twice_and_follows_only_paths_that_are_taken(sweep: TierLog) -> None:
    soft, hard = Soft(), Hard()
    exact_value(sweep, soft)
    exact_value(sweep, hard)
    assert soft.calls == 40 * (1 + 3 * 3 + 81)
    assert hard.calls == 40 * 5


@pytest.mark.parametrize("router", [Soft(3), Soft(4, heat=4.0), Hard(5), FixedTiers("low")])
@pytest.mark.parametrize("value", ["score", "cost"])
def test_on_a_log_of_everything_each_estimate_is_the_truth(sweep: TierLog, router: TierRouter, value: Any) -> None:
    """Drawn alike and drawn all: then expectations are sums, and an unbiased estimate has no error left."""
    truth = exact_value(sweep, router, value=value).value
    assert means(estimate_value(sweep, router, value=value, resamples=100)) == pytest.approx([truth] * 3)


def test_expectations_are_right_under_any_logging_that_doubts(sweep: TierLog) -> None:
    """Rows weighted by how likely the logging router takes them: IPS and DR must come out at the truth."""
    few, logger, router = sweep.select(range(10)), Soft(11, heat=0.3), Soft(12)
    rows = [few.rows_of(i) for i in range(10)]
    parts = np.array(
        [
            [logger.probabilities(m, few.state(r, m))[few.tiers[r, p]] for p, m in enumerate(MODULES)]
            for r in range(len(few))
        ]
    )
    likely = parts.prod(axis=1)
    logged = replace(few, propensity=likely, propensities=parts)
    chances = RouterAnswers(logged, router, 0.0).rows()
    chosen = np.take_along_axis(chances, few.tiers.astype(int)[:, :, None], axis=2)[:, :, 0]
    worth = fitted_q.fit_values(logged, few.score, chances, few.question.astype(np.int64) // 5)
    weight = chosen.prod(axis=1) / likely
    for ratios in (chosen / parts, None):
        robust = off_policy._doubly_robust(few.score, weight, worth, ratios, None)
        found = [float((likely * robust)[own].sum()) for own in rows]
        assert found == pytest.approx(exact_value(few, router).values)


def test_doubly_robust_is_the_recursion_of_its_paper() -> None:
    rng = np.random.default_rng(0)
    values, ratios = rng.random(9), rng.exponential(size=(9, 5))
    worth = fitted_q.DecisionValues(rng.random((9, 5)), rng.random((9, 5)))
    found = values
    for place in reversed(range(5)):
        found = worth.state[:, place] + ratios[:, place] * (found - worth.taken[:, place])
    assert off_policy._doubly_robust(values, ratios.prod(axis=1), worth, ratios, None) == pytest.approx(found)


def test_simulated_logs_follow_the_router_and_know_their_propensities(sweep: TierLog) -> None:
    router = Soft(2)
    log = simulate_log(sweep, router, seed=1, explore=0.2, times=50)
    assert len(log) == 50 * 40
    assert log.propensity is not None
    assert log.propensities is not None
    for row in range(0, len(log), 97):
        for place, module in enumerate(MODULES):
            plain = router.probabilities(module, log.state(row, module))[log.tiers[row, place]]
            assert log.propensities[row, place] == pytest.approx(0.8 * plain + 0.2 / 3)
    assert log.propensity == pytest.approx(log.propensities.prod(axis=1))
    mixed = exact_value(sweep, Mixed(router, 0.2))
    shares = np.bincount(log.combinations, minlength=243) / len(log)
    assert np.abs(shares - mixed.chances.mean(axis=0)).max() < 0.02
    assert (simulate_log(sweep, router, seed=1).combinations == simulate_log(sweep, router, seed=1).combinations).all()
    assert (simulate_log(sweep, router, seed=1).combinations != simulate_log(sweep, router, seed=2).combinations).any()


class Mixed:
    """A router that explores."""

    name = "mixed"

    def __init__(self, router: TierRouter, explore: float) -> None:
        self._router, self._explore = router, explore

    def probabilities(self, module: Any, state: Any, tradeoff: float = 0.0) -> Any:
        found = self._router.probabilities(module, state, tradeoff)
        return tuple((1 - self._explore) * p + self._explore / 3 for p in found)


@pytest.fixture(scope="module")
def repeated() -> tuple[float, list[OffPolicyEstimates]]:
    """Estimates from 40 logs, each of other groups and questions of one world, and the truth of that world."""
    router = Soft(3, heat=0.5)
    truth = exact_value(make_sweep(1500, 1500, seed=999), router).value
    logs = (simulate_log(make_sweep(90, 30, seed), Soft(3, heat=0.25), seed, times=3) for seed in range(40))
    return truth, [estimate_value(log, router, seed=i, resamples=300) for i, log in enumerate(logs)]


@pytest.mark.parametrize("name", NAMES)
def test_intervals_cover_the_truth_of_other_questions(
    repeated: tuple[float, list[OffPolicyEstimates]], name: str
) -> None:
    truth, found = repeated
    each = [getattr(e, name) for e in found]
    assert {e.clustered_by for e in found} == {"group"}
    covered = np.mean([one.low <= truth <= one.high for one in each])
    assert covered >= 0.85, "95 % but for three standard errors of 40 draws"
    error = np.array([one.mean for one in each]) - truth
    assert abs(error.mean()) < 3.5 * error.std() / np.sqrt(40), "no bias beyond chance"
    assert np.mean([one.high - one.low for one in each]) < 6 * error.std(), "covered because it is right, not wide"


def test_doubly_robust_varies_less(
    repeated: tuple[float, list[OffPolicyEstimates]], uniform: list[OffPolicyEstimates]
) -> None:
    near, far = (np.std([means(e) for e in found], axis=0) for found in (repeated[1], uniform))
    assert near[2] < 0.85 * near[0], "also where the logging router is so alike that importance sampling does well"
    assert far[2] < 0.5 * far[0]
    assert far[2] < 0.8 * far[1]


@pytest.fixture(scope="module")
def uniform(sweep: TierLog) -> list[OffPolicyEstimates]:
    """Estimates of a router from 20 logs of random tiers."""
    return [estimate_value(simulate_log(sweep, "uniform", seed, times=5), Soft(3), resamples=100) for seed in range(20)]


def test_sequential_corrections_beat_the_first_decision_alone(
    sweep: TierLog, uniform: list[OffPolicyEstimates]
) -> None:
    truth = exact_value(sweep, Soft(3)).value
    # Not 1/243 throughout, so that the factors cannot be told from the product.
    logs = [simulate_log(sweep, Soft(9, heat=0.05), seed, times=5) for seed in range(20)]
    joint = [estimate_value(replace(log, propensities=None), Soft(3), resamples=100) for log in logs]
    whole, alone = (np.array([e.dr.mean for e in found]) - truth for found in (uniform, joint))
    assert np.sqrt((whole**2).mean()) < 0.9 * np.sqrt((alone**2).mean())
    assert abs(alone.mean()) < 3.5 * alone.std() / np.sqrt(20)
    assert any("joint only" in w for w in joint[0].warnings)


def test_regressions_never_see_their_own_group(sweep: TierLog) -> None:
    """Another score in one group changes no prediction for it."""
    log = simulate_log(sweep, "uniform", 0, times=3)
    chances = np.full((len(log), 5, 3), 1 / 3)
    group = log.question.astype(np.int64) % 10
    other = np.where(group == 4, 1 - log.score, log.score)
    before, after = (fitted_q.fit_values(log, values, chances, group) for values in (log.score, other))
    own = group == 4
    assert after.taken[own] == pytest.approx(before.taken[own])
    assert after.state[own] == pytest.approx(before.state[own])
    assert np.abs(after.taken[~own] - before.taken[~own]).max() > 0.01


@pytest.mark.parametrize("shift", [-3.0, 0.5, 100.0])
def test_what_is_added_to_every_value_is_added_to_snips(sweep: TierLog, shift: float) -> None:
    log, router = simulate_log(sweep, Soft(1), 5), Soft(2)
    plain = estimate_value(log, router, value="score", seed=3)
    moved = estimate_value(log, router, value=lambda score, cost: score + shift, seed=3)
    assert np.array([moved.snips.mean, moved.snips.low, moved.snips.high]) - shift == pytest.approx(
        np.array([plain.snips.mean, plain.snips.low, plain.snips.high])
    )
    assert moved.ips.mean - shift != pytest.approx(plain.ips.mean, abs=1e-3), "IPS is not so lucky"


def test_reward_is_on_the_scale_that_it_was_given(sweep: TierLog) -> None:
    reward, router = Reward.of(sweep.score, sweep.cost), Soft(2)
    found = estimate_value(sweep, router, tradeoff=0.5, value=reward, resamples=100)
    whole = reward(sweep.score, sweep.cost, 0.5)
    assert found.dr.mean == pytest.approx(exact_value(sweep, router, 0.5, lambda score, cost: whole).value)
    assert found.dr.mean == pytest.approx(estimate_value(sweep, router, 0.5, "reward", resamples=100).dr.mean)
    assert found.value == "Reward"


def test_the_same_seed_gives_the_same_estimates(sweep: TierLog) -> None:
    log = simulate_log(sweep, "uniform", 5)
    assert estimate_value(log, Soft(), seed=1) == estimate_value(log, Soft(), seed=1)
    assert estimate_value(log, Soft(), seed=1).ips.low != estimate_value(log, Soft(), seed=2).ips.low


def test_clusters_are_groups_where_there_are_enough_of_them() -> None:
    many = estimate_value(simulate_log(make_sweep(24, 8), times=2), Soft(), resamples=100)
    assert (many.clustered_by, many.clusters, many.n) == ("group", 8, 48)
    few = estimate_value(simulate_log(make_sweep(24, 7), times=2), Soft(), resamples=100)
    assert (few.clustered_by, few.clusters) == ("question", 24)
    assert any("7 groups are too few" in w for w in few.warnings)
    single = estimate_value(simulate_log(make_sweep(1, 1), times=30), Soft(), resamples=100)
    assert (single.clustered_by, single.clusters) == ("row", 30)
    assert np.isfinite(means(single)).all()


def test_one_row_is_enough_not_to_fail() -> None:
    found = estimate_value(simulate_log(make_sweep(1, 1)), Soft(), resamples=100)
    assert found.n == 1
    assert found.warnings


def test_groups_that_are_alike_inside_make_wider_intervals() -> None:
    """240 rows of 10 groups are no 240 independent rows."""
    log = simulate_log(make_sweep(240, 10), "uniform", 0)
    level = np.array([int(g.split()[1]) for g in log.groups])[log.question] / 20
    log = replace(log, score=np.clip(0.2 * log.score + level, 0, 1))
    apart = replace(log, groups=[str(i) for i in range(240)])
    router = RandomTiers()
    together, alone = (estimate_value(x, router).ips for x in (log, apart))
    assert together.high - together.low > 2 * (alone.high - alone.low)


@pytest.mark.parametrize(("n", "quantile"), [(8, 2.3646), (10, 2.2622), (40, 2.0227), (10**6, 1.9600)])
def test_percentiles_are_students_for_few_clusters(n: int, quantile: float) -> None:
    assert off_policy._tail_share(0.95, n) == pytest.approx(
        NormalDist().cdf(-quantile * (n / (n - 1)) ** 0.5), rel=5e-3
    )


def test_what_was_never_logged_is_said_to_lack_support(sweep: TierLog) -> None:
    log = simulate_log(sweep, RandomTiers([0.5, 0.5, 0]), 1, times=5)
    found = estimate_value(log, FixedTiers({"summary": "high"}))
    assert found.zero_weight == 1
    assert np.isnan(found.snips.mean)
    assert any(w.startswith("no support: summary high was never logged") for w in found.warnings)
    assert not any("no support" in w for w in estimate_value(log, RandomTiers([0.3, 0.7, 0])).warnings)


def test_wrong_propensities_show_in_the_mean_weight(sweep: TierLog) -> None:
    log = simulate_log(sweep, "uniform", 1, times=50)
    assert log.propensity is not None
    assert not estimate_value(log, RandomTiers([0.5, 0.3, 0.2])).warnings
    wrong = estimate_value(replace(log, propensity=log.propensity / 2, propensities=None), RandomTiers([0.5, 0.3, 0.2]))
    assert any("the mean weight is 2" in w for w in wrong.warnings)


def test_thin_logs_say_so(sweep: TierLog) -> None:
    found = estimate_value(simulate_log(sweep, "uniform", 1), FixedTiers("low"))
    assert found.effective <= 3
    assert found.zero_weight > 0.9
    assert any("effective of 40 rows" in w for w in found.warnings)


def test_one_heavy_row_is_named_and_can_be_clipped(sweep: TierLog) -> None:
    log = simulate_log(sweep, "uniform", 1, times=30)
    heavy = np.full((len(log), 5), 1 / 3)
    heavy[7] = 0.12
    log = replace(log, propensities=heavy, propensity=heavy.prod(axis=1))
    plain = estimate_value(log, RandomTiers())
    assert plain.largest_weight == pytest.approx((1 / 0.36) ** 5)
    assert any("one row has" in w and "set clip" in w for w in plain.warnings)
    cut = estimate_value(log, RandomTiers(), clip=2.0)
    assert (cut.clip, cut.largest_weight, cut.clipped) == (2.0, 2.0, 1 / len(log))
    assert any("were clipped" in w for w in cut.warnings)
    assert cut.ips.high - cut.ips.low < 0.5 * (plain.ips.high - plain.ips.low)


def test_unknown_reads_are_zeros_and_said(sweep: TierLog) -> None:
    log = simulate_log(sweep, "uniform", 1, times=3)
    blind = replace(log, reads=np.full_like(log.reads, -1))
    assert any("100% of what was read is not in the log" in w for w in estimate_value(blind, Soft()).warnings)
    assert not any("what was read" in w for w in estimate_value(log, Soft()).warnings)


def test_missing_propensities_name_the_fix(sweep: TierLog) -> None:
    log = simulate_log(sweep, "uniform", 1, times=3)
    assert log.propensity is not None
    gap = log.propensity.copy()
    gap[5] = np.nan
    blank = replace(log, propensity=None, propensities=None)
    for broken, where in ((blank, "row 0"), (replace(log, propensity=gap), "row 5")):
        with pytest.raises(InvalidRequest, match=rf"memory.explore above 0.*assume_uniform=True.*{where}"):
            estimate_value(broken, Soft())
    assert means(estimate_value(blank, Soft(), assume_uniform=True)) == pytest.approx(
        means(estimate_value(log, Soft()))
    )
    parts_alone = replace(log, propensity=None)
    assert means(estimate_value(parts_alone, Soft())) == pytest.approx(means(estimate_value(log, Soft())))


class Broken:
    name = "broken"

    def __init__(self, gives: Any) -> None:
        self._gives = gives

    def probabilities(self, module: Any, state: Any, tradeoff: float = 0.0) -> Any:
        return self._gives


@pytest.mark.parametrize("gives", [(0.5, 0.5), (0.5, 0.5, 0.5), (-0.5, 1.0, 0.5), (float("nan"), 0.5, 0.5)])
def test_a_router_without_probabilities_is_named(sweep: TierLog, gives: Any) -> None:
    with pytest.raises(InvalidRequest, match=r"the router broken gave .* for filter"):
        estimate_value(sweep.select([0, 1]), Broken(gives))
    with pytest.raises(InvalidRequest, match="the router broken"):
        exact_value(sweep.select([0]), Broken(gives))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"value": "points"}, "'score', 'cost', 'reward'"),
        ({"value": lambda score, cost: score / 0}, "no finite number"),
        ({"value": lambda score, cost: 1.0}, "no finite number for each row"),
        ({"confidence": 1.0}, "confidence is 1.0"),
        ({"resamples": 3}, "resamples 3"),
        ({"clip": 0}, "clip 0"),
    ],
)
@pytest.mark.filterwarnings("ignore:divide by zero")
def test_impossible_options(sweep: TierLog, options: Any, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        estimate_value(sweep.select([0]), Soft(), **options)


def test_only_a_sweep_has_an_exact_value(sweep: TierLog) -> None:
    log = simulate_log(sweep, "uniform", 1)
    for ask in (lambda: exact_value(log, Soft()), lambda: simulate_log(log)):
        with pytest.raises(InvalidRequest, match=r"40 rows of 40 questions, not all 243 combinations"):
            ask()
    with pytest.raises(InvalidRequest, match="explore is 2"):
        simulate_log(sweep, Soft(), explore=2)


def test_what_is_read_depends_on_the_tiers_before_alone(sweep: TierLog) -> None:
    """What `exact` and `simulate` rely on."""
    rows = sweep.table_rows()
    for place in range(5):
        before = TIERS_OF[:, : (0, 1, 1, 1, 4)[place]]
        for question in (0, 39):
            reads = sweep.reads[rows[question], STAGES[place]]
            assert len(
                {(*b, r) for b, r in zip(before.tolist(), reads.tolist())} if before.size else set(reads)
            ) == len({tuple(b) for b in before.tolist()})
