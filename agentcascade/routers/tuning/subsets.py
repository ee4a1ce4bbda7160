"""What a vote over n of N logged samples gives, averaged exactly over all subsets and orders (hypergeometric).

Samples of one step are exchangeable: any n of them, in any order, could have been the ones that were drawn. A step is
described by its pattern, the sizes of its classes of equal answers; samples that cannot be used are in no class.
"""

from __future__ import annotations

from collections import Counter
from functools import lru_cache
from math import comb

from agentcascade.actions.voting import next_wave
from agentcascade.routers.agreement import Agreement
from agentcascade.types import Situation, Tally

Pattern = tuple[int, tuple[int, ...]]
"""(samples in all, sizes of the classes, largest first)"""

NOWHERE = Situation(goal="")


def pattern(answers: list[str | None]) -> Pattern:
    counts = Counter(a for a in answers if a is not None)
    return len(answers), tuple(sorted(counts.values(), reverse=True))


@lru_cache(maxsize=200_000)
def winning(of: Pattern, size: int, n: int, needed: int) -> float:
    """Probability that one certain class of `size` is accepted: it has the most votes of n, and at least `needed`.

    Of classes with equally many votes the one seen first wins, which is each of them as often. Where the pattern has
    fewer than n samples, those that lack vote for nothing.
    """
    total = max(of[0], n)
    if 2 * needed > n:  # no second class can have as many
        ways = sum(comb(size, v) * comb(total - size, n - v) for v in range(needed, min(size, n) + 1))
        return ways / comb(total, n)
    others = list(of[1])
    others.remove(size)
    invalid = total - sum(of[1])
    won = 0.0
    for votes in range(max(needed, 1), min(size, n) + 1):
        for ties, ways in enumerate(_others(tuple(others), invalid, n - votes, votes)):
            won += comb(size, votes) * ways / (1 + ties)
    return won / comb(total, n)


def _others(sizes: tuple[int, ...], invalid: int, left: int, votes: int) -> list[int]:
    """Ways to draw `left` samples of the other classes with at most `votes` of each, by how many have exactly so many.

    Coefficients of a product of polynomials: one factor a class, in the number drawn and the number of ties.
    """
    most = left // votes
    ways = [[0] * (most + 1) for _ in range(left + 1)]
    for drawn in range(min(invalid, left) + 1):
        ways[drawn][0] = comb(invalid, drawn)
    for size in sizes:
        longer = [[0] * (most + 1) for _ in range(left + 1)]
        for drawn, row in enumerate(ways):
            for ties, number in enumerate(row):
                if number:
                    for more in range(min(size, votes, left - drawn) + 1):
                        tied = ties + (more == votes)
                        if tied <= most:
                            longer[drawn + more][tied] += number * comb(size, more)
        ways = longer
    return ways[left]


@lru_cache(maxsize=200_000)
def staged(of: Pattern, n: int, needed: int) -> tuple[float, float]:
    """(samples, requests) expected when no more are bought at a time than could settle the vote.

    The waves are those of `agreement.next_wave`, and the decisions those of the whole vote.
    """
    total = max(of[0], n)
    invalid = total - sum(of[1])
    states: dict[tuple[int, tuple[tuple[int, int], ...]], float] = {(0, tuple((s, 0) for s in of[1])): 1.0}
    samples = requests = 0.0
    while states:
        after: dict[tuple[int, tuple[tuple[int, int], ...]], float] = {}
        waves: dict[int, dict[tuple[int, tuple[tuple[int, int], ...]], float]] = {}
        for (nothing, classes), weight in states.items():
            votes = sorted((d for _, d in classes if d), reverse=True)
            wave = _wave(tuple(votes[:2]), nothing + sum(votes), n, needed)
            if wave:
                waves.setdefault(wave, {})[nothing, classes] = weight
        for wave, now in waves.items():
            weight = sum(now.values())
            samples += wave * weight
            requests += weight
            for _ in range(wave):
                now = _one_more(now, total, invalid)
            for state, chance in now.items():
                after[state] = after.get(state, 0.0) + chance
        states = after
    return samples, requests


def _one_more(
    states: dict[tuple[int, tuple[tuple[int, int], ...]], float], total: int, invalid: int
) -> dict[tuple[int, tuple[tuple[int, int], ...]], float]:
    after: dict[tuple[int, tuple[tuple[int, int], ...]], float] = {}
    for (nothing, classes), weight in states.items():
        left = total - nothing - sum(d for _, d in classes)
        if invalid > nothing:
            key = nothing + 1, classes
            after[key] = after.get(key, 0.0) + weight * (invalid - nothing) / left
        for i, (size, drawn) in enumerate(classes):
            if drawn == size or (i and classes[i - 1] == (size, drawn)):
                continue  # equal classes follow each other: they are taken together
            alike = classes.count((size, drawn))
            changed = tuple(sorted((*classes[:i], (size, drawn + 1), *classes[i + 1 :]), reverse=True))
            key = nothing, changed
            after[key] = after.get(key, 0.0) + weight * alike * (size - drawn) / left
    return after


@lru_cache(maxsize=100_000)
def _wave(votes: tuple[int, ...], drawn: int, n: int, needed: int) -> int:
    """How many samples are bought next; 0 when the verdict is in."""
    router = Agreement(n, needed)
    tally = Tally(counts={str(i): v for i, v in enumerate(votes)}, total=drawn)
    if drawn and router.judge(NOWHERE, tally, n - drawn) is not None:
        return 0
    return next_wave(router, NOWHERE, tally, n - drawn)
