"""Testing many rules at once without promising too much: with probability 1 - delta no rule is certified wrongly.

Rules stand in chains, each from the safest to the boldest. `sequence` tests along every chain and stops at the first
rule that fails; what a chain that passes as a whole was given goes to the others (Learn then Test, Angelopoulos et al.
2021; the graphical procedure of Bretz et al. 2009). `bonferroni` tests every rule at an equal share.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

Multiplicity = Literal["sequence", "bonferroni"]


class Tested(NamedTuple):
    p: float | None
    """None: never tested, since a safer rule of its chain had failed"""
    level: float
    """At which it was tested last"""
    certified: bool


def certify(
    chains: Sequence[int], p: Callable[[int, int], float], delta: float, how: Multiplicity
) -> list[list[Tested]]:
    """`chains` holds each chain's length; `p(i, j)` is the p-value of rule j of chain i."""
    if how == "bonferroni":
        level = delta / max(1, sum(chains))
        return [[_tested(p(i, j), level) for j in range(length)] for i, length in enumerate(chains)]
    found: list[list[Tested]] = [[] for _ in chains]
    open_ = {i for i, length in enumerate(chains) if length}
    levels = {i: delta / len(open_) for i in open_}
    known: dict[tuple[int, int], float] = {}
    moved = True
    while moved:
        moved = False
        for i in sorted(open_):
            while i in open_:
                place = i, len(found[i])
                if place not in known:
                    known[place] = p(*place)
                if known[place] > levels[i]:
                    break
                found[i].append(Tested(known[place], levels[i], True))
                if len(found[i]) == chains[i]:
                    open_.discard(i)
                    for other in open_:
                        levels[other] += levels[i] / len(open_)
                    moved = bool(open_)
    for i, length in enumerate(chains):
        if len(found[i]) < length:
            found[i].append(_tested(known[i, len(found[i])], levels[i]))
        found[i] += [Tested(None, levels.get(i, 0.0), False)] * (length - len(found[i]))
    return found


def _tested(p: float, level: float) -> Tested:
    return Tested(p, level, p <= level)
