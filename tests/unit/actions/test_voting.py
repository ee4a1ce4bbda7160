import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentcascade.actions.voting import Seat, next_members, next_wave, tally, winner
from agentcascade.errors import ConfigError
from agentcascade.protocols import Verdict
from agentcascade.routers.agreement import Agreement
from agentcascade.routers.step.consistency import AgreementThreshold, AlwaysStudent, AlwaysTeacher, RandomMix, Unanimity
from agentcascade.types import Action, Sample, Situation, Tally

HERE = Situation(goal="g", episode="ep")


def sample(key):
    message = {"role": "assistant", "content": key or ""}
    return Sample(message=message, action=Action(key=key, text=key) if key else None, invalid=None if key else "no")


votes = st.lists(st.sampled_from(["a", "b", "c", None]), min_size=1, max_size=9)


@given(votes)
def test_agreement_is_the_share_of_the_largest_class_of_all_samples(keys):
    found = tally([sample(k) for k in keys])
    assert found.total == len(keys)
    assert found.agreement == max((keys.count(k) for k in "abc"), default=0) / len(keys)


@given(votes, st.floats(0.05, 1.0))
def test_early_stopping_never_changes_the_verdict(keys, threshold):
    router = AgreementThreshold(n=len(keys), threshold=threshold)
    samples = [sample(k) for k in keys]
    final = router.judge(HERE, tally(samples), 0)
    for i in range(1, len(keys)):
        early = router.judge(HERE, tally(samples[:i]), len(keys) - i)
        assert early in (None, final)


@given(votes, st.floats(0.05, 1.0))
def test_waves_reach_the_same_verdict_and_never_overshoot(keys, threshold):
    router = AgreementThreshold(n=len(keys), threshold=threshold)
    samples = [sample(k) for k in keys]
    drawn = 0
    verdict = None
    while verdict is None:
        size = next_wave(router, HERE, tally(samples[:drawn]), len(keys) - drawn)
        assert 1 <= size <= len(keys) - drawn
        drawn += size
        verdict = router.judge(HERE, tally(samples[:drawn]), len(keys) - drawn)
    assert verdict == router.judge(HERE, tally(samples), 0)


def test_a_wave_is_as_small_as_any_outcome_allows():
    router = Unanimity(3)
    sizes = []
    for known in itertools.accumulate([["a"], ["a"]], initial=[]):
        sizes.append(next_wave(router, HERE, tally([sample(k) for k in known]), 3 - len(known)))
    assert sizes == [2, 1, 1]


class Recording:
    """A router that has no verdict and keeps what it was asked."""

    name = "recording"

    def __init__(self) -> None:
        self.asked: list[tuple[Situation, dict[str, int], int, int]] = []

    def samples(self, situation: Situation) -> int:
        return 3

    def judge(self, situation: Situation, votes: Tally, remaining: int) -> Verdict | None:
        self.asked.append((situation, dict(votes.counts), votes.total, remaining))
        return None


def test_a_wave_is_tried_joined_to_the_largest_class_and_each_apart():
    router = Recording()
    assert next_wave(router, HERE, tally([sample(k) for k in "abb"]), 3) == 3
    assert router.asked == [
        (HERE, {"a": 1, "b": 3}, 4, 2),
        (HERE, {"a": 1, "b": 2, "new class 0": 1}, 4, 2),
        (HERE, {"a": 1, "b": 4}, 5, 1),
        (HERE, {"a": 1, "b": 2, "new class 0": 1, "new class 1": 1}, 5, 1),
    ]


def test_a_class_that_can_still_tie_with_one_seen_first_is_waited_for():
    """Of two classes with as many votes the one seen first wins: b leads, and a may draw level."""
    votes = tally([sample("a"), sample("b"), sample("b")])
    assert Agreement(4, 2).judge(HERE, votes, 1) is None
    assert Agreement(4, 2).judge(HERE, tally([sample(k) for k in "abba"]), 0) is Verdict.ACCEPT
    drawn = [sample(k) for k in "abba"]
    assert winner(drawn, tally(drawn)) is drawn[0]


def test_log_probabilities_are_known_where_every_sample_has_one():
    drawn = [sample(k).model_copy(update={"logprob": p}) for k, p in (("a", -1.0), ("a", -2.0), ("b", -4.0))]
    assert tally(drawn).logprobs == {"a": -1.5, "b": -4.0}


def test_before_any_vote_a_wave_is_of_one_class_or_of_as_many_as_samples():
    router = Recording()
    assert next_wave(router, HERE, tally([]), 3) == 3
    tried = [(sorted(counts.values()), total, remaining) for _, counts, total, remaining in router.asked]
    assert tried == [([1], 1, 2), ([1], 1, 2), ([2], 2, 1), ([1, 1], 2, 1)]


def test_members_are_tried_with_all_their_votes():
    router, seats = Recording(), [Seat(2, 3), Seat(1, 2), Seat(1, 1)]
    assert next_members(router, HERE, tally([sample(k) for k in "abb"]), 10, seats) == 3
    assert router.asked == [
        (HERE, {"a": 1, "b": 8}, 9, 1),
        (HERE, {"a": 1, "b": 2, "new class 1.0": 3, "new class 1.1": 3}, 9, 1),
        (HERE, {"a": 1, "b": 10}, 11, 0),
        (HERE, {"a": 1, "b": 2, "new class 1.0": 3, "new class 1.1": 3, "new class 2.0": 2}, 11, 0),
    ]


def test_one_more_vote_for_the_largest_class_may_settle_it():
    router = AgreementThreshold(n=4, threshold=0.75)
    assert next_wave(router, HERE, tally([sample("a"), sample("a")]), 2) == 1
    assert next_members(router, HERE, tally([sample("a"), sample("a")]), 4, [Seat(), Seat()]) == 1


def test_weights_similarity_and_known_log_probabilities_go_into_the_tally():
    drawn = [sample("a"), sample("b"), sample("a"), sample(None), sample("b")]
    known = [-1.0, -0.5, -3.0, None, None]
    votes = tally([s.model_copy(update={"logprob": p, "weight": 2}) for s, p in zip(drawn, known)], similarity=0.25)
    assert (votes.counts, votes.total) == ({"a": 4, "b": 4}, 10)
    assert votes.logprobs == {"a": -2.0}, "of the other class one is not known"
    assert votes.similarity == 0.25
    assert tally(drawn).logprobs == {}


def test_ties_go_to_the_key_seen_first():
    samples = [sample(None), sample("b"), sample("a"), sample("a"), sample("b")]
    assert winner(samples, tally(samples)) is samples[1]
    assert winner([sample(None)], tally([sample(None)])) is None


def test_unanimity_counts_an_invalid_sample_as_disagreement():
    assert Unanimity(3).judge(HERE, tally([sample("a"), sample("a"), sample(None)]), 0) is Verdict.DEFER
    assert Unanimity(3).judge(HERE, tally([sample("a")] * 3), 0) is Verdict.ACCEPT


def test_the_trivial_routers():
    assert AlwaysTeacher().samples(HERE) == 0
    assert AlwaysStudent().judge(HERE, tally([sample("a")]), 0) is Verdict.ACCEPT
    assert AlwaysStudent().judge(HERE, tally([sample(None)]), 0) is Verdict.DEFER


def test_random_mix_is_seeded_and_has_the_right_share():
    steps = [Situation(goal="g", episode=f"ep{i}") for i in range(4000)]
    router, again, other = RandomMix(0.25, seed=1), RandomMix(0.25, seed=1), RandomMix(0.25, seed=2)
    draws = [router.samples(s) for s in steps]
    assert draws == [again.samples(s) for s in steps]
    assert draws != [other.samples(s) for s in steps]
    assert draws.count(0) / len(draws) == pytest.approx(0.25, abs=0.03)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AgreementThreshold(n=0), "router.n is 0"),
        (lambda: AgreementThreshold(threshold=1.5), "router.threshold is 1.5"),
        (lambda: RandomMix(p=2), "router.p is 2"),
    ],
)
def test_impossible_options_name_themselves(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
