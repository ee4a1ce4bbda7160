"""Bandits as step routers: they try who should take a step, within a budget for trying, and learn from what is checked.

Three ways to take a step: ``teacher``, ``strict`` (all n samples agree) and ``bold`` (a share of them does). Each has a
ridge regression of its reward (1: the action was what the teacher does, 0: it was not) and of its cost (in teacher
answers) on features of the situation. The one of the highest worth, reward - price of cost, is taken; another is tried
only while there is budget for it.

The budget holds always, not on average: a trial is charged the most that it can lose against the best known way,
before it is made (`charge`), and is left out where the charges would pass `budget` times the steps so far (the idea of
conservative bandits, Wu et al. 2016).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from agentcascade._util import forking
from agentcascade._util.files import write_atomically
from agentcascade._util.lru_cache import LRUCache
from agentcascade.errors import ConfigError, InvalidRequest
from agentcascade.protocols import Verdict
from agentcascade.routers.ridge import RewardSpread, TierRegressions, best_probabilities
from agentcascade.routers.step.consistency import AgreementThreshold
from agentcascade.types import Situation, Tally

if TYPE_CHECKING:
    from agentcascade.routers.ridge import Floats

WAYS = ("teacher", "strict", "bold")
FEATURES = 8
REMEMBERED = 10_000
"""Steps whose way is remembered until they are judged and checked."""


class _StepBandit:
    """All of a step bandit but how it weighs doubt.

    `n` samples; bold accepts at `threshold`. `price` is what a teacher's answer weighs against a wrong action.
    `budget` is the share of a teacher's answer that trying may cost a step. `path`: what was saved. Raises
    `ConfigError`.
    """

    name: ClassVar[str]

    def __init__(
        self,
        n: int = 3,
        threshold: float = 0.6,
        budget: float = 0.02,
        price: float = 0.3,
        explore: float = 1.0,
        sample_cost: float = 0.05,
        path: str | Path | None = None,
        seed: int = 0,
    ) -> None:
        self._strict, self._bold = AgreementThreshold(n), AgreementThreshold(n, threshold)
        for name, value in (("budget", budget), ("price", price), ("explore", explore), ("sample_cost", sample_cost)):
            if not isinstance(value, (int, float)) or not 0 <= value < math.inf:
                raise ConfigError(f"router.{name} is {value!r}: it is a number from 0")
        self.n: int = n
        self.budget: float = budget
        self.price: float = price
        self.explore: float = explore
        self.sample_cost: float = sample_cost
        self.seed: int = seed
        self._lock = forking.lock()
        self._chosen: LRUCache[tuple[str, str, int], int] = LRUCache(REMEMBERED)
        self.steps: int = 0
        self.tried: int = 0
        self.charged: float = 0.0
        self._arms, self._spread = TierRegressions.fresh(FEATURES + 1), RewardSpread()
        self._arms.weights[0, :, -1] = (1.0, 1.0)  # the teacher does what the teacher does, for one answer:
        self._arms.inverse[0] *= 1e-9  # of that there is no doubt
        if path is not None:
            self._load(Path(path))

    def samples(self, situation: Situation) -> int:
        return 0 if self.way(situation) == "teacher" else self.n

    def judge(self, situation: Situation, tally: Tally, remaining: int) -> Verdict | None:
        router = self._bold if self.way(situation) == "bold" else self._strict
        return router.judge(situation, tally, remaining)

    def way(self, situation: Situation) -> str:
        """How this step is taken; asked again, the same."""
        key = situation.namespace, situation.episode, situation.step
        with self._lock:
            found = self._chosen.get(key)
            if found is None:
                found = self._choose(situation)
                self._chosen.put(key, found)
        return WAYS[found]

    def _choose(self, situation: Situation) -> int:
        self.steps += 1
        worth, doubt = self._arms.predict(features(situation), self.price, self._usual)
        best = int(np.argmax(worth))
        wanted = self._wanted(worth, [max(1e-12, self.explore * d) for d in doubt], situation)
        if wanted == best:
            return best
        charge = self.charge(wanted)
        if self.charged + charge > self.budget * self.steps:
            return best
        self.charged += charge
        self.tried += 1
        return wanted

    def _wanted(self, worth: list[float], doubt: list[float], situation: Situation) -> int:
        raise NotImplementedError

    def charge(self, way: int) -> float:
        """The most that a trial can lose, in teacher answers: the teacher's own, or a wrong action and the samples."""
        if way == 0:
            return 1.0
        return 1.0 / self.price + self.n * self.sample_cost if self.price else math.inf

    @property
    def _usual(self) -> float:
        return self._spread.reward - self.price * self._spread.cost

    def update(self, situation: Situation, tally: Tally, teacher: str | None) -> None:
        """Learn from a step for which samples and the teacher's action are both known (an audit, a shadow).

        What strict and bold would have done with these samples are both learned, whichever took the step.
        """
        top = tally.top
        if top is None:
            return
        x = features(situation)
        with self._lock:
            arms, spread = self._arms.copy(), self._spread
            for way, router in ((1, self._strict), (2, self._bold)):
                taken = router.judge(situation, tally, 0) is Verdict.ACCEPT
                reward = float(not taken or top[0] == teacher)
                cost = self.n * self.sample_cost + float(not taken)
                arms.learn(way, x, reward, cost)
                spread = spread.add(reward, cost)
            self._arms, self._spread = arms, spread

    def rewarded(self, situation: Situation, reward: float, cost: float) -> None:
        """Learn from the outcome of the way that was taken, e.g. the user's feedback. Raises `InvalidRequest`."""
        if not (math.isfinite(reward) and math.isfinite(cost)):
            raise InvalidRequest(f"a reward of {reward} at a cost of {cost} cannot be learned from")
        way = WAYS.index(self.way(situation))
        with self._lock:
            arms = self._arms.copy()
            arms.learn(way, features(situation), reward, cost)
            self._arms, self._spread = arms, self._spread.add(reward, cost)

    def save(self, path: str | Path) -> None:
        """Write what was learned and spent, as JSON."""
        with self._lock:
            data = {
                "router": self.name,
                "n": self.n,
                "threshold": self._bold.threshold,
                "steps": self.steps,
                "tried": self.tried,
                "charged": self.charged,
                "spread": list(self._spread),
                **{part: getattr(self._arms, part).tolist() for part in TierRegressions._fields},
            }
        write_atomically(Path(path), json.dumps(data), follow=True)

    def _load(self, path: Path) -> None:
        try:
            data: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            fresh = TierRegressions.fresh(FEATURES + 1)
            parts = [
                np.array(data[part], dtype=float).reshape(getattr(fresh, part).shape)
                for part in TierRegressions._fields
            ]
            if (data["n"], data["threshold"]) != (self.n, self._bold.threshold):
                raise ConfigError(
                    f"{path} was learned with n = {data['n']}, threshold = {data['threshold']}: set them back"
                )
            self._arms, self._spread = TierRegressions(*parts), RewardSpread(*data["spread"])
            self.steps, self.tried, self.charged = int(data["steps"]), int(data["tried"]), float(data["charged"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{path} is no saved step router: {error!r}") from None


class StepLinUCB(_StepBandit):
    """Tries the way that may be worth most (Li et al. 2010); `explore` multiplies the doubt."""

    name = "linucb"

    def _wanted(self, worth: list[float], doubt: list[float], situation: Situation) -> int:
        return int(np.argmax([w + d for w, d in zip(worth, doubt)]))


class StepThompson(_StepBandit):
    """Tries each way with the probability that it is the best (Agrawal and Goyal 2013), drawn by seed and step."""

    name = "thompson"

    def _wanted(self, worth: list[float], doubt: list[float], situation: Situation) -> int:
        what = f"{self.seed}:{situation.namespace}:{situation.episode}:{situation.step}"
        drawn = int.from_bytes(blake2b(what.encode(), digest_size=8).digest()) / 2**64
        return min(2, int(np.searchsorted(np.cumsum(best_probabilities(worth, doubt)), drawn, side="right")))


def features(situation: Situation) -> Floats:
    """(9,): how far the episode is, how much was seen, what kind of goal, and a constant."""
    kind = blake2b(situation.category.encode(), digest_size=4).digest() if situation.category else bytes(4)
    seen = len(situation.observation)
    return np.array([
        math.log1p(situation.step) / 4,
        float(situation.step == 0),
        math.log1p(seen) / 10,
        float(seen == 0),
        *((byte - 127.5) / 127.5 if situation.category else 0.0 for byte in kind),
        1.0,
    ])  # fmt: skip
