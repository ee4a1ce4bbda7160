"""Job of ``agentcascade memory train``: collect or read a tier log, then train a tier router on it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from agentcascade.bench.memory import rollouts
from agentcascade.bench.memory.inputs import load_suite, open_log
from agentcascade.bench.memory.live import AnsweredQuestion, HistoryQuestion, LiveMemory, LiveWorld, answer_cost
from agentcascade.bench.memory.scoring import MemoryScorer, check_models, make_scorer, scoring_models
from agentcascade.bench.memory.sweep import SweepPlan, collect_sweep
from agentcascade.bench.memory.training import (
    TrainingOutcome,
    question_embedder,
    split_questions,
    train_router,
    train_world,
)
from agentcascade.bench.pools.open import check_pool
from agentcascade.config.load import CascadeConfig
from agentcascade.envs.memory_qa.types import Conversation
from agentcascade.errors import ConfigError
from agentcascade.memory.combinations import COMBINATIONS
from agentcascade.memory.tiers import make_modules, needs_chat_models
from agentcascade.routers.tier import log as tier_log
from agentcascade.routers.tier import log_import
from agentcascade.routers.tier.baselines import RandomTiers
from agentcascade.routers.tier.log import TierLog
from agentcascade.routers.tier.ppo import PassMetrics, Recipe
from agentcascade.types import MODULES, TIERS

if TYPE_CHECKING:
    from agentcascade.memory.memory import Memory

Say = Callable[[str], None]


class TrainJob:
    """One call of ``memory train``."""

    def __init__(self, config: CascadeConfig, out: Path, options: Mapping[str, Any], say: Say) -> None:
        self._config = config
        self._out = out
        self._options = options
        self._say = say
        self._recipe = Recipe(
            seed=options["seed"],
            tradeoff=options["tradeoff"],
            passes=options["passes"],
            patience=options["patience"],
        )

    def run(self) -> TrainingOutcome:
        """Collect or read a log, train, and evaluate. Raises `ConfigError` and `InvalidRequest`."""
        options = self._options
        if options["ray"]:
            self._check_ray()
        if options["data"] and options["collect"] != "sweep":
            scoring = {k: v for k, v in self._scoring().items() if k not in ("suite", "reward")}
            check_models(self._config, scoring_models(**scoring))
        if options["data"] and options["collect"] == "on-policy":
            return self._on_policy()
        log = self._log()
        embedder = question_embedder(self._config) if options["router"] == "policy" else None
        encoder = log.about.get("encoder")
        if embedder and encoder and encoder != embedder.name:
            raise ConfigError(
                f"the log was embedded with {encoder}, the configuration names {embedder.name}: set memory.embedder"
            )
        self._say(f"training on {len(log.questions):,} questions")
        return train_router(
            log,
            self._out,
            options["router"],
            recipe=self._recipe,
            embedder=embedder,
            resume=options["resume"],
            on_pass=self._pass,
        )

    def _pass(self, p: PassMetrics) -> None:
        self._say(
            f"pass {p.number}: reward {p.reward:.4f}, validation {p.validation:.4f}, cost {p.validation_cost:.4g}, "
            f"entropy {p.entropy:.3f}"
        )

    def _log(self) -> TierLog:
        options = self._options
        if options["offline"]:
            return open_log(options["offline"], self._config.memory.embedder or self._config.retrieval.embedder)
        if options["live"]:
            return self._recalls()
        path = self._out / "log.npz"
        if options["collect"] == "sweep":  # which goes on by itself, from what it kept of every conversation
            log = self._sweep()
        else:
            settings = {k: options[k] for k in ("suite", "questions", "rollouts", "reward", "answer_model", "seed")}
            settings |= self._sweep_of_all().describe()
            if options["resume"] and path.exists():
                log = tier_log.load_log(path)
                if log.about.get("asked") != settings:
                    raise ConfigError(f"{path} was collected with other settings: choose another --out")
                return log
            log = self._random()
            log.about["asked"] = settings
        log.save(path)
        return log

    def _sweep(self) -> TierLog:
        modules = make_modules(self._config.memory.axis, self._config.memory.tiers)
        if needs_chat_models(modules):
            raise ConfigError(
                f"memory.axis '{self._config.memory.axis}' asks chat models, and a sweep would ask them for "
                f"{COMBINATIONS} combinations a question: use --collect random or on-policy"
            )
        if self._options["reward"] != "evidence":
            raise ConfigError("a sweep is scored by its evidence: use --collect random for rewards that need answers")
        return collect_sweep(
            self._sweep_of_all(), self._out / "sweep", lambda d, n: self._say(f"sweeping: {d} of {n} conversations")
        )

    def _sweep_of_all(self) -> SweepPlan:
        return SweepPlan(self._config, self._conversations(), self._options["workers"], self._options["ray"])

    def _conversations(self) -> list[Conversation]:
        conversations = load_suite(self._options["suite"], self._options["data"])
        most = self._options["questions"]
        return (
            [c.model_copy(update={"questions": c.questions[:most]}) for c in conversations] if most else conversations
        )

    def _recalls(self) -> TierLog:
        from agentcascade.storage import open_database
        from agentcascade.storage.histories import read_recalls

        database = open_database(self._config.bank.url)
        try:
            pairs = list(read_recalls(database))
        finally:
            database.close()
        if all(score is None for _, score in pairs):
            raise ConfigError(
                f"none of the {len(pairs)} recalls in the database was scored: tell what they were worth with "
                "agentcascade.storage.histories.score_recall"
            )
        embedder = question_embedder(self._config)
        return log_import.from_recalls(pairs, embedder.embed, about={"encoder": embedder.name})

    def _check_ray(self) -> None:
        check_pool(self._options["ray"])
        if not self._options["data"]:
            raise ConfigError("--ray collects from --data: a log that is there is trained on here")
        if self._options["collect"] == "on-policy":
            raise ConfigError("--ray is for --collect sweep and random: on policy, each rollout waits for the training")

    def _live(self, memory: Memory) -> LiveMemory:
        conversations = self._conversations()

        def embedded(done: int) -> None:
            self._say(f"embedding: {done} of {len(conversations)} conversations")

        workers = self._options["workers"]
        return LiveMemory(memory, conversations, self._scorer(), concurrency=4 * workers, on_prepared=embedded)

    def _scorer(self) -> MemoryScorer:
        return make_scorer(prompt=self._config.prompt, **self._scoring())

    def _scoring(self) -> dict[str, Any]:
        options = self._options
        if options["reward"] != "evidence" and options["answer_model"] is None:
            raise ConfigError(f"reward {options['reward']} needs answers: give --answer-model, e.g. offline/reader")
        named = {"answerer": options["answer_model"], "judge": options["judge_model"]}
        more = {"api_base": options["api_base"], "timeout": options["timeout"]}
        return {"suite": options["suite"], "reward": options["reward"], **named, **more}

    def _memory(self) -> Memory:
        from agentcascade.assembly.memory import build_bench_memory

        return build_bench_memory(self._config)

    def _random(self) -> TierLog:
        """Collect a log: each question `rollouts` times with random tiers, through the real pipeline."""
        if self._options["ray"]:
            return self._random_on_ray()
        with self._memory() as memory, asyncio.Runner() as runner:
            live = self._live(memory)
            items = [a for a in live.questions if self._is_usable(a)] * self._options["rollouts"]
            routers = [SeededRandomTiers(self._options["seed"] + i) for i in range(len(items))]
            done = [0]

            def on_done(_: AnsweredQuestion) -> None:
                done[0] += 1
                self._say(f"playing: {done[0]:,} of {len(items):,}")

            results = runner.run(live.ask_all(items, routers, [0.0] * len(items), on_done))
            return rollout_log(list(zip(items, results)), self._dollars, self._config, propensity=True)

    def _random_on_ray(self) -> TierLog:
        options, conversations = self._options, self._conversations()
        items = [a for c in conversations for q in c.questions if self._is_usable(a := HistoryQuestion(c.id, q))]
        items *= options["rollouts"]
        results = rollouts.play_rollouts(
            rollouts.WorkerSettings(self._config, self._scoring(), 4),
            conversations,
            items,
            [SeededRandomTiers(options["seed"] + i) for i in range(len(items))],
            ray=options["ray"],
            workers=options["workers"],
            on_done=lambda done: self._say(f"playing: {done:,} of {len(items):,}"),
        )
        return rollout_log(list(zip(items, results)), self._dollars, self._config, propensity=True)

    def _is_usable(self, item: HistoryQuestion) -> bool:
        if self._options["reward"] == "evidence":
            return bool(item.question.evidence) and item.question.answerable
        return True

    @property
    def _dollars(self) -> bool:
        return needs_chat_models(make_modules(self._config.memory.axis, self._config.memory.tiers))

    def _on_policy(self) -> TrainingOutcome:
        """Train by PPO against the real pipeline; its rollouts are written as a log."""
        if self._options["router"] != "policy":
            raise ConfigError("--collect on-policy trains the policy: add --router policy")
        with self._memory() as memory, asyncio.Runner() as runner:
            live = self._live(memory)
            items = [a for a in live.questions if self._is_usable(a)]
            parts = split_questions([a.history for a in items], self._recipe.seed)
            worlds = [
                LiveWorld(live, [items[int(i)] for i in part], runner, dollars=self._dollars)
                for part in (parts.train, parts.validation, parts.test)
            ]
            outcome = train_world(
                worlds[0],
                worlds[1],
                worlds[2],
                [items[int(i)].history for i in parts.test],
                self._out,
                self._recipe,
                question_embedder(self._config),
                cost_unit="dollars" if self._dollars else "milliseconds",
                resume=self._options["resume"],
                on_pass=self._pass,
            )
            played = [pair for world in worlds for pair in world.results]
            rollout_log(played, self._dollars, self._config, propensity=False).save(self._out / "log.npz")
            return outcome


class SeededRandomTiers:
    """Random tiers with a seed for each question, whatever the order in which questions are played."""

    name = "random"

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._random = RandomTiers()
        self.chosen: dict[str, int] = {}

    def probabilities(self, module: Any, state: Any, tradeoff: float = 0.0) -> Any:
        tier = self.chosen.setdefault(module, int(self._rng.integers(len(TIERS))))
        return tuple(float(i == tier) for i in range(len(TIERS)))


def rollout_log(
    played: list[tuple[HistoryQuestion, AnsweredQuestion]], dollars: bool, config: CascadeConfig, *, propensity: bool
) -> TierLog:
    """Tier log of rollouts; with `propensity` the tiers were drawn uniformly."""
    names: dict[str, tuple[int, HistoryQuestion, Any]] = {}
    for item, result in played:
        names.setdefault(item.question.id, (len(names), item, result.query))
    vectors = np.stack([read for _, result in played for read in result.reads]).astype(np.float16)
    encoder = question_embedder(config).name
    metrics = sorted({name for _, result in played for name in result.scored.metrics})
    return TierLog(
        questions=[item.question.text for _, item, _ in names.values()],
        groups=[item.history for _, item, _ in names.values()],
        query=np.stack([query for _, _, query in names.values()]).astype(np.float32),
        question=np.array([names[item.question.id][0] for item, _ in played], dtype=np.int32),
        tiers=np.array([[TIERS.index(r.recall.tiers[m]) for m in MODULES] for _, r in played], dtype=np.int8),
        propensity=np.full(len(played), 1 / COMBINATIONS) if propensity else None,
        score=np.array([r.scored.score for _, r in played]),
        cost=np.array([answer_cost(r, dollars) for _, r in played]),
        reads=np.arange(3 * len(played), dtype=np.int32).reshape(-1, 3),
        vectors=vectors,
        metrics={name: np.array([r.scored.metrics.get(name, np.nan) for _, r in played]) for name in metrics},
        about={
            "encoder": encoder,
            "dimension": int(vectors.shape[1]),
            "cost_unit": "dollars" if dollars else "milliseconds",
            "axis": config.memory.axis,
        },
    )
