"""Signals of how a run goes (`router.stuck`) on recorded episodes: do they foretell failure, and what do they buy?

    python tests/benchmarks/bench_signals.py [--data ../shared/data] [--runs FOLDER …]

1. AUROC of each signal at step t for "this episode fails", among the episodes that have a step t: at some positions,
   and over all, where only episodes at the same step number are compared (long episodes fail more; that alone is
   worth nothing here). Intervals: 95 %, bootstrap of whole episodes (of tasks where one was tried several times).
2. Where a signal first reaches a number: the share of those episodes that fail, against the share among all episodes
   that lasted as long. The first half of the episodes chose the defaults; these figures are of the second.
3. A restart by a stronger model's recorded run where a signal fires, against as many restarts drawn at random.
4. Folders of `agentcascade bench alfworld` (`--runs`) on the official games ($ALFWORLD_DATA), which are played again
   in the engine with the recorded actions: how many of the student's accepted steps were taken while the run was stuck,
   and what becomes of the game where the stand-in expert, which plans with what it has seen, takes every step from the
   first alarm on. (What the student would do after the latch is not recorded.)

Data that is absent is left out with a word. Plans: none of these logs has one, so `over_plan` is measured with the
median length of the other half's successes in the episode's category.
"""

from __future__ import annotations

import argparse
import json
import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from agentcascade import conversation
from agentcascade.actions.base import AutoActions
from agentcascade.config.stuck import StuckConfig
from agentcascade.step.stuck import SIGNALS, Stuck, Watch, events
from agentcascade.types import Step

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
NEVER = StuckConfig(**dict.fromkeys(SIGNALS, 1_000_000))
ALARMS = {
    "repeated": StuckConfig(errors=None, nothing_new=None),
    "errors": StuckConfig(repeated=None, nothing_new=None),
    "nothing_new": StuckConfig(repeated=None, errors=None),
    "defaults": StuckConfig(),
}
AT = (2, 4, 6, 8, 12, 16, 24)
NUMBERS = (1, 2, 3, 4, 6)
DRAWS = 1000


@dataclass(frozen=True)
class Episode:
    """A recorded run: what was observed and done, and whether it failed."""

    id: str
    cluster: str
    category: str
    failed: bool
    steps: tuple[Step, ...]

    @cached_property
    def second_half(self) -> bool:
        return blake2b(self.cluster.encode(), digest_size=1).digest()[0] % 2 == 1


def knowagent(folder: Path) -> Iterator[Episode]:
    """Llama-2-13B on ALFWorld's training games. Thoughts belong to the action behind them; a second thought in a row
    is a call of its own, which nothing answers."""
    path = folder / "alfworld_llm_logs" / "KnowAgentALFWorld_llama-2-13b_D1.jsonl"
    for line in path.read_text(encoding="utf-8").splitlines():
        run = json.loads(line)
        steps: list[Step] = []
        observed: list[str] = []
        thoughts: list[str] = []
        for text in run["traj"].split("\n"):
            if not text.startswith("> "):
                observed.append(text)
                continue
            said = text[2:].strip()
            thinks = said.casefold().startswith("think:")
            if thinks and any(t.casefold().startswith("think:") for t in thoughts):
                steps.append(Step(observation="\n".join(observed).strip(), action="\n".join(thoughts)))
                observed, thoughts = [], []
            if thinks or said.startswith("ActionPath:"):
                thoughts.append(said)
                continue
            steps.append(Step(observation="\n".join(observed).strip(), reasoning="\n".join(thoughts), action=said))
            observed, thoughts = [], []
        yield Episode(run["name"], run["name"], run["name"].split("-")[0], not run["result"], tuple(steps))


def intercode(folder: Path, name: str) -> Iterator[Episode]:
    path = folder / "intercode_sql" / f"ic_sql_{name}.json"
    for id, run in json.loads(path.read_text(encoding="utf-8")).items():
        turns = run["turn_history"]
        observations = [run["query"], *map(str, turns["observations"])]
        thoughts = turns.get("thoughts") or [""] * len(turns["actions"])
        steps = [
            Step(observation=observations[i], reasoning=thoughts[i], action=action)
            for i, action in enumerate(turns["actions"])
        ]
        yield Episode(id, id, run["hardness"], run["summary"]["max_reward"] != 1.0, tuple(steps))


def tau(folder: Path) -> Iterator[Episode]:
    path = folder / "tau_bench" / "gpt-4o-airline.json"
    for run in json.loads(path.read_text(encoding="utf-8")):
        steps = conversation.read(run["traj"], AutoActions()).history
        yield Episode(f"{run['task_id']}-{run['trial']}", str(run["task_id"]), "", run["reward"] != 1.0, steps)


SETS = {
    "ALFWorld, Llama-2-13B (KnowAgent)": knowagent,
    "InterCode-SQL, gpt-3.5 ReAct": lambda folder: intercode(folder, "react_10_turns"),
    "InterCode-SQL, gpt-4, told its reward": lambda folder: intercode(folder, "multiturn_gpt-4_10_turns"),
    "tau-bench airline, gpt-4o, 4 trials": tau,
    "InterCode-SQL, gpt-3.5 with the schema": lambda folder: intercode(folder, "multiturn_gpt-3.5_10_turns_handicap"),
    "InterCode-SQL, text-bison with the schema": lambda folder: intercode(
        folder, "multiturn_text-bison-001_10_turns_handicap"
    ),
    "InterCode-SQL, chat-bison with the schema": lambda folder: intercode(
        folder, "multiturn_chat-bison-001_10_turns_handicap"
    ),
}


def values(episode: Episode, plan: int) -> Any:
    """(T, 6), each signal before each step, counted from the beginning."""
    watch = Watch(NEVER, plan)
    rows = []
    for event in events(episode.steps, NEVER):
        watch.observe(event)
        rows.append(watch.values)
    return np.array(rows, float)


def stuck(episode: Episode, settings: StuckConfig) -> list[Stuck | None]:
    watch = Watch(settings)
    return [watch.observe(event) for event in events(episode.steps, settings)]


def lengths(episodes: Sequence[Episode]) -> dict[tuple[bool, str], int]:
    """Median steps of the successes by (half, category): what the other half takes for the length of a plan."""
    won: dict[tuple[bool, str], list[int]] = defaultdict(list)
    for e in episodes:
        if not e.failed:
            won[e.second_half, e.category].append(len(e.steps))
    return {key: int(np.median(steps)) for key, steps in won.items()}


class Table:
    """Values of all episodes, with draws of whole clusters as weights: row 0 is the log as it is."""

    def __init__(self, episodes: Sequence[Episode]) -> None:
        plans = lengths(episodes)
        self.values = [values(e, plans.get((not e.second_half, e.category), 0)) for e in episodes]
        self.failed = np.array([e.failed for e in episodes])
        self.length = np.array([len(v) for v in self.values])
        _, cluster = np.unique([e.cluster for e in episodes], return_inverse=True)
        clusters = int(cluster.max()) + 1
        drawn = np.random.default_rng(0).multinomial(clusters, np.full(clusters, 1 / clusters), DRAWS)
        self.weights = np.concatenate([np.ones((1, clusters)), drawn])[:, cluster]

    def pairs(self, signal: int, step: int) -> tuple[Any, Any]:
        """(draws,) each: pairs of a failure and a success at this step that are in order (ties: half), and all."""
        rows = np.flatnonzero(self.length > step)
        found, which = np.unique([self.values[i][step, signal] for i in rows], return_inverse=True)
        of_value = which[:, None] == np.arange(len(found))
        failed = (self.weights[:, rows] * self.failed[rows]) @ of_value
        won = (self.weights[:, rows] * ~self.failed[rows]) @ of_value
        below = np.cumsum(won, axis=1) - won / 2
        return (failed * below).sum(axis=1), failed.sum(axis=1) * won.sum(axis=1)

    def auroc(self, signal: int, steps: Sequence[int]) -> str:
        parts = [self.pairs(signal, step) for step in steps]
        right, all_ = (np.sum([part[i] for part in parts], axis=0) for i in (0, 1))
        if not parts or not all_[0]:
            return "-"
        drawn = right[1:][all_[1:] > 0] / all_[1:][all_[1:] > 0]
        low, high = np.quantile(drawn, [0.025, 0.975])
        return f"{right[0] / all_[0]:.3f} [{low:.3f}, {high:.3f}]"


def print_auroc(name: str, episodes: Sequence[Episode], table: Table) -> None:
    print(
        f"\n{name}: {len(episodes):,} episodes, {table.failed.mean():.1%} fail, {table.length.sum():,} steps; "
        f"median length of successes {np.median(table.length[~table.failed]):g}, "
        f"of failures {np.median(table.length[table.failed]):g}"
    )
    positions = [t for t in AT if min(np.bincount(table.failed[table.length > t], minlength=2)) >= 10]
    shares = " ".join(
        f"{t}: {table.failed[table.length > t].mean():.2f} of {(table.length > t).sum()}" for t in positions
    )
    print(f"  failures among episodes that have a step  {shares}")
    print(f"  {'AUROC':<12} {'same step number':<22} " + " ".join(f"{f'at step {t}':<22}" for t in positions))
    longest = int(table.length.max())
    for i, signal in enumerate(SIGNALS):
        cells = [table.auroc(i, range(1, longest)), *(table.auroc(i, [t]) for t in positions)]
        print(f"  {signal:<12} " + " ".join(f"{cell:<22}" for cell in cells))


def excess(table: Table, rows: Any, first: Any) -> str:
    """Failures among episodes `rows`, whose signal fired at `first`, against those that lasted as long."""
    fired = table.failed[rows]
    alike = np.array([table.failed[table.length > t].mean() for t in first])
    rng = np.random.default_rng(0)
    drawn = rng.choice(fired - alike, (DRAWS, len(rows))).mean(axis=1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    gain = f"{(fired - alike).mean():+.2f} [{low:+.2f}, {high:+.2f}]"
    return f"{len(rows):4d} fired, {fired.mean():.2f} fail against {alike.mean():.2f}: {gain}"


def print_firsts(table: Table, second: Any) -> None:
    print("  first time at a number, second half of the episodes")
    for i, signal in enumerate(SIGNALS):
        for number in NUMBERS:
            reached = [np.flatnonzero(v[:, i] >= number) for v in table.values]
            rows = np.array([e for e, steps in enumerate(reached) if len(steps) and second[e]], int)
            if len(rows) >= 8:
                print(f"  {signal:<12} {number}: {excess(table, rows, [reached[e][0] for e in rows])}")


def print_alarm(episodes: Sequence[Episode], table: Table, second: Any) -> None:
    settings = StuckConfig()
    alarms = [next((s for s in stuck(e, settings) if s is not None), None) for e in episodes]
    rows = np.array([i for i, alarm in enumerate(alarms) if alarm is not None and second[i]], int)
    if not len(rows):
        print("  defaults: never")
        return
    first = [alarms[i].since for i in rows]
    caught = np.isin(np.flatnonzero(second), rows)
    failed = table.failed[second]
    left = np.median([table.length[i] - alarms[i].since for i in rows if table.failed[i]] or [0])
    print(
        f"  defaults     {excess(table, rows, first)}; {caught[failed].mean():.0%} of the failures and "
        f"{caught[~failed].mean():.0%} of the successes, with {left:g} steps to go in the median failure"
    )


def print_restarts(folder: Path) -> None:
    """gpt-3.5's runs, each given up for gpt-4's run of the same task where the run is stuck."""
    weak = {e.id: e for e in SETS["InterCode-SQL, gpt-3.5 ReAct"](folder)}
    strong = {e.id: e for e in SETS["InterCode-SQL, gpt-4, told its reward"](folder)}
    ids = sorted(weak.keys() & strong.keys(), key=int)
    lost, taught = (np.array([runs[i].failed for i in ids]) for runs in (weak, strong))
    alone = f"alone {1 - lost.mean():.3f} and {1 - taught.mean():.3f}"
    print(f"\nRestart of gpt-3.5's run by gpt-4's ({len(ids)} tasks; {alone})")
    rng = np.random.default_rng(0)
    for name, settings in ALARMS.items():
        given = np.array([any(s is not None for s in stuck(weak[i], settings)) for i in ids])
        gain = np.where(given, lost.astype(float) - taught, 0.0)
        alike = given.mean() * (lost.astype(float) - taught).mean()
        drawn = rng.multinomial(len(ids), np.full(len(ids), 1 / len(ids)), DRAWS) / len(ids)
        by_draw = drawn @ gain - (drawn @ given) * (drawn @ (lost.astype(float) - taught))
        low, high = np.quantile(by_draw, [0.025, 0.975])
        more = f"{gain.mean() - alike:+.3f} [{low:+.3f}, {high:+.3f}]"
        print(
            f"  {name:<12} {given.mean():.1%} restarted: success {1 - lost.mean() + gain.mean():.3f}; "
            f"as many at random {1 - lost.mean() + alike:.3f}; more by {more}"
        )


class Rescue(NamedTuple):
    """What becomes of a game that the expert takes over."""

    won: bool
    steps: int
    dollars: Decimal
    """Of the recorded steps before, and of the expert's at the recorded estimates for the teacher"""


class Game:
    """A recorded game, played again with its actions."""

    def __init__(self, run: dict[str, Any], games: Path) -> None:
        from agentcascade.envs.alfworld.environment import AlfworldEnvironment

        self._world = AlfworldEnvironment(max_steps=50, expert=True)
        self._file = str(games / run["task"] / "game.tw-pddl")
        self._decisions = run["decisions"]
        steps = tuple(self._play(len(self._decisions)))
        assert self._world.success == run["success"], f"{run['task']} does not end as it did"
        kind = run["task"].split("/")[1].split("-")[0]
        self.episode = Episode(run["task"], run["task"], kind, not run["success"], steps)
        self.by_student = [d["answered_by"] == "student" for d in self._decisions]
        self.played = Rescue(run["success"], len(steps), self._spent(len(steps)))

    def rescue(self, since: int) -> Rescue:
        """The expert takes every step from `since` on."""
        self._play(since)
        step, done = since, False
        while not done and step < self._world.max_steps:
            advised = self._world.expert_advice().commands
            _, done = self._world.step(advised[0] if advised else "look")
            step += 1
        teacher = [Decimal(d["teacher_dollars"]) for d in self._decisions]
        taught = sum((teacher[min(i, len(teacher) - 1)] for i in range(since, step)), Decimal(0))
        return Rescue(self._world.success, step, self._spent(since) + taught)

    def _spent(self, steps: int) -> Decimal:
        return sum((Decimal(d["dollars"]) for d in self._decisions[:steps]), Decimal(0))

    def _play(self, until: int) -> list[Step]:
        observation, steps = self._world.reset(self._file), []
        for decision in self._decisions[:until]:
            steps.append(Step(observation=observation, action=decision["action"] or ""))
            observation, _ = self._world.step(steps[-1].action)
        return steps


def stuck_steps(game: Game, settings: StuckConfig) -> int:
    """Steps that the student took while a signal stood, had nobody heeded any."""
    watch, number = Watch(NEVER), 0
    for event, student in zip(events(game.episode.steps, NEVER), game.by_student):
        watch.observe(event)
        enough = ((getattr(watch.values, signal), getattr(settings, signal)) for signal in SIGNALS)
        number += student and any(least is not None and value >= least for value, least in enough)
    return number


def print_runs(folder: Path, games: Path) -> None:
    lines = (folder / "episodes.jsonl").read_text(encoding="utf-8").splitlines()
    played = [Game(run, games) for run in map(json.loads, lines) if run["policy"] == "cascade"]
    lost = [game for game in played if game.episode.failed]
    print(
        f"\n{folder}: {len(played)} games of the cascade, {len(lost)} lost, {sum(g.played.steps for g in played)} "
        f"steps, {sum(sum(g.by_student) for g in played)} by the student, {sum(g.played.dollars for g in played):.4f} "
        "dollars"
    )
    for name, settings in ALARMS.items():
        since = [next((s.since for s in stuck(game.episode, settings) if s is not None), None) for game in played]
        after = [game.played if at is None else game.rescue(at) for game, at in zip(played, since)]
        alarms = [game.episode.failed for game, at in zip(played, since) if at is not None]
        print(
            f"  {name:<12} {sum(stuck_steps(g, settings) for g in played)} steps of the student while stuck, of which "
            f"{sum(stuck_steps(g, settings) for g in lost)} in lost games; alarm in {sum(alarms)} lost and "
            f"{len(alarms) - sum(alarms)} won games; with the expert from there on {sum(a.won for a in after)} wins, "
            f"{sum(a.steps for a in after)} steps, {sum(a.dollars for a in after):.4f} dollars"
        )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, default=SHARED)
    parser.add_argument("--runs", type=Path, nargs="*", default=[])
    arguments = parser.parse_args()
    folder = arguments.data
    for runs in arguments.runs:
        games = os.environ.get("ALFWORLD_DATA")
        if not games or not (Path(games) / "json_2.1.1").is_dir():
            print(f"\n{runs}: left out, $ALFWORLD_DATA names no folder with json_2.1.1, the official games")
            continue
        print_runs(runs, Path(games) / "json_2.1.1")
    for name, load in SETS.items():
        try:
            episodes = [e for e in load(folder) if e.steps]
        except FileNotFoundError as error:
            print(f"\n{name}: left out, there is no {error.filename}")
            continue
        table = Table(episodes)
        second = np.array([e.second_half for e in episodes])
        print_auroc(name, episodes, table)
        print_firsts(table, second)
        print_alarm(episodes, table, second)
    if (folder / "intercode_sql").is_dir():
        print_restarts(folder)


if __name__ == "__main__":
    main()
