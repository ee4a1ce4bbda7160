"""Train a tier router on a tier log: split by conversation, train, and evaluate on the held-out conversations."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from agentcascade._util.files import write_atomically
from agentcascade.bench.frontier import PolicyPoint, cluster_bootstrap, policy_point
from agentcascade.bench.memory.evaluation import GRID, evaluate_router
from agentcascade.config.load import CascadeConfig
from agentcascade.errors import ConfigError
from agentcascade.memory.combinations import COMBINATIONS, PLACES
from agentcascade.memory.tiers import MODULE_CLASSES
from agentcascade.memory.types import TierRouter
from agentcascade.routers.tier import checkpoints, values
from agentcascade.routers.tier.outcome_table import OutcomeTable, Reward, TierPolicy
from agentcascade.routers.tier.policy import PolicyRouter
from agentcascade.routers.tier.ppo import PassMetrics, Recipe, TierWorld, Trainer, TrainingResult, train_policy
from agentcascade.types import MODULES, TIERS

if TYPE_CHECKING:
    from agentcascade.memory.types import Vector
    from agentcascade.protocols import Embedder
    from agentcascade.routers.tier.log import TierLog
    from agentcascade.routers.tier.outcome_table import Ints

Kind = Literal["values", "policy"]


@dataclass(frozen=True)
class QuestionSplit:
    """Indices of training, validation and test questions; no conversation is in two of them."""

    train: Ints
    validation: Ints
    test: Ints


@dataclass
class TrainingOutcome:
    """Outcome of a training: the checkpoint, and the points of the router and its baselines on the test questions."""

    kind: Kind
    path: Path
    cost_unit: str = "milliseconds"
    points: list[PolicyPoint] = field(default_factory=list)
    oracle: float | None = None
    """Mean of the best score of every question, known of a sweep"""
    history: list[PassMetrics] = field(default_factory=list)
    test_groups: Sequence[str] = ()


def split_questions(groups: Sequence[str], seed: int, train: float = 0.6, validation: float = 0.1) -> QuestionSplit:
    """Split questions by group, drawn with `seed`. Raises `ConfigError` for fewer than three groups."""
    names = sorted(set(groups))
    if len(names) < 3:
        raise ConfigError(
            f"the log has {len(names)} conversation(s): training, validation and test need one each, at least"
        )
    order = np.random.default_rng(seed).permutation(len(names))
    first = max(1, min(len(names) - 2, round(train * len(names))))
    second = max(1, min(len(names) - first - 1, round(validation * len(names))))
    group_names = np.array(groups)

    def of(places: Ints) -> Ints:
        return np.flatnonzero(np.isin(group_names, [names[i] for i in places]))

    return QuestionSplit(of(order[:first]), of(order[first : first + second]), of(order[first + second :]))


def outcome_table(log: TierLog) -> OutcomeTable:
    """Outcome table of a complete log. Raises `ConfigError` for one that lacks combinations."""
    if not log.is_sweep:
        raise ConfigError(
            f"the log does not hold all {COMBINATIONS} combinations of every question, which this needs: "
            "train --router values, which fills the gaps, or log a sweep"
        )
    n = len(log.query)
    number = log.combinations
    rows = np.empty((n, COMBINATIONS), dtype=np.int64)
    rows[log.question, number] = np.arange(len(number))
    reads = log.reads[rows].astype(np.int64)

    def vectors(places: Ints) -> Any:
        if not len(log.vectors):  # a log without any, of routers that read the question alone
            return np.zeros((*places.shape, log.query.shape[1]), dtype=np.float16)
        known = log.vectors[np.maximum(places, 0)]
        known[places < 0] = 0
        return known

    return OutcomeTable(
        query=log.query,
        retrieved=vectors(reads[:, 0, 0]).astype(np.float32),
        filtered=vectors(reads[:, :: PLACES[0], 1]),
        extracted=vectors(reads[:, :: len(TIERS), 2]),
        score=log.score[rows],
        cost=log.cost[rows],
    )


def train_router(
    log: TierLog,
    folder: Path,
    kind: Kind,
    *,
    recipe: Recipe,
    embedder: Embedder | None = None,
    resume: bool = False,
    on_pass: Callable[[PassMetrics], None] | None = None,
) -> TrainingOutcome:
    """Train a router on a log, write its checkpoint into `folder`, and evaluate it on the test conversations.

    `embedder` gives the policy network the vectors of the modules' descriptions.
    """
    parts = split_questions(log.groups, recipe.seed)
    card = checkpoint_card(log, parts, recipe, kind)
    path = folder / f"{kind}.safetensors"
    outcome = TrainingOutcome(kind, path, str(log.about.get("cost_unit", "")), test_groups=card["test_groups"])
    if kind == "values":
        learn = np.sort(np.concatenate([parts.train, parts.validation]))
        router = _train_values(log, learn, card, path)
    else:
        table = outcome_table(log)
        if embedder is None:
            raise ConfigError("the policy network needs the encoder of the log, for the modules' descriptions")
        trained = _train_policy(table, parts, folder, recipe, embedder, resume, on_pass)
        outcome.history = trained.history
        weights = trained.weights
        router = PolicyRouter.of(weights, card)
        checkpoints.save_checkpoint(path, kind, weights, {**card, "passes": [asdict(p) for p in trained.history]})
    if log.is_sweep:
        outcome.points, outcome.oracle = evaluate_router(
            outcome_table(log).select(parts.test), [log.groups[i] for i in parts.test], router
        )
    return outcome


def train_world(
    learn: TierWorld,
    validation: TierWorld,
    test: TierWorld,
    test_groups: Sequence[str],
    folder: Path,
    recipe: Recipe,
    embedder: Embedder,
    *,
    cost_unit: str,
    resume: bool = False,
    on_pass: Callable[[PassMetrics], None] | None = None,
) -> TrainingOutcome:
    """Train the policy network on policy in live worlds, and evaluate it in the last of them."""
    probe = learn.play(
        np.arange(min(len(learn), 2 * recipe.batch)), _uniform_policy(recipe.seed), np.zeros(len(learn), np.float32)
    )
    reward = Reward.of(probe.score, probe.cost)
    trainer = _trainer(learn, validation, reward, recipe, embedder, folder, resume)
    trained = train_policy(trainer, on_pass=on_pass, keep=folder / "training.pt")
    path = folder / "policy.safetensors"
    card = {
        "encoder": embedder.name,
        "dimension": embedder.dimension,
        "data": {"cost_unit": cost_unit},
        "questions": {"train": len(learn), "validation": len(validation), "test": len(test)},
        "recipe": asdict(recipe),
        **_provenance(),
    }
    checkpoints.save_checkpoint(
        path, "policy", trained.weights, {**card, "passes": [asdict(p) for p in trained.history]}
    )
    trainer.network.load(trained.weights)
    outcome = TrainingOutcome("policy", path, cost_unit, history=trained.history, test_groups=sorted(set(test_groups)))
    draws = cluster_bootstrap(test_groups)
    for tradeoff in GRID if recipe.tradeoff is None else (recipe.tradeoff,):
        score, cost = trainer.greedy(test, tradeoff)
        outcome.points.append(policy_point(f"policy λ={tradeoff:g}", score, cost, draws))
    return outcome


def _uniform_policy(seed: int) -> TierPolicy:
    rng = np.random.default_rng(seed)

    def draw(module: int, query: Vector, read: Vector, tradeoff: Vector) -> Ints:
        return rng.integers(0, 3, len(query))

    return draw


def _trainer(
    learn: TierWorld,
    validation: TierWorld,
    reward: Reward,
    recipe: Recipe,
    embedder: Embedder,
    folder: Path,
    resume: bool,
) -> Trainer:
    descriptions = embedder.embed([MODULE_CLASSES[name].description for name in MODULES])
    trainer = Trainer(learn, validation, reward, descriptions, recipe)
    state = folder / "training.pt"
    if resume and state.exists():
        trainer.restore(state)
    folder.mkdir(parents=True, exist_ok=True)
    return trainer


def _train_values(log: TierLog, learn: Ints, card: dict[str, Any], path: Path) -> TierRouter:
    groups = [log.groups[i] for i in learn]
    if log.is_sweep:
        table = outcome_table(log).select(learn)
        fitted = values.fit_table(table, groups, Reward.of(table.score, table.cost), card)
    else:
        part = log.select(learn)
        fitted = values.fit_log(part, Reward.of(part.score, part.cost), card)
    fitted.router.save(path, validation={str(k): v for k, v in fitted.validation.items()})
    return fitted.router


def _train_policy(
    table: OutcomeTable,
    parts: QuestionSplit,
    folder: Path,
    recipe: Recipe,
    embedder: Embedder,
    resume: bool,
    on_pass: Callable[[PassMetrics], None] | None,
) -> TrainingResult:
    learn = table.select(parts.train)
    reward = Reward.of(learn.score, learn.cost)
    trainer = _trainer(learn, table.select(parts.validation), reward, recipe, embedder, folder, resume)
    return train_policy(trainer, on_pass=on_pass, keep=folder / "training.pt")


def question_embedder(config: CascadeConfig) -> Embedder:
    """Embedder of the questions."""
    from agentcascade.assembly import components

    return components.make_embedder(config.memory.embedder or config.retrieval.embedder)


def checkpoint_card(log: TierLog, parts: QuestionSplit, recipe: Recipe, kind: Kind) -> dict[str, Any]:
    """Card of a checkpoint: encoder, data, questions by split, recipe, versions."""
    about = dict(log.about)
    return {
        "encoder": about.get("encoder"),
        "dimension": int(log.query.shape[1]),
        "data": about,
        "questions": {"train": len(parts.train), "validation": len(parts.validation), "test": len(parts.test)},
        "test_groups": sorted({log.groups[i] for i in parts.test}),
        "recipe": asdict(recipe) if kind == "policy" else {"seed": recipe.seed},
        "tradeoff": recipe.tradeoff,
        **_provenance(),
    }


def _provenance() -> dict[str, Any]:
    return {
        "versions": {name: version(name) for name in ("agentcascade", "numpy")},
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def write_results(outcome: TrainingOutcome, folder: Path) -> list[Path]:
    """Write results.json, the frontier and, for a policy, the learning curves; returns their paths."""
    from agentcascade.bench.memory.plots import plot_frontier, plot_training

    results = folder / "results.json"
    write_atomically(
        results,
        json.dumps({"points": [asdict(p) for p in outcome.points], "oracle": outcome.oracle}, indent=2),
    )
    paths = [results]
    if outcome.points:
        paths.append(plot_frontier(outcome.points, folder / "frontier.png"))
    if outcome.history:
        paths.append(plot_training(outcome.history, folder / "curves.png"))
    return paths
