"""Tier routers without training: the baselines that a trained one must beat."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

from agentcascade.errors import ConfigError, InvalidRequest, did_you_mean
from agentcascade.memory.tokenization import WORD, proper_names
from agentcascade.memory.types import Probabilities, State
from agentcascade.types import MODULES, TIERS, ModuleName, Tier

CERTAIN: tuple[Probabilities, ...] = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
"""The probabilities of a router that does not doubt, by the tier's place."""


class FixedTiers:
    """Always the same tiers: one for all modules, or one for each; modules that are not named are low."""

    name = "fixed"

    def __init__(self, tiers: Tier | Mapping[ModuleName, Tier] = "low") -> None:
        chosen: dict[ModuleName, Tier] = dict.fromkeys(MODULES, tiers) if isinstance(tiers, str) else dict(tiers)
        for module, tier in chosen.items():
            if module not in MODULES:
                raise ConfigError(f"tiers: the module '{module}' is unknown: {did_you_mean(str(module), MODULES)}")
            if tier not in TIERS:
                raise ConfigError(f"tiers: the tier {tier!r} is unknown: {did_you_mean(str(tier), TIERS)}")
        self.tiers: dict[ModuleName, Tier] = {m: chosen.get(m, "low") for m in MODULES}
        self._certain = {m: CERTAIN[TIERS.index(tier)] for m, tier in self.tiers.items()}

    def probabilities(self, module: ModuleName, state: State, tradeoff: float = 0.0) -> Probabilities:
        return self._certain[module]


class RandomTiers:
    """Every tier of every module with the same `probabilities`, whatever is asked: what logs are collected with."""

    name = "random"

    def __init__(self, probabilities: Sequence[float] = (1 / 3, 1 / 3, 1 / 3)) -> None:
        try:
            low, mid, high = (float(p) for p in probabilities)
            usable = min(low, mid, high) >= 0 and math.isclose(low + mid + high, 1.0, abs_tol=1e-6)
        except (TypeError, ValueError):
            usable = False
        if not usable:
            raise ConfigError(
                f"probabilities is {probabilities}: give those of low, mid and high, three numbers from 0 that sum to 1"
            )
        self._probabilities: Probabilities = (low, mid, high)

    def probabilities(self, module: ModuleName, state: State, tradeoff: float = 0.0) -> Probabilities:
        return self._probabilities


class Signals(NamedTuple):
    """What makes a question look hard, each from 0 to 1."""

    length: float
    """0 up to six words, 1 from twenty."""
    names: float
    """0 for one name at most, 1 from three: several must be brought together."""
    gathering: float
    """How many, all, both, kinds of: the answer lies in several places."""
    comparing: float
    time: float
    open: float
    """Why, how, would, might: the answer stands nowhere in these words."""


def _known(words: str, pairs: str = "") -> frozenset[str]:
    return frozenset(words.split()) | {pair.strip() for pair in pairs.split(",")} - {""}


_GATHERING = _known(
    "all both each every total altogether list count various different common besides kind kinds type types sort sorts "
    "activities items things events",
    "how many, how much, how often, number of, what are, what were, in addition",
)
_COMPARING = _known(
    "more less fewer most least than compare compares compared versus vs differ differs difference differently same "
    "similar similarly rather earlier later older younger bigger biggest larger largest smaller smallest longer "
    "longest shorter shortest higher highest lower lowest",
    "first or, which of",
)
_TIME = _known(
    "when before after since until till during while first last latest recent recently current currently now still "
    "already previous previously next ago date day days week weeks weekend month months year years time morning "
    "evening spring summer autumn fall winter order between today yesterday tomorrow january february march april may "
    "june july august september october november december monday tuesday wednesday thursday friday saturday sunday",
    "how long, how old, how often, how recently",
)
_OPEN = _known(
    "why would could might likely probably describe explain reason reasons feel feels feeling feelings felt think "
    "thinks attitude personality relationship opinion suggest recommend considered if",
    "how does, how did, how do, how has, how have, how is, how was, how can",
)


@lru_cache(maxsize=10_000)
def signals(question: str) -> Signals:
    """Read off the question alone, in English."""
    words = WORD.findall(question.casefold())
    said = frozenset(words) | {f"{one} {two}" for one, two in pairwise(words)}
    dated = any(len(word) == 4 and word.isdigit() and word[:2] in ("19", "20") for word in words)
    return Signals(
        length=_ramp(len(question.split()), 6, 20),
        names=_ramp(len(proper_names(question)), 1, 3),
        gathering=_some(said, _GATHERING),
        comparing=_some(said, _COMPARING),
        time=1.0 if dated else _some(said, _TIME),
        open=_some(said, _OPEN),
    )


def _ramp(value: float, start: float, end: float) -> float:
    """0 up to `start`, 1 from `end`, a line between."""
    return min(1.0, max(0.0, (value - start) / (end - start)))


def _some(words: frozenset[str], known: frozenset[str]) -> float:
    """0 where none of them is known, 0.7 for one, 1 for several."""
    return (0.0, 0.7, 1.0)[min(2, len(words & known))]


_MATTERS: Mapping[ModuleName, tuple[str, ...]] = {
    "filter": ("gathering", "names"),
    "entity": ("names", "gathering", "comparing"),
    "temporal": ("time",),
    "topic": ("open", "length"),
    "summary": ("gathering", "comparing", "open"),
}
"""Which signals ask for a better tier of which module; the strongest of them counts."""

_HINT, _HARD, _MISS = 0.6, 0.1, 0.3
"""Shares of the score: the signals of the module, the mean of all signals, how badly retrieval matched."""
_MATCHED = 0.6
"""Cosine from which what was retrieved counts as a full match."""


class CostThreshold:
    """Spends more on questions that look hard, by rules that can be read: no training, no data.

    The score of a question and a module (`score`) goes from 0 to 1. Above `mid` it gets mid, above `high` it gets high;
    with λ both thresholds rise towards 1, so that at λ = 1 everything is low. A module with nothing to read is low.
    """

    name = "threshold"

    def __init__(self, mid: float = 0.1, high: float = 0.35) -> None:
        if not 0 <= mid <= high <= 1:
            raise ConfigError(f"mid is {mid} and high is {high}: they are scores with 0 <= mid <= high <= 1")
        self.mid, self.high = mid, high

    def probabilities(self, module: ModuleName, state: State, tradeoff: float = 0.0) -> Probabilities:
        check_tradeoff(tradeoff)
        found = self.score(module, state)
        if found > 1 - (1 - self.high) * (1 - tradeoff):
            return CERTAIN[2]
        return CERTAIN[1] if found > 1 - (1 - self.mid) * (1 - tradeoff) else CERTAIN[0]

    def score(self, module: ModuleName, state: State) -> float:
        """From 0 (looks easy) to 1 (looks hard)."""
        norm = math.sqrt(float(state.read @ state.read))
        if norm == 0:
            return 0.0
        seen = signals(state.question)
        hint: float = max(getattr(seen, signal) for signal in _MATTERS[module])
        miss = 1 - _ramp(float(state.query @ state.read) / norm, 0.0, _MATCHED)
        return min(1.0, _HINT * hint + _HARD * sum(seen) / len(seen) + _MISS * miss)


def check_tradeoff(tradeoff: float) -> None:
    if not 0 <= tradeoff < math.inf:
        raise InvalidRequest(f"tradeoff is {tradeoff}: λ is the weight of cost against quality, a number from 0")
