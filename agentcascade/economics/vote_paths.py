"""Paths of a vote: the sequences of waves in which samples or members are bought until a router has its verdict.

What they will say is not known, so every way in which they can agree is followed: what is the least, and what the most,
that an accepted and a deferred step may buy follows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from agentcascade.actions.voting import Seat, next_members
from agentcascade.protocols import Router, Verdict
from agentcascade.routers.agreement import Agreement
from agentcascade.types import Situation, Tally

MOST_VOTES = 10
"""Up to which all ways to agree are followed; beyond, that all agree, that all differ, and that all are bought."""
ANY_STEP = Situation(episode="economics", goal="", observation="")


Classes = tuple[int, ...]
"""Votes of the classes, largest first."""


class VotePath(NamedTuple):
    """Numbers of seats that are asked at a time, one after the other, and what came of it."""

    waves: tuple[int, ...]
    accepted: bool


def vote_paths(router: Router, seats: Sequence[Seat], *, staged: bool) -> frozenset[VotePath]:
    """Every way in which a vote may go.

    Args:
        router: Judges it. One that is no threshold on votes (a bandit, a learned score) is taken to buy all at once.
        seats: What votes, in the order in which it is asked: a sample each, or a member of a committee each.
        staged: Whether no more seats are asked at a time than could settle the vote.

    Returns:
        The paths, at least one that ends accepted; none is longer than the seats.
    """
    everything = frozenset({VotePath((len(seats),), True), VotePath((len(seats),), False)})
    if not seats:
        return frozenset({VotePath((), False)})
    if not isinstance(router, Agreement):
        return everything
    found: set[VotePath] = set()
    states: set[tuple[Classes, tuple[int, ...]]] = {((), ())}
    while states:
        states = {after for classes, waves in states for after in _wave(router, seats, classes, waves, staged, found)}
    if not any(path.accepted for path in found):
        return everything
    if all(path.accepted for path in found):  # only what is no valid action is deferred
        found |= {path._replace(accepted=False) for path in found}
    return frozenset(found)


def _wave(
    router: Agreement,
    seats: Sequence[Seat],
    classes: Classes,
    waves: tuple[int, ...],
    staged: bool,
    found: set[VotePath],
) -> Iterator[tuple[Classes, tuple[int, ...]]]:
    """The states after one more wave; those in which the router has a verdict are `found`."""
    votes, asked = sum(seat.votes for seat in seats), sum(waves)
    waiting = seats[asked:]
    size = next_members(router, ANY_STEP, _tally(classes), votes, waiting) if staged else len(waiting)
    grown, further = {classes}, (*waves, size)
    for seat in waiting[:size]:
        for _ in range(seat.samples):
            grown = {after for before in grown for after in _votes(before, seat.weight, votes)}
    for after in grown:
        tally = _tally(after)
        verdict = router.judge(ANY_STEP, tally, votes - tally.total)
        if verdict is None and asked + size < len(seats):
            yield after, further
        else:
            found.add(VotePath(further, verdict is Verdict.ACCEPT))


def _votes(classes: Classes, weight: int, votes: int) -> set[Classes]:
    """The classes after one more sample: it joins one of them, or is the first of another."""
    ways = range(len(classes)) if votes <= MOST_VOTES else range(min(1, len(classes)))
    joined = {tuple(sorted((*classes[:i], classes[i] + weight, *classes[i + 1 :]), reverse=True)) for i in ways}
    return {*joined, tuple(sorted((*classes, weight), reverse=True))}


def _tally(classes: Classes) -> Tally:
    return Tally(counts={f"class {i}": votes for i, votes in enumerate(classes)}, total=sum(classes))
