"""Baseline tier routers without training: fixed, random, and a threshold on the question's difficulty."""

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
"""Probabilities of a deterministic router, by the tier's index"""


class FixedTiers:
    """Fixed tiers: one for all modules, or one for each; modules that are not named are low.

    Args:
        tiers: a tier, or tiers by module.

    Raises:
        ConfigError: an unknown module or tier.

    >>> FixedTiers({"summary": "high"}).tiers["summary"], FixedTiers("mid").tiers["filter"]
    ('high', 'mid')
    """

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
    """Random tiers with the same probabilities for every question and module, to collect logs.

    Args:
        probabilities: of low, mid and high; they sum to 1.

    Raises:
        ConfigError: they are not three probabilities that sum to 1.
    """

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


class QuestionSignals(NamedTuple):
    """Signals of a question's difficulty, each from 0 to 1."""

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


def _word_set(words: str, pairs: str = "") -> frozenset[str]:
    return frozenset(words.split()) | {pair.strip() for pair in pairs.split(",")} - {""}


_GATHERING = _word_set(
    "all both each every total altogether list count various different common besides kind kinds type types sort sorts "
    "activities items things events",
    "how many, how much, how often, number of, what are, what were, in addition",
)
_COMPARING = _word_set(
    "more less fewer most least than compare compares compared versus vs differ differs difference differently same "
    "similar similarly rather earlier later older younger bigger biggest larger largest smaller smallest longer "
    "longest shorter shortest higher highest lower lowest",
    "first or, which of",
)
_TIME = _word_set(
    "when before after since until till during while first last latest recent recently current currently now still "
    "already previous previously next ago date day days week weeks weekend month months year years time morning "
    "evening spring summer autumn fall winter order between today yesterday tomorrow january february march april may "
    "june july august september october november december monday tuesday wednesday thursday friday saturday sunday",
    "how long, how old, how often, how recently",
)
_OPEN = _word_set(
    "why would could might likely probably describe explain reason reasons feel feels feeling feelings felt think "
    "thinks attitude personality relationship opinion suggest recommend considered if",
    "how does, how did, how do, how has, how have, how is, how was, how can",
)


@lru_cache(maxsize=10_000)
def question_signals(question: str) -> QuestionSignals:
    """Signals of an English question."""
    words = WORD.findall(question.casefold())
    words_and_pairs = frozenset(words) | {f"{one} {two}" for one, two in pairwise(words)}
    dated = any(len(word) == 4 and word.isdigit() and word[:2] in ("19", "20") for word in words)
    return QuestionSignals(
        length=_ramp(len(question.split()), 6, 20),
        names=_ramp(len(proper_names(question)), 1, 3),
        gathering=_hit_score(words_and_pairs, _GATHERING),
        comparing=_hit_score(words_and_pairs, _COMPARING),
        time=1.0 if dated else _hit_score(words_and_pairs, _TIME),
        open=_hit_score(words_and_pairs, _OPEN),
    )


def _ramp(value: float, start: float, end: float) -> float:
    """0 up to `start`, 1 from `end`, a line between."""
    return min(1.0, max(0.0, (value - start) / (end - start)))


def _hit_score(words: frozenset[str], known: frozenset[str]) -> float:
    """0 where none of them is known, 0.7 for one, 1 for several."""
    return (0.0, 0.7, 1.0)[min(2, len(words & known))]


_SIGNALS_OF_MODULE: Mapping[ModuleName, tuple[str, ...]] = {
    "filter": ("gathering", "names"),
    "entity": ("names", "gathering", "comparing"),
    "temporal": ("time",),
    "topic": ("open", "length"),
    "summary": ("gathering", "comparing", "open"),
}
"""Signals that ask for a higher tier of each module, where it is not named any of them; the strongest counts."""

_HINT, _HARD, _MISS = 0.6, 0.1, 0.3
"""Weights of the score: the module's strongest signal, the mean of all signals, how badly retrieval matched"""
_MATCHED = 0.6
"""Cosine from which what was retrieved counts as a full match."""


class CostThreshold:
    """Threshold on a difficulty score: higher tiers for questions that look hard, without training.

    With λ both thresholds rise towards 1, so that at λ = 1 everything is low. A module with nothing to read is low.

    Args:
        mid: score from 0 to 1 above which a module gets mid.
        high: score from `mid` to 1 above which it gets high.

    Raises:
        ConfigError: the thresholds are not 0 <= mid <= high <= 1.
    """

    name = "threshold"

    def __init__(self, mid: float = 0.1, high: float = 0.35) -> None:
        if not 0 <= mid <= high <= 1:
            raise ConfigError(f"mid is {mid} and high is {high}: they are scores with 0 <= mid <= high <= 1")
        self.mid = mid
        self.high = high

    def probabilities(self, module: ModuleName, state: State, tradeoff: float = 0.0) -> Probabilities:
        check_tradeoff(tradeoff)
        score = self.score(module, state)
        if score > 1 - (1 - self.high) * (1 - tradeoff):
            return CERTAIN[2]
        return CERTAIN[1] if score > 1 - (1 - self.mid) * (1 - tradeoff) else CERTAIN[0]

    def score(self, module: ModuleName, state: State) -> float:
        """Difficulty of a question for a module, from 0 (easy) to 1 (hard)."""
        norm = math.sqrt(float(state.read @ state.read))
        if norm == 0:
            return 0.0
        seen = question_signals(state.question)
        hint: float = max(getattr(seen, signal) for signal in _SIGNALS_OF_MODULE.get(module, seen._fields))
        miss = 1 - _ramp(float(state.query @ state.read) / norm, 0.0, _MATCHED)
        return min(1.0, _HINT * hint + _HARD * sum(seen) / len(seen) + _MISS * miss)


def check_tradeoff(tradeoff: float) -> None:
    """Raises `InvalidRequest` for a λ that is negative or not finite."""
    if not 0 <= tradeoff < math.inf:
        raise InvalidRequest(f"tradeoff is {tradeoff}: λ is the weight of cost against quality, a number from 0")
