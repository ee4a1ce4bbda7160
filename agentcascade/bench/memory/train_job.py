"""What ``memory train`` does: get a log by one of several ways, then train on it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from agentcascade.bench.memory import rollouts
from agentcascade.bench.memory.inputs import load_suite, open_log
from agentcascade.bench.memory.live import Asked, Live, LiveWorld, Result, cost_of
from agentcascade.bench.memory.scoring import Scorer, check_models, make_scorer, scoring_models
from agentcascade.bench.memory.sweep import Sweep, collect
from agentcascade.bench.memory.training import Outcome, embedder_of, split, train_router, train_world
from agentcascade.bench.pools.open import check
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
        self._config, self._out, self._options, self._say = config, out, options, say
        self._recipe = Recipe(
            seed=options["seed"],
            tradeoff=options["tradeoff"],
            passes=options["passes"],
            patience=options["patience"],
        )

    def run(self) -> Outcome:
        """Collect, or read, a log; train; measure. Raises `ConfigError` and `InvalidRequest`."""
        options = self._options
        if options["ray"]:
            self._check_ray()
        if options["data"] and options["collect"] != "sweep":
            asked = {k: v for k, v in self._scoring().items() if k not in ("suite", "reward")}
            check_models(self._config, scoring_models(**asked))
        if options["data"] and options["collect"] == "on-policy":
            return self._on_policy()
        log = self._log()
        embedder = embedder_of(self._config) if options["router"] == "policy" else None
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
            asked = {k: options[k] for k in ("suite", "questions", "rollouts", "reward", "answer_model", "seed")}
            asked |= self._sweep_of_all().describe()
            if options["resume"] and path.exists():
                log = tier_log.load_log(path)
                if log.about.get("asked") != asked:
                    raise ConfigError(f"{path} was collected with other settings: choose another --out")
                return log
            log = self._random()
            log.about["asked"] = asked
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
        return collect(
            self._sweep_of_all(), self._out / "sweep", lambda d, n: self._say(f"sweeping: {d} of {n} conversations")
        )

    def _sweep_of_all(self) -> Sweep:
        return Sweep(self._config, self._conversations(), self._options["workers"], self._options["ray"])

    def _conversations(self) -> list[Conversation]:
        found = load_suite(self._options["suite"], self._options["data"])
        most = self._options["questions"]
        return [c.model_copy(update={"questions": c.questions[:most]}) for c in found] if most else found

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
        embedder = embedder_of(self._config)
        return log_import.from_recalls(pairs, embedder.embed, about={"encoder": embedder.name})

    def _check_ray(self) -> None:
        check(self._options["ray"])
        if not self._options["data"]:
            raise ConfigError("--ray collects from --data: a log that is there is trained on here")
        if self._options["collect"] == "on-policy":
            raise ConfigError("--ray is for --collect sweep and random: on policy, each rollout waits for the training")

    def _live(self, memory: Memory) -> Live:
        conversations = self._conversations()

        def embedded(done: int) -> None:
            self._say(f"embedding: {done} of {len(conversations)} conversations")

        workers = self._options["workers"]
        return Live(memory, conversations, self._scorer(), concurrency=4 * workers, on_prepared=embedded)

    def _scorer(self) -> Scorer:
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
        """Each question `rollouts` times with random tiers, through the real pipeline."""
        if self._options["ray"]:
            return self._random_on_ray()
        with self._memory() as memory, asyncio.Runner() as runner:
            live = self._live(memory)
            asked = [a for a in live.asked if self._usable(a)] * self._options["rollouts"]
            routers = [Seeded(self._options["seed"] + i) for i in range(len(asked))]
            done = [0]

            def on_done(_: Result) -> None:
                done[0] += 1
                self._say(f"playing: {done[0]:,} of {len(asked):,}")

            results = runner.run(live.ask_all(asked, routers, [0.0] * len(asked), on_done))
            return log_of(list(zip(asked, results)), self._dollars, self._config, propensity=True)

    def _random_on_ray(self) -> TierLog:
        options, conversations = self._options, self._conversations()
        asked = [a for c in conversations for q in c.questions if self._usable(a := Asked(c.id, q))]
        asked *= options["rollouts"]
        results = rollouts.play(
            rollouts.Setting(self._config, self._scoring(), 4),
            conversations,
            asked,
            [Seeded(options["seed"] + i) for i in range(len(asked))],
            ray=options["ray"],
            workers=options["workers"],
            on_done=lambda done: self._say(f"playing: {done:,} of {len(asked):,}"),
        )
        return log_of(list(zip(asked, results)), self._dollars, self._config, propensity=True)

    def _usable(self, asked: Asked) -> bool:
        if self._options["reward"] == "evidence":
            return bool(asked.question.evidence) and asked.question.answerable
        return True

    @property
    def _dollars(self) -> bool:
        return needs_chat_models(make_modules(self._config.memory.axis, self._config.memory.tiers))

    def _on_policy(self) -> Outcome:
        """PPO against the real pipeline; what it played is kept as a log."""
        if self._options["router"] != "policy":
            raise ConfigError("--collect on-policy trains the policy: add --router policy")
        with self._memory() as memory, asyncio.Runner() as runner:
            live = self._live(memory)
            asked = [a for a in live.asked if self._usable(a)]
            parts = split([a.history for a in asked], self._recipe.seed)
            worlds = [
                LiveWorld(live, [asked[int(i)] for i in part], runner, dollars=self._dollars)
                for part in (parts.train, parts.validation, parts.test)
            ]
            outcome = train_world(
                worlds[0],
                worlds[1],
                worlds[2],
                [asked[int(i)].history for i in parts.test],
                self._out,
                self._recipe,
                embedder_of(self._config),
                cost_unit="dollars" if self._dollars else "milliseconds",
                resume=self._options["resume"],
                on_pass=self._pass,
            )
            played = [pair for world in worlds for pair in world.results]
            log_of(played, self._dollars, self._config, propensity=False).save(self._out / "log.npz")
            return outcome


class Seeded:
    """Random tiers that hang on a number, not on the order in which questions are played."""

    name = "random"

    def __init__(self, seed: int) -> None:
        self._rng, self._random = np.random.default_rng(seed), RandomTiers()
        self.chosen: dict[str, int] = {}

    def probabilities(self, module: Any, state: Any, tradeoff: float = 0.0) -> Any:
        tier = self.chosen.setdefault(module, int(self._rng.integers(len(TIERS))))
        return tuple(float(i == tier) for i in range(len(TIERS)))


def log_of(played: list[tuple[Asked, Result]], dollars: bool, config: CascadeConfig, *, propensity: bool) -> TierLog:
    """What was played, as a log; with `propensity` the tiers were drawn uniformly."""
    names: dict[str, tuple[int, Asked, Any]] = {}
    for asked, result in played:
        names.setdefault(asked.question.id, (len(names), asked, result.query))
    vectors = np.stack([read for _, result in played for read in result.reads]).astype(np.float16)
    encoder = embedder_of(config).name
    metrics = sorted({name for _, result in played for name in result.scored.metrics})
    return TierLog(
        questions=[asked.question.text for _, asked, _ in names.values()],
        groups=[asked.history for _, asked, _ in names.values()],
        query=np.stack([query for _, _, query in names.values()]).astype(np.float32),
        question=np.array([names[asked.question.id][0] for asked, _ in played], dtype=np.int32),
        tiers=np.array([[TIERS.index(r.recall.tiers[m]) for m in MODULES] for _, r in played], dtype=np.int8),
        propensity=np.full(len(played), 1 / COMBINATIONS) if propensity else None,
        score=np.array([r.scored.score for _, r in played]),
        cost=np.array([cost_of(r, dollars) for _, r in played]),
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
