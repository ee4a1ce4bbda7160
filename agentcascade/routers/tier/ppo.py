"""Train the policy router by proximal policy optimisation (PPO, BudgetMem), with one joint ratio for all decisions.

Defaults are the paper's (section "training") where it names them. Rewards come from a `TierWorld`: a table of logged
outcomes, or the live pipeline.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from agentcascade.errors import ConfigError, describe
from agentcascade.routers.tier.network import Network
from agentcascade.routers.tier.outcome_table import PlayedBatch, Reward, TierPolicy

if TYPE_CHECKING:
    from agentcascade.memory.types import Vector
    from agentcascade.routers.tier.outcome_table import Floats, Ints

GRID = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9)
"""The paper's values of λ."""


@dataclass(frozen=True)
class Recipe:
    """Hyperparameters. With `tradeoff` None, λ is drawn anew for every question and is an input of the network."""

    tradeoff: float | None = None
    seed: int = 0
    passes: int = 30
    """Over all questions, at most; the paper has 7."""
    patience: int = 10
    """Passes without a better validation reward after which it stops."""
    batch: int = 32
    rollouts: int = 8
    """Of each question in a batch, at one λ; with more than one, a return is held against the mean of the others'
    instead of the critic's guess, which knows little of how hard an unseen question is."""
    noise: float = 0.15
    """Standard deviation of what is added to every component of the state while learning (unit vectors of 384 have
    components of 0.05): for the few hundred questions that a log has, what weight decay is to a linear model."""
    epochs: int = 4
    learning_rate: float = 3e-4
    clip: float = 0.2
    value: float = 0.5
    entropy: float = 0.01
    grad_norm: float = 0.5
    weight_decay: float = 0.0


class TierWorld(Protocol):
    """World that a policy is trained in: plays a batch of questions."""

    def __len__(self) -> int: ...

    def play(self, questions: Ints, policy: TierPolicy, tradeoff: Vector) -> PlayedBatch: ...


@dataclass
class PassMetrics:
    """Metrics of one pass over the training questions."""

    number: int
    reward: float
    score: float
    cost: float
    entropy: float
    value_loss: float
    validation: float
    """Mean reward of the greedy policy on the validation questions, over the values of λ trained for."""
    validation_score: float
    validation_cost: float
    best: bool = False


@dataclass
class TrainingResult:
    """Weights and history of a training."""

    weights: dict[str, Vector]
    """Weights of the pass with the best validation reward"""
    history: list[PassMetrics] = field(default_factory=list)
    stopped_early: bool = False


class Trainer:
    """Trains a `Network` in a `TierWorld`; resumable by `save` and `restore`."""

    def __init__(
        self, train: TierWorld, validation: TierWorld, reward: Reward, descriptions: Vector, recipe: Recipe
    ) -> None:
        if not len(train) or not len(validation):
            raise ConfigError(
                "training needs questions to train on and others to validate on: give a larger log or split"
            )
        self.recipe = recipe
        self._train = train
        self._validation = validation
        self._reward = reward
        self.network = Network(descriptions, recipe.seed, conditioned=recipe.tradeoff is None)
        self.torch = self.network.torch
        self._optimizer = self.torch.optim.AdamW(
            self.network.parameters(), lr=recipe.learning_rate, eps=1e-5, weight_decay=recipe.weight_decay
        )
        self._rng = np.random.default_rng(recipe.seed)
        self.history: list[PassMetrics] = []
        self._best = self.network.arrays()

    @property
    def done(self) -> bool:
        return len(self.history) >= self.recipe.passes or self._stale >= self.recipe.patience

    @property
    def _stale(self) -> int:
        best = max((p.number for p in self.history if p.best), default=0)
        return len(self.history) - best

    def run(self) -> Iterator[PassMetrics]:
        """Run passes until `done`."""
        while not self.done:
            yield self._pass()

    def result(self) -> TrainingResult:
        return TrainingResult(self._best, self.history, stopped_early=len(self.history) < self.recipe.passes)

    def _pass(self) -> PassMetrics:
        recipe, rng = self.recipe, self._rng
        order = rng.permutation(len(self._train))
        updates = []
        for start in range(0, len(order), recipe.batch):
            batch = order[start : start + recipe.batch]
            questions = np.repeat(batch, recipe.rollouts)
            tradeoff = np.repeat(self._tradeoffs(len(batch)), recipe.rollouts)
            played = self._train.play(questions, self._sampling(), tradeoff)
            updates.append(self._update(played, tradeoff))
        earned, score, cost, entropy, value_loss = (float(mean) for mean in np.mean(updates, axis=0))
        validation = self.validate()
        best = not self.history or validation[0] > max(p.validation for p in self.history)
        if best:
            self._best = self.network.arrays()
        number = len(self.history) + 1
        progress = PassMetrics(number, earned, score, cost, entropy, value_loss, *validation, best=best)
        self.history.append(progress)
        return progress

    def _tradeoffs(self, n: int) -> Vector:
        fixed = self.recipe.tradeoff
        drawn = GRID[-1] * self._rng.random(n) ** 3 if fixed is None else np.full(n, fixed)
        return drawn.astype(np.float32)

    def _sampling(self) -> TierPolicy:
        """The network's own draws."""

        def draw(module: int, query: Vector, read: Vector, tradeoff: Vector) -> Ints:
            chances = self._probabilities(module, query, read, tradeoff).cumsum(axis=1)
            return np.asarray((self._rng.random(len(query))[:, None] > chances).sum(axis=1).clip(max=2), dtype=np.int64)

        return draw

    def _greedy(self, module: int, query: Vector, read: Vector, tradeoff: Vector) -> Ints:
        return np.asarray(self._probabilities(module, query, read, tradeoff).argmax(axis=1), dtype=np.int64)

    def _probabilities(self, module: int, query: Vector, read: Vector, tradeoff: Vector) -> Vector:
        net, tensor = self.network, self.torch.from_numpy
        with self.torch.no_grad():
            state = net.state(tensor(query), tensor(read), tensor(tradeoff))
            probabilities: Vector = net.actor(net.hidden(state, module)).exp().numpy()
        return probabilities

    def _update(self, played: PlayedBatch, tradeoff: Vector) -> tuple[float, ...]:
        """The clipped surrogate, `epochs` times over the batch. The advantage is normalised within it."""
        torch, recipe, tensor = self.torch, self.recipe, self.torch.from_numpy
        earned = self._reward(played.score, played.cost, tradeoff.astype(np.float64))
        if not np.isfinite(earned).all():
            raise ConfigError("a reward is no number: see the scores and costs of the log")
        # One draw of noise for the whole update, so that ratios compare like with like.
        seen = (self.network.blurred(tensor(x), recipe.noise) for x in (played.query, played.reads))
        inputs = (*seen, tensor(played.tiers), tensor(tradeoff))
        returns = tensor(earned.astype(np.float32))
        with torch.no_grad():
            before, _, value = self.network.joint(*inputs)
            advantage = returns - (value if recipe.rollouts == 1 else _leave_one_out_means(returns, recipe.rollouts))
            advantage = (advantage - advantage.mean()) / (advantage.std(correction=0) + 1e-8)
        for _ in range(recipe.epochs):
            log, entropy, value = self.network.joint(*inputs)
            ratio = (log - before).exp()
            clipped = ratio.clamp(1 - recipe.clip, 1 + recipe.clip)
            policy_loss = -torch.minimum(ratio * advantage, clipped * advantage).mean()
            value_loss = (returns - value).pow(2).mean()
            loss = policy_loss + recipe.value * value_loss - recipe.entropy * entropy.mean()
            self._optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), recipe.grad_norm)
            self._optimizer.step()
        mean = float(entropy.mean().detach()) / 5
        return earned.mean(), played.score.mean(), played.cost.mean(), mean, float(value_loss.detach())

    def validate(self) -> tuple[float, float, float]:
        """Mean (reward, score, cost) of the greedy policy on the validation questions, over the values of λ."""
        fixed = self.recipe.tradeoff
        means = []
        for strength in GRID if fixed is None else (fixed,):
            score, cost = self.greedy(self._validation, strength)
            means.append((self._reward(score, cost, strength).mean(), score.mean(), cost.mean()))
        reward, score_, cost_ = np.mean(means, axis=0)
        return float(reward), float(score_), float(cost_)

    def greedy(self, world: TierWorld, tradeoff: float) -> tuple[Floats, Floats]:
        """(score, cost) of every question of `world` under the greedy policy at one λ."""
        n = len(world)
        played = world.play(np.arange(n), self._greedy, np.full(n, tradeoff, dtype=np.float32))
        return played.score, played.cost

    def save(self, path: Path) -> None:
        """Write the state of the training for `restore`, which goes on from it exactly."""
        state = {
            "recipe": asdict(self.recipe),
            "weights": {k: self.torch.from_numpy(v) for k, v in self.network.arrays().items()},
            "best": {k: self.torch.from_numpy(v) for k, v in self._best.items()},
            "optimizer": self._optimizer.state_dict(),
            "history": [asdict(p) for p in self.history],
            "rng": self._rng.bit_generator.state,
            "noise": self.network.noise.get_state(),
        }
        temporary = path.with_suffix(".tmp")
        self.torch.save(state, temporary)
        temporary.replace(path)

    def restore(self, path: Path) -> None:
        """Restore the state that `save` wrote; raises `ConfigError` for another recipe and for a broken file."""
        try:
            state: Mapping[str, Any] = self.torch.load(path, weights_only=True)
            begun, noise = state["recipe"], state["noise"]
        except Exception as error:
            raise ConfigError(f"{path} is no state of a training ({describe(error)}): start anew") from error
        if begun != asdict(self.recipe):
            differing = [k for k, v in asdict(self.recipe).items() if begun.get(k) != v]
            raise ConfigError(
                f"{path} was begun with another {', '.join(differing)}: resume with the same, or start anew"
            )
        self.network.load({k: v.numpy() for k, v in state["weights"].items()})
        self._best = {k: v.numpy().copy() for k, v in state["best"].items()}
        self._optimizer.load_state_dict(state["optimizer"])
        self.history = [PassMetrics(**p) for p in state["history"]]
        self._rng.bit_generator.state = state["rng"]
        self.network.noise.set_state(noise)


def train_policy(
    trainer: Trainer, *, on_pass: Callable[[PassMetrics], None] | None = None, keep: Path | None = None
) -> TrainingResult:
    """Run a trainer to its end; with `keep`, its state is written there after every pass."""
    for progress in trainer.run():
        if on_pass is not None:
            on_pass(progress)
        if keep is not None:
            trainer.save(keep)
    return trainer.result()


def _leave_one_out_means(returns: Any, rollouts: int) -> Any:
    """Leave-one-out baseline: of each return the mean of the other rollouts of its question."""
    grouped = returns.reshape(-1, rollouts)
    total = grouped.sum(dim=1, keepdim=True)
    return ((total - grouped) / (rollouts - 1)).reshape(-1)


def history_curve(history: Sequence[PassMetrics], name: str) -> list[float]:
    """Values of one metric by pass."""
    return [getattr(p, name) for p in history]
