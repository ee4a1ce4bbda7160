"""Batch sizes for sampling: the waves with the least expected dollars under the provider's billing.

What a sample will say is unknown; that it agrees with an earlier one has the probability p, learnt from earlier votes.
Between exchangeable samples that is Ewens' urn: after m samples the next joins a class of c votes with probability
c / (m + θ) and opens a new one with θ / (m + θ), where θ = (1 − p) / p. The expected dollars of every sequence of waves
follow exactly, by recursion over the classes' sizes. The router judges the same votes whatever the waves are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from agentcascade.models.prompt_cache import CacheTerms
from agentcascade.protocols import ChatModel, Router
from agentcascade.types import Call, Sample, Situation, Tally, Usage

MOST = 10
"""Samples up to which the waves are enumerated; there are 42 ways to share 10 votes."""
ENOUGH = 20
"""Votes before which nothing is planned."""
FORGET = 0.99
"""Weight of the votes before, at each vote: about the last hundred count."""
SLACK = 1e-9
"""Relative; differences below it are ties, and a tie goes to the larger wave, which waits less."""

A_THOUSAND = Usage(output=1000)
State = tuple[tuple[int, ...], tuple[int, ...]]
"""Votes of the classes seen so far, in their order, and of those imagined, largest first."""


class BatchPrices(NamedTuple):
    """Dollars of a wave's parts."""

    prompt: float
    repeated_prompt: float
    """Of a prompt that an earlier wave sent too: less, where it is read from the provider's cache."""
    answer: float
    once: bool
    """Whether a request for n samples pays for its prompt once."""
    wait: float = 0.0
    """What waiting for a wave is worth."""

    def wave(self, size: int, *, first: bool) -> float:
        """Requests of one wave run side by side, so none of them finds what another has cached."""
        prompt = self.prompt if first else self.repeated_prompt
        return prompt * (1 if self.once else size) + self.answer * size + self.wait


def batch_prices(
    model: ChatModel,
    prompt: int,
    answer: float,
    *,
    terms: CacheTerms,
    seconds: float = 0.0,
    second_dollars: float = 0.0,
) -> BatchPrices | None:
    """How `model` bills waves of a prompt of so many tokens and answers of `answer`; None where it has no known price.

    By the `terms` of its cache, the first wave writes the prompt and the others read it.
    """
    output = model.dollars(A_THOUSAND)
    if output is None:
        return None
    whole, again = model.dollars(terms.usage(prompt)), model.dollars(terms.usage(prompt, prompt))
    if whole is None or again is None:
        return None
    each = float(output) * answer / 1000
    return BatchPrices(float(whole), float(again), each, model.supports_n, seconds * second_dollars)


def all_at_once(router: Router, situation: Situation, votes: Tally, n: int, prices: BatchPrices, agree: float) -> bool:
    """Whether one wave of all `n` samples is surely the cheapest, told without a plan, also for any longer prompt.

    A smaller wave saves answers, and costs another wave where the router has no verdict yet: at least where all agree,
    or where none do. A longer prompt saves nothing, where one request pays for it once, and makes the other wave dearer
    where it costs no less than `prices.repeated_prompt` to repeat. `votes` are those before the first sample.
    """
    if not prices.once:
        return False
    theta, same, different = (1 - agree) / agree, 1.0, 1.0
    for size in range(1, n):
        if size > 1:
            same, different = same * (size - 1) / (size - 1 + theta), different * theta / (size - 1 + theta)
        left = n - size
        saved, again = prices.answer * left, prices.wave(1, first=False)
        for chance, counts in ((same, {"one": size}), (different, {f"class {i}": 1 for i in range(size)})):
            seen = votes.model_copy(update={"counts": counts, "total": size})
            if chance * again >= saved and router.judge(situation, seen, left) is None:
                break
        else:
            return False
    return True


class BatchPlanner:
    """The cheapest waves until `router` has its verdict, at agreement probability `agree` in (0, 1)."""

    def __init__(self, router: Router, situation: Situation, n: int, prices: BatchPrices, agree: float) -> None:
        self._router, self._situation, self._n, self._prices = router, situation, n, prices
        self._theta = (1 - agree) / agree

    def next(self, votes: Tally) -> tuple[int, float]:
        """(size of the next wave, expected dollars from now on); (0, 0.0) where the votes are settled."""
        self._votes, self._keys = votes, tuple(votes.counts)
        self._lost = votes.total - sum(votes.counts.values())
        self._known: dict[State, tuple[int, float]] = {}
        self._moves: dict[State, list[tuple[State, float]]] = {}
        return self._best((tuple(votes.counts.values()), ()))

    def _total(self, state: State) -> int:
        return sum(state[0]) + sum(state[1]) + self._lost

    def _settled(self, state: State) -> bool:
        total = self._total(state)
        if not total:
            return False
        imagined = {f"new class {i}": votes for i, votes in enumerate(state[1])}
        counts = dict(zip(self._keys, state[0])) | imagined
        tally = self._votes.model_copy(update={"counts": counts, "total": total})
        return self._router.judge(self._situation, tally, self._n - total) is not None

    def _best(self, state: State) -> tuple[int, float]:
        if state in self._known:
            return self._known[state]
        best = 0, 0.0
        remaining = self._n - self._total(state)
        if remaining > 0 and not self._settled(state):
            first = remaining == self._n
            reached = [{state: 1.0}]
            for _ in range(remaining):
                reached.append(self._drawn(reached[-1]))
            best = 0, float("inf")
            for size in range(remaining, 0, -1):
                later = sum(chance * self._best(after)[1] for after, chance in reached[size].items())
                dollars = self._prices.wave(size, first=first) + later
                if dollars < best[1] * (1 - SLACK):
                    best = size, dollars
        self._known[state] = best
        return best

    def _drawn(self, states: dict[State, float]) -> dict[State, float]:
        """The states after one more sample."""
        after: dict[State, float] = {}
        for state, chance in states.items():
            if state not in self._moves:
                self._moves[state] = self._moves_from(state)
            for drawn, weight in self._moves[state]:
                after[drawn] = after.get(drawn, 0.0) + chance * weight
        return after

    def _moves_from(self, state: State) -> list[tuple[State, float]]:
        """What one sample makes of a state. An invalid one speaks for new classes as much as a valid one would."""
        seen, imagined = state
        mass = self._total(state) + self._theta
        moves: list[tuple[State, float]] = []
        for i, c in enumerate(seen):
            moves.append((((*seen[:i], c + 1, *seen[i + 1 :]), imagined), c / mass))
        for i, c in enumerate(imagined):
            grown = tuple(sorted((*imagined[:i], c + 1, *imagined[i + 1 :]), reverse=True))
            moves.append(((seen, grown), c / mass))
        moves.append(((seen, (*imagined, 1)), (self._theta + self._lost) / mass))
        return moves


class SampleStatistics:
    """Statistics of a student's samples, learnt from its last ones: agreement, tokens and seconds."""

    def __init__(self) -> None:
        self._agreed, self._pairs = 2.0, 3.0  # the prior, Beta(2, 1)
        self._samples = self._tokens = self._seconds = 0.0
        self._votes = 0

    @property
    def known(self) -> bool:
        """Whether enough was seen to plan by."""
        return self._votes >= ENOUGH and self._samples > 0

    @property
    def agree(self) -> float:
        """Posterior mean of the probability that two samples agree."""
        return self._agreed / self._pairs

    @property
    def answer_tokens(self) -> float:
        """Of one sample; 100 before any was seen."""
        return self._tokens / self._samples if self._samples else 100.0

    @property
    def seconds(self) -> float:
        """Of one request."""
        return self._seconds / self._samples

    def add_request(self, call: Call, samples: int) -> None:
        """One request for so many samples was answered, by the student itself."""
        if call.cached_response:
            return
        self._samples = FORGET * self._samples + samples
        self._tokens = FORGET * self._tokens + call.usage.completion
        self._seconds = FORGET * self._seconds + call.seconds * samples

    def add_vote(self, samples: Sequence[Sample]) -> None:
        """Only the first two count: whether more are drawn depends on how these agree."""
        if len(samples) > 1:
            self._votes += 1
            one, other = samples[0].action, samples[1].action
            agreed = one is not None and other is not None and one.key == other.key
            # What is forgotten falls back to the prior, so that p stays off 0 and 1.
            self._agreed = FORGET * self._agreed + (1 - FORGET) * 2.0 + agreed
            self._pairs = FORGET * self._pairs + (1 - FORGET) * 3.0 + 1


class FeedbackStatistics:
    """How often a student was accepted after its error was fed back. The prior is one of two."""

    def __init__(self) -> None:
        self._accepted, self._asked = 1.0, 2.0

    @property
    def accepted(self) -> float:
        """Posterior mean of the probability."""
        return self._accepted / self._asked

    def add(self, accepted: bool) -> None:
        self._accepted = FORGET * self._accepted + (1 - FORGET) + accepted
        self._asked = FORGET * self._asked + (1 - FORGET) * 2 + 1
