"""Contextual bandits (LinUCB, linear Thompson sampling) as tier routers, which learn from one question at a time.

Each module and tier has two ridge regressions on the same features x, of the reward and of the cost. What a tier is
worth is their difference, so λ is chosen with each question:

    x     = [P query + Q read, 1]                            P, Q: a random projection
    worth = (reward weights - λ' cost weights)ᵀ x            λ' = λ · spread of rewards / spread of costs
    doubt = σ √(xᵀ A⁻¹ x)                                    σ: how far worth was off so far

What is not known yet is taken to be worth as much as all that was learned from, in the mean: counted as nothing, an
untried tier would look worse than any that gives a little.

`LinUCB` takes the tier of the highest worth + alpha · doubt (Li et al. 2010). `LinearThompson` gives each tier the
probability of being the best, were its worth normal with this doubt: drawing from these is Thompson sampling (Agrawal
and Goyal 2013).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

import numpy as np

from agentcascade._util import forking
from agentcascade.errors import ConfigError, InvalidRequest, did_you_mean
from agentcascade.memory.types import Probabilities, State
from agentcascade.routers.ridge import RIDGE, RewardSpread, TierRegressions, best_probabilities
from agentcascade.routers.tier import checkpoints
from agentcascade.routers.tier.baselines import CERTAIN, check_tradeoff
from agentcascade.types import MODULES, TIERS, ModuleName, Tier

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from agentcascade.memory.types import Vector
    from agentcascade.routers.ridge import Floats

BanditRow: TypeAlias = tuple[ModuleName, State, Tier, float] | tuple[ModuleName, State, Tier, float, float]
"""Module, state, tier, reward and, where λ is to be used, cost."""

FEATURES = 32

_CARD_TYPES = {"encoder": str, "width": int, "dimension": int, "seed": int}


class _Bandit:
    """Base of the bandits: regressions, updates and checkpoints. Thread-safe.

    `path` is a checkpoint of either bandit, since both learn the same; without it nothing is known yet. `dimension` is
    the number of features beside the constant, `encoder` the name of the embedder whose vectors it learns from. Raises
    `ConfigError` for a checkpoint that differs.
    """

    name: ClassVar[str]
    knob: ClassVar[str]

    def __init__(self, path: str | Path | None, dimension: int | None, seed: int, encoder: str) -> None:
        self.encoder = encoder
        self.seed = seed
        self.width = 0
        """Dimension of the encoder's vectors; 0 until the first one"""
        self.card: dict[str, Any] = {}
        self._lock = forking.lock()
        self._projection: Vector | None = None
        self._spread = RewardSpread()
        self._weight = 1.0
        if path is not None:
            self._load(Path(path), dimension)
            return
        self.dimension = FEATURES if dimension is None else dimension
        if not isinstance(self.dimension, int) or self.dimension < 1:
            raise ConfigError(f"dimension is {dimension!r}: it is a number of features, at least 1")
        # Replaced as a whole by what is learned, never changed: deciding needs no lock.
        self._arms: dict[ModuleName, TierRegressions] = dict.fromkeys(
            MODULES, TierRegressions.fresh(self.dimension + 1)
        )

    def update(self, module: ModuleName, state: State, tier: Tier, reward: float, cost: float = 0.0) -> None:
        """Learn from one tier that was tried.

        Args:
            module: the module that ran.
            state: the state that its tier was chosen on.
            tier: the tier that ran.
            reward: higher for better answers, e.g. a score from 0 to 1.
            cost: what λ weighs, always in one unit, e.g. dollars.

        Raises:
            InvalidRequest: an unknown module or tier, or a value that is not finite.
        """
        self.fit([(module, state, tier, reward, cost)])

    def fit(self, rows: Iterable[BanditRow]) -> int:
        """Learn from many rows, all of them or, where one raises, none. Returns the number of rows."""
        checked_rows = list(rows)
        with self._lock:
            arms: dict[ModuleName, TierRegressions] = {}
            spread = self._spread
            for row in checked_rows:
                module, state, tier, reward, cost = _check_row(row)
                if module not in arms:
                    arms[module] = self._arms[module].copy()
                x = self._features(state)
                if not np.isfinite(x).all():
                    raise InvalidRequest(f"a state of {module} holds values that are no numbers")
                arms[module].learn(TIERS.index(tier), x, reward, cost)
                spread = spread.add(reward, cost)
            self._arms = {**self._arms, **arms}
            self._spread = spread
            self._weight = spread.weight
        return len(checked_rows)

    def predict(self, module: ModuleName, state: State, tradeoff: float = 0.0) -> tuple[list[float], list[float]]:
        """Worth of the three tiers at λ `tradeoff`, and its standard deviation, in units of the reward."""
        check_tradeoff(tradeoff)
        spread, weight = self._spread, tradeoff * self._weight
        usual = spread.reward - weight * spread.cost
        worth, doubt = self._arms[module].predict(self._features(state), weight, usual)
        if not math.isfinite(worth[0] + worth[1] + worth[2] + doubt[0]):
            raise InvalidRequest(f"a state of {module} holds values that are no numbers")
        return worth, doubt

    def check(self, encoder: str, width: int) -> None:
        """Raises `ConfigError` when questions are embedded by another encoder than the bandit learned from."""
        if self._projection is None:
            self._project(width)
        self.encoder = self.encoder or encoder
        if (encoder, width) != (self.encoder, self.width):
            raise ConfigError(
                f"the tier router learned from vectors of {self.encoder} ({self.width} dimensions), the memory embeds "
                f"with {encoder} ({width}): set memory.embedder, or train a router for it"
            )

    def save(self, path: str | Path, **facts: Any) -> None:
        """Write a checkpoint: ``path`` (safetensors) and a card (.json) beside it, with `facts` in it."""
        with self._lock:
            arms, spread, projection = self._arms, self._spread, self._projection
        if projection is None or not self.encoder:
            lacks = (
                "an encoder: make it with encoder=..." if projection is not None else "anything learned: fit it first"
            )
            raise ConfigError(f"a {self.name} router cannot be saved without {lacks}")
        tensors: dict[str, Any] = {
            part: np.stack([getattr(arms[m], part) for m in MODULES]) for part in TierRegressions._fields
        }
        card = {
            **facts,
            "router": self.name,
            "encoder": self.encoder,
            "width": self.width,
            "dimension": self.dimension,
            "seed": self.seed,
            "ridge": RIDGE,
            self.knob: getattr(self, self.knob),
            "updates": {m: int(arms[m].noise[0]) for m in MODULES},
        }
        checkpoints.save_checkpoint(
            Path(path), self.name, {"projection": projection, "spread": np.array(spread), **tensors}, card
        )

    def _features(self, state: State) -> Floats:
        query, read, projection = state.query, state.read, self._projection
        if projection is None:
            projection = self._project(len(query))
        if query.shape != (self.width,) or read.shape != (self.width,):
            raise InvalidRequest(
                f"the state's vectors have shapes {query.shape} and {read.shape}: this {self.name} router learns from "
                f"vectors of {self.width} dimensions"
            )
        x = np.ones(self.dimension + 1)
        np.add(projection[0] @ query, projection[1] @ read, out=x[:-1])
        return x

    def _project(self, width: int) -> Vector:
        """Random projection (2, dimension, width) of the query and of what would be read; it about keeps lengths."""
        drawn = np.random.default_rng(self.seed).standard_normal((2, self.dimension, width), dtype=np.float32)
        self.width = width
        self._projection = projection = drawn / np.float32(math.sqrt(self.dimension))
        return projection

    def _load(self, path: Path, dimension: int | None) -> None:
        tensors, card = _load_bandit(path)
        if self.encoder not in ("", card["encoder"]):
            raise ConfigError(
                f"{path} learned from vectors of {card['encoder']}, encoder is {self.encoder}: train another"
            )
        if dimension not in (None, card["dimension"]):
            raise ConfigError(
                f"{path} learned from {card['dimension']} features, dimension is {dimension}: leave it out, or train "
                f"another"
            )
        self.card = card
        self.encoder = card["encoder"]
        self.seed = card["seed"]
        self.width = card["width"]
        self.dimension = card["dimension"]
        self._projection = tensors["projection"]
        self._arms = {
            m: TierRegressions(*(tensors[part][i] for part in TierRegressions._fields)) for i, m in enumerate(MODULES)
        }
        self._spread = RewardSpread(*tensors["spread"].tolist())
        self._weight = self._spread.weight

    def _setting(self, setting: float | None) -> float:
        """The exploration parameter as given, else as saved, else 1."""
        value = self.card.get(self.knob, 1.0) if setting is None else setting
        if not isinstance(value, (int, float)) or not 0 <= value < math.inf:
            raise ConfigError(f"{self.knob} is {value!r}: it multiplies the doubt, a number from 0")
        return float(value)


class LinUCB(_Bandit):
    """LinUCB: takes the tier with the highest upper confidence bound (Li et al. 2010).

    Args:
        path: a checkpoint to go on from.
        alpha: weight of the standard deviation; 0 does not explore. Default: as saved, else 1.
        dimension: number of random features; default: as saved, else 32.
        seed: of the random projection.
        encoder: name of the embedder whose vectors it learns from; default: the first it meets.

    Raises:
        ConfigError: a value out of range, or a checkpoint of another encoder or dimension.
    """

    name, knob = "linucb", "alpha"

    def __init__(
        self,
        path: str | Path | None = None,
        *,
        alpha: float | None = None,
        dimension: int | None = None,
        seed: int = 0,
        encoder: str = "",
    ) -> None:
        super().__init__(path, dimension, seed, encoder)
        self.alpha = self._setting(alpha)

    def probabilities(self, module: ModuleName, state: State, tradeoff: float = 0.0) -> Probabilities:
        worth, doubt = self.predict(module, state, tradeoff)
        low, mid, high = (w + self.alpha * d for w, d in zip(worth, doubt))
        return CERTAIN[0 if low >= mid and low >= high else 1 if mid >= high else 2]


class LinearThompson(_Bandit):
    """Linear Thompson sampling: takes each tier with its probability of being the best (Agrawal and Goyal 2013).

    Args:
        path: a checkpoint to go on from.
        scale: factor on the standard deviation; higher explores more. Default: as saved, else 1.
        dimension: number of random features; default: as saved, else 32.
        seed: of the random projection.
        encoder: name of the embedder whose vectors it learns from; default: the first it meets.

    Raises:
        ConfigError: a value out of range, or a checkpoint of another encoder or dimension.
    """

    name, knob = "thompson", "scale"

    def __init__(
        self,
        path: str | Path | None = None,
        *,
        scale: float | None = None,
        dimension: int | None = None,
        seed: int = 0,
        encoder: str = "",
    ) -> None:
        super().__init__(path, dimension, seed, encoder)
        self.scale = self._setting(scale)

    def probabilities(self, module: ModuleName, state: State, tradeoff: float = 0.0) -> Probabilities:
        worth, doubt = self.predict(module, state, tradeoff)
        return best_probabilities(worth, [max(1e-12, self.scale * d) for d in doubt])


def _check_row(row: BanditRow) -> tuple[ModuleName, State, Tier, float, float]:
    """A row with its cost; raises `InvalidRequest` naming what cannot be learned from."""
    if len(row) not in (4, 5):
        raise InvalidRequest(f"a row has {len(row)} values: give module, state, tier, reward and perhaps cost")
    module, state, tier, reward = row[:4]
    cost = row[4] if len(row) == 5 else 0.0
    if module not in MODULES:
        raise InvalidRequest(f"the module '{module}' is unknown: {did_you_mean(str(module), MODULES)}")
    if tier not in TIERS:
        raise InvalidRequest(f"the tier '{tier}' is unknown: {did_you_mean(str(tier), TIERS)}")
    for what, value in (("reward", reward), ("cost", cost)):
        if not math.isfinite(value):
            raise InvalidRequest(f"the {what} of {module} at {tier} is {value}: leave the row out, or mend it")
    return module, state, tier, float(reward), float(cost)


def _load_bandit(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Load the tensors and card of a bandit; raises `ConfigError` naming what does not fit."""
    tensors, card = checkpoints.load_checkpoint(path, (LinUCB.name, LinearThompson.name), ("projection",))
    strange = [key for key, kind in _CARD_TYPES.items() if not isinstance(card.get(key), kind)]
    if strange:
        raise ConfigError(f"{checkpoints.card_path(path)} says nothing usable of {', '.join(strange)}: train it again")
    n, dimension, width, p = len(MODULES), card["dimension"], card["width"], card["dimension"] + 1
    shapes: dict[str, tuple[int, ...]] = {"projection": (2, dimension, width), "spread": (5,), "noise": (n, 4)}
    shapes |= {"inverse": (n, 3, p, p), "weights": (n, 3, 2, p)}
    for name, shape in shapes.items():
        if name not in tensors or tensors[name].shape != shape or not np.isfinite(tensors[name]).all():
            raise ConfigError(f"{path}: {name} is not of shape {shape} with finite numbers throughout: train it again")
    return tensors, card
