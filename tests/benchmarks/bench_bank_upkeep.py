"""What does a better bank keep? Detours cut by replay in ALFWorld; pruning for coverage on Llama-2-13B's successes.

    ALFWORLD_DATA=… python tests/benchmarks/bench_bank_upkeep.py detours [--games 60]
    python tests/benchmarks/bench_bank_upkeep.py cover [--data …] [--embedder minilm]

`detours`: the stand-in expert (the engine's planner) plays official games; into a copy of each episode detours are put
(there and back, or a command that fails), then `without_detours` is asked about both. Llama's own episodes cannot be
replayed (their games are not at hand, and were worded by an older engine): of them it is said what could be a loop.
`cover`: banks of so many of 70 % of Llama's successful episodes; at the steps of the others, does one of the six
windows that are retrieved match with the right action, but for the numbers of things? Chosen by coverage, at random
(mean of 5 draws). No student is asked.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import re
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from statistics import fmean

sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np

from agentcascade.assembly.components import make_embedder
from agentcascade.bank.bank import Bank
from agentcascade.bank.coverage import covering
from agentcascade.bank.detours import detours, without_detours
from agentcascade.envs.alfworld.dataset import load_games
from agentcascade.envs.alfworld.environment import AlfworldEnvironment
from agentcascade.models.tokens import token_counter
from agentcascade.prompts.transcripts import render_step
from agentcascade.protocols import Embedder
from agentcascade.retrievers.numpy_index import ExactRetriever
from agentcascade.storage import bank_metadata, open_database, trajectories
from agentcascade.types import Situation, Step, Trajectory
from tests.benchmarks.bench_failures import DATA, FAILED, LoggedEpisode, read_episodes

K = 6


def tokens(steps: Sequence[Step]) -> int:
    count = token_counter()
    return sum(count(render_step(step)) for step in steps)


def with_detours(environment: AlfworldEnvironment, path: str, plan: Sequence[str], rng: random.Random) -> list[str]:
    """The commands of `plan` with three detours: away and back, or a command that does nothing."""
    actions: list[str] = []
    places = sorted(rng.sample(range(1, len(plan)), min(3, len(plan) - 1)))
    environment.reset(path)
    at = ""
    for index, command in enumerate(plan):
        if index in places and at and rng.random() < 0.7:
            away = [c for c in environment.admissible() if c.startswith("go to ")]
            more = [rng.choice(away), f"go to {at}"] if away else []
        else:
            more = ["take spoon 9 from shelf 9"] if index in places else []
        for action in (*more, command):
            environment.step(action)
            actions.append(action)
        at = command.removeprefix("go to ") if command.startswith("go to ") else at
    return actions


def play(environment: AlfworldEnvironment, path: str, actions: Sequence[str]) -> Trajectory:
    observation, steps = environment.reset(path), []
    for action in actions:
        steps.append(Step(observation=observation, action=action))
        observation, _ = environment.step(action)
    return Trajectory(goal="as the game says", steps=tuple(steps), success=environment.success)


def measure_detours(games: int) -> None:
    rng, environment = random.Random(0), AlfworldEnvironment(max_steps=100, expert=True)
    kinds = {"the expert's own": Counter[str](), "with detours": Counter[str]()}
    sums = {kind: Counter[str]() for kind in kinds}
    started = time.perf_counter()
    for game in load_games("valid_seen", games, 0):
        path, plan, done = str(game.path), list[str](), False
        environment.reset(path)
        while not done and len(plan) < 50:
            commands = environment.expert_advice().commands
            plan.append(commands[0] if commands else "look")
            _, done = environment.step(plan[-1])
        if not environment.success:
            continue
        for kind, actions in (
            ("the expert's own", plan),
            ("with detours", with_detours(environment, path, plan, rng)),
        ):
            trajectory = play(environment, path, actions)
            improvement = without_detours(trajectory, environment, path, marks=("Nothing happens",))
            kinds[kind][improvement.outcome] += 1
            sums[kind].update(
                plan=len(plan),
                before=len(trajectory.steps),
                after=len(improvement.steps),
                tokens_before=tokens(trajectory.steps),
                tokens_after=tokens(improvement.steps),
                replays=improvement.replays,
                back=len(improvement.steps) <= len(plan),
                won=play(environment, path, [s.action for s in improvement.steps]).success,
            )
    for kind, outcomes in kinds.items():
        s, episodes = sums[kind], outcomes.total()
        print(
            f"{kind} ({episodes} episodes of the stand-in expert): {dict(outcomes)}; {s['before']:,} steps to "
            f"{s['after']:,} ({1 - s['after'] / s['before']:.3f} cut; without detours {s['plan']:,}), "
            f"{s['tokens_before']:,} tokens to {s['tokens_after']:,}; {s['replays']:,} replays; as short as the plan: "
            f"{s['back']}; won again: {s['won']} of {episodes}"
        )
    print(f"{time.perf_counter() - started:.0f} s")
    environment.close()


def measure_llama(data: Path) -> None:
    episodes = [e for e in read_episodes(data) if e.success]
    steps = sum(len(e.steps) for e in episodes)
    failed = looped = left_tokens = all_tokens = 0
    for episode in episodes:
        covered = set[int]()
        for start, end in detours(episode.steps, (FAILED,)):
            covered |= set(range(start, end))
        alone = {i for i, s in enumerate(episode.steps[1:]) if FAILED in s.observation}
        failed, looped = failed + len(alone), looped + len(covered - alone)
        all_tokens += tokens(episode.steps)
        left_tokens += tokens([s for i, s in enumerate(episode.steps) if i not in covered])
    print(
        f"Llama-2-13B's {len(episodes)} successes, {steps:,} steps, not replayed: {failed / steps:.3f} failed, "
        f"{looped / steps:.3f} more between two equal observations: that could be cut at most; {all_tokens:,} tokens "
        f"to {left_tokens:,} at least"
    )


class Remembering:
    """An embedder that embeds each text once: every bank here holds some of the same texts."""

    def __init__(self, embedder: Embedder) -> None:
        self.name, self.dimension, self._embedder = embedder.name, embedder.dimension, embedder
        self._known: dict[str, np.ndarray] = {}

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        if new := [text for text in dict.fromkeys(texts) if text not in self._known]:
            self._known.update(zip(new, self._embedder.embed(new)))
        return np.stack([self._known[text] for text in texts])


def typed(action: str) -> str:
    """The action but for the numbers of things."""
    return re.sub(r"\d+", "#", action)


def as_trajectory(episode: LoggedEpisode) -> Trajectory:
    """As a bank takes it: without the steps that failed."""
    steps: list[Step] = []
    for step in episode.steps:
        if steps and FAILED in step.observation:
            steps[-1] = step.model_copy(update={"observation": steps[-1].observation})
        else:
            steps.append(step)
    return Trajectory(id=episode.name, goal=episode.goal, category=episode.category, steps=tuple(steps), success=True)


async def recall(bank: Bank, others: Sequence[Trajectory]) -> float:
    hits = []
    for trajectory in others:
        for step in trajectory.steps:
            windows = (
                await bank.retrieve(Situation(goal=trajectory.goal, observation=step.observation), K)
            ).demonstrations
            hits.append(any(typed(w.steps[w.match - w.start].action) == typed(step.action) for w in windows))
    return fmean(hits)


async def measure_cover(data: Path, name: str) -> None:
    embedder = Remembering(make_embedder(name))
    taught = [as_trajectory(e) for e in read_episodes(data) if e.success]
    random.Random(0).shuffle(taught)
    cut = round(0.7 * len(taught))
    banked, others = taught[:cut], taught[cut:]

    async def of(items: Sequence[Trajectory]) -> float:
        with closing(open_database("sqlite://")) as database:
            bank = Bank(database, embedder, ExactRetriever(3 * embedder.dimension))
            await bank.add_many(items)
            return await recall(bank, others)

    with closing(open_database("sqlite://")) as database:
        whole = Bank(database, embedder, ExactRetriever(3 * embedder.dimension))
        await whole.add_many(banked)
        order = covering(whole, "default")
        with database.begin() as connection:
            by_key = trajectories.read_trajectories(connection, order.pks)
            assert bank_metadata.embedding_model(connection)
    ordered = [by_key[pk] for pk in order.pks]
    print(f"{len(banked)} trajectories of Llama-2-13B, {len(others)} others, {name}: recall of actions at k = {K}")
    for share in (1.0, 0.5, 0.25, 0.12, 0.06):
        n = max(1, round(share * len(banked)))
        drawn = [await of(random.Random(seed).sample(banked, n)) for seed in range(5 if n < len(banked) else 1)]
        print(
            f"{n:4} kept: coverage {order.coverage[n - 1] / order.coverage[-1]:.3f}, recall by coverage "
            f"{await of(ordered[:n]):.3f}, at random {fmean(drawn):.3f} [{min(drawn):.3f}, {max(drawn):.3f}]"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["detours", "cover"])
    parser.add_argument("--games", type=int, default=60)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--embedder", default="minilm")
    arguments = parser.parse_args()
    if arguments.what == "detours":
        measure_detours(arguments.games)
        measure_llama(arguments.data)
    else:
        asyncio.run(measure_cover(arguments.data, arguments.embedder))


if __name__ == "__main__":
    main()
