"""Active collection against random order: solve rate and teacher share by number of demonstrations, in ALFWorld.

    ALFWORLD_DATA=… python tests/benchmarks/bench_active.py play --out FOLDER [--seeds 5] [--games 30] [--traffic 25]
    python tests/benchmarks/bench_active.py show --out FOLDER
    INTERCODE_DATA=… python tests/benchmarks/bench_active.py recorded

`play` appends a row a cell to FOLDER/cells.jsonl and goes on where it was stopped. Pool: the official training games
that are at hand, each played once by the stand-in teacher (offline/expert, the engine's own planner). Live traffic:
games of valid_seen, `--traffic` new ones at each size of the bank, played by the cascade (offline/imitator, a program
that copies by analogy, three samples that must agree, else the expert). Evaluation: the same games of valid_unseen for
every order and size, which nothing is chosen by. Orders: `random`; `cover`, by diversity alone; `active`, the first
size by diversity (a cold start), then by expected saving, from the decisions of the traffic so far. The models are
STAND-INS: figures say what the order does to a program that copies from its demonstrations, not to a language model.

`forced` is `play` without an engine, on training games alone: of their recorded episodes a part is the pool, a part the
traffic and a part is evaluated; the cascade is asked at each step of the teacher's way, whose action is then taken.
What it would have deferred, and where the student would have done what the teacher did, is counted; rows are in
forced.jsonl, `show --forced` prints them.

`show` prints the curves, 95 % bootstrap of games within seeds and of seeds, and the paired difference to `random`.

`recorded` asks a REAL student whether the estimate's ground holds: Qwen2.5-Coder-1.5B on 1,034 questions of
InterCode-SQL, three samples at temperature 0.8, without demonstrations and with the three nearest of GPT-4's right
answers to other questions (never of one with the same gold answer). Is there less need of the teacher (no agreement of
all three, or wrongly) where support is higher, and do demonstrations change it by more there? Bootstrap of databases.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, closing
from decimal import Decimal
from functools import cache, cached_property, lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from agentcascade.assembly import components
from agentcascade.bank.active import ActiveChooser
from agentcascade.bank.bank import Bank
from agentcascade.bank.needs import Evidence, GoalVectors, fit_curve, nearest, read_evidence, support
from agentcascade.bench import worker as bench_worker
from agentcascade.bench.records import EpisodeJob, EpisodeRecord
from agentcascade.bench.suites.alfworld import PRICES, AlfworldSuite
from agentcascade.bench.worker import Setup, Worker
from agentcascade.config.load import CascadeConfig
from agentcascade.config.sections import ActionsConfig
from agentcascade.storage import Database, open_database
from agentcascade.storage.record_rows import write_records
from agentcascade.types import Step, Trajectory, now

SIZES = (5, 10, 20, 40, 80)
HORIZON = 10_000
"""Episodes: so many that no order stops before a size is reached, since sizes are compared here."""
ORDERS = ("random", "active", "cover")


class RememberingEmbedder:
    """Embeds each text once in this process."""

    def __init__(self, inner: Any) -> None:
        self._inner: Any = inner
        self._known: dict[str, np.ndarray] = {}
        self.name, self.dimension = inner.name, inner.dimension

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        if new := [t for t in dict.fromkeys(texts) if t not in self._known]:
            self._known.update(zip(new, self._inner.embed(new)))
        return np.stack([self._known[t] for t in texts])


class BankedWorker(Worker):
    """A worker whose bank is exchanged; what was built for a bank is kept with it."""

    database: Database | None = None

    def _database(self, seed: int) -> Any:  # type: ignore[override]  # that one is cached
        return self.database

    def with_bank(self, database: Database) -> BankedWorker:
        self.database = database
        self._cascades = self._built.setdefault(id(database), {})
        return self

    @cached_property
    def _built(self) -> dict[int, Any]:
        return {}

    def forget(self) -> None:
        self._built.clear()


def keep_more_translations() -> None:
    """The same games are played again and again here: the engine's translations of 64 of them are kept, not of 4."""
    from agentcascade.envs.alfworld import engine

    with patch.object(engine, "lru_cache", lambda maxsize: lru_cache(maxsize=64 if maxsize == 4 else maxsize)):
        engine.engine_modules()


def configuration() -> CascadeConfig:
    """As `agentcascade bench alfworld` plays policy `cascade` by default."""
    suite = AlfworldSuite()
    return CascadeConfig.load(
        mode="cascade",
        teacher={"name": suite.defaults.teacher, "price": PRICES[suite.defaults.teacher], "temperature": 0.1},
        student={"name": suite.defaults.student, "price": PRICES[suite.defaults.student]},
        retrieval={"k": suite.defaults.k, "embedder": "minilm"},
        router={"name": "unanimity", "options": {"n": suite.defaults.samples}},
        sampling={"temperature": 0.1},
        actions=ActionsConfig(**suite.actions),
        collect={"drop_observations": suite.dropped},
    )


def tasks(split: str, seed: int = 0) -> list[Any]:
    found, source = AlfworldSuite().tasks(split, 10_000, seed, workers=1, on_progress=lambda done, of: None)
    assert source == "official", "set ALFWORLD_DATA to the folder that holds json_2.1.1"
    return found


def demonstrate(worker: BankedWorker, folder: Path) -> list[dict[str, Any]]:
    """The teacher's episode of every training game: played once, kept in a file."""
    path = folder / "demos.jsonl"
    known = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    done = {entry["task"] for entry in known}
    with path.open("a") as file:
        for index, task in enumerate(sorted(tasks("train"), key=lambda t: t.id)):
            if task.id in done:
                continue
            record = worker.play(EpisodeJob("demos", 0, index, task.id, task.path))
            entry = {
                "task": task.id,
                "kind": task.category,
                "dollars": str(record.dollars),
                "trajectory": record.trajectory.model_dump(mode="json") if record.trajectory else None,
            }
            known.append(entry)
            file.write(json.dumps(entry) + "\n")
            file.flush()
    return known


def add(bank: Bank, entries: Sequence[dict[str, Any]]) -> None:
    banked = [
        Trajectory.model_validate(entry["trajectory"]).model_copy(update={"created_at": now()}) for entry in entries
    ]
    asyncio.run(bank.add_many(banked))


def play(folder: Path, seeds: int, games: int, live_games: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    keep_more_translations()
    config = configuration()
    embedder = RememberingEmbedder(components.make_embedder("minilm"))
    bench_worker.embedder = cache(lambda name: embedder)
    worker = BankedWorker(Setup("agentcascade.bench.suites.alfworld:AlfworldSuite", config, {}))
    pool = [entry for entry in demonstrate(worker, folder) if entry["trajectory"]]
    print(f"pool: {len(pool)} training games that the teacher solved", flush=True)
    path = folder / "cells.jsonl"
    cells = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    done = [(c["seed"], c["order"]) for c in cells if c["size"] == SIZES[-1]]
    unseen = sorted(tasks("valid_unseen"), key=lambda t: t.id)
    seen = sorted(tasks("valid_seen"), key=lambda t: t.id)
    for seed in range(seeds):
        if all((seed, order) in done for order in ORDERS):
            continue
        rng = random.Random(seed)
        evaluated, traffic = rng.sample(unseen, games), rng.sample(seen, len(seen))
        shuffled = rng.sample(range(len(pool)), len(pool))
        with ExitStack() as opened:
            databases = {order: opened.enter_context(closing(open_database("sqlite:///:memory:"))) for order in ORDERS}
            banks = {order: components.open_bank(config, databases[order], embedder) for order in ORDERS}
            taken: dict[str, list[int]] = {order: [] for order in ORDERS}
            for number, size in enumerate(SIZES):
                notes: dict[str, list[str]] = {order: [] for order in ORDERS}
                for order, bank in banks.items():
                    more = chosen(bank, pool, shuffled, taken[order], size, order, config.retrieval.k, notes[order])
                    add(bank, [pool[i] for i in more])
                    taken[order] += more
                worker.forget()  # a bank follows its database within seconds
                records = {order: list[EpisodeRecord]() for order in ORDERS}
                for index, game in enumerate(evaluated):  # game by game, since the engine keeps its translation
                    for order in ORDERS:
                        records[order].append(play_one(worker.with_bank(databases[order]), game, index, seed))
                with path.open("a") as file:
                    for order in ORDERS:
                        cell = {
                            "seed": seed,
                            "order": order,
                            "size": size,
                            "collected": str(sum(Decimal(pool[i]["dollars"]) for i in taken[order])),
                            "kinds": kinds(pool, taken[order]),
                            "notes": notes[order][-2:],
                            "games": [
                                [r.success, r.steps, r.teacher_steps, str(r.dollars), str(r.teacher_dollars)]
                                for r in records[order]
                            ],
                        }
                        file.write(json.dumps(cell) + "\n")
                if size != SIZES[-1]:
                    part, live = (
                        traffic[number * live_games : (number + 1) * live_games],
                        worker.with_bank(databases["active"]),
                    )
                    played = [play_one(live, game, i, seed + 1000 * (number + 1)) for i, game in enumerate(part)]
                    with databases["active"].begin(write=True) as connection:
                        write_records(connection, [d for r in played for d in r.decisions])
            worker.forget()


def play_one(worker: BankedWorker, game: Any, index: int, seed: int) -> EpisodeRecord:
    record = worker.play(EpisodeJob("cascade", seed, index, game.id, game.path, None, game.category))
    assert record.error is None, record.error
    return record


def chosen(
    bank: Bank,
    pool: Sequence[dict[str, Any]],
    shuffled: Sequence[int],
    taken: Sequence[int],
    size: int,
    order: str,
    k: int,
    notes: list[str],
) -> list[int]:
    """The indices of the pool that make a bank of `taken` one of `size`."""
    count = size - len(taken)
    left = [i for i in shuffled if i not in set(taken)]
    if order == "random":
        return left[:count]
    goals = [pool[i]["trajectory"]["goal"] for i in left]
    evidence = read_evidence(bank, "default", k)
    if order == "cover":
        none = np.zeros(0)
        evidence = Evidence([], none, none, none, evidence.banked, None, [], [])
    chooser = ActiveChooser(GoalVectors(bank.embedder), evidence, goals, k=k, horizon=HORIZON)
    more = []
    for _ in range(count):
        best = chooser.best()
        assert best is not None
        chooser.take(best.number)
        more.append(left[best.number])
        notes.append(str(best))
    if not chooser.cold:
        notes.append(f"curve {chooser.curve.intercept:.2f} {chooser.curve.slope:.2f}, {len(evidence.goals)} episodes")
    return more


class Replay:
    """A world that tells recorded episodes, whatever is done in it; its expert gives the recorded answers."""

    success = True

    def __init__(self, episodes: dict[str, Trajectory]) -> None:
        self._episodes, self._at = episodes, 0
        self._steps: Sequence[Step] = ()

    def reset(self, task: str) -> str:
        self._steps, self._at = self._episodes[task].steps, 0
        return self._steps[0].observation

    def step(self, action: str) -> tuple[str, bool]:
        self._at += 1
        done = self._at == len(self._steps)
        return ("" if done else self._steps[self._at].observation), done

    def expert_answer(self) -> str:
        step = self._steps[self._at]
        return f"Thought: {step.reasoning}\nAction: {step.action}"


class ForcedSuite(AlfworldSuite):
    """ALFWorld where the cascade is asked, and the recorded action taken."""

    async def play(self, environment: Any, path: str, complete: Any) -> Any:
        async def forced(messages: list[Any]) -> str:
            await complete(messages)
            return str(environment.expert_answer())

        return await super().play(environment, path, forced)


def play_forced(folder: Path, seeds: int, games: int, live_games: int, sizes: Sequence[int], *, last: bool) -> None:
    config = configuration()
    embedder = RememberingEmbedder(components.make_embedder("minilm"))
    bench_worker.embedder = cache(lambda name: embedder)
    worker = BankedWorker(Setup("agentcascade.bench.suites.alfworld:AlfworldSuite", config, {}))
    entries = [entry for entry in demonstrate(worker, folder) if entry["trajectory"]]
    episodes = {entry["task"]: Trajectory.model_validate(entry["trajectory"]) for entry in entries}
    worker.suite, worker.environment = ForcedSuite(), Replay(episodes)
    path = folder / "forced.jsonl"
    cells = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    done = {(c["seed"], c["order"]) for c in cells if c["size"] == sizes[-1]}
    orders = ORDERS[:2]
    for seed in range(seeds):
        if all((seed, order) in done for order in orders):
            continue
        mixed = random.Random(seed).sample(entries, len(entries))
        live, evaluated, pool = (
            mixed[: live_games * len(sizes)],
            mixed[-games:],
            mixed[live_games * len(sizes) : -games],
        )
        shuffled = list(range(len(pool)))
        for order in orders:
            with closing(open_database("sqlite:///:memory:")) as database:
                bank, taken = components.open_bank(config, database, embedder), list[int]()
                for number, size in enumerate(sizes):
                    more = chosen(bank, pool, shuffled, taken, size, order, config.retrieval.k, [])
                    add(bank, [pool[i] for i in more])
                    taken += more
                    worker.forget()  # a bank follows its database within seconds, and here these count
                    worker.with_bank(database)
                    asked = evaluated if size == sizes[-1] or not last else ()
                    rows = [forced_row(play_entry(worker, e, i, seed), episodes) for i, e in enumerate(asked)]
                    cell = {
                        "seed": seed,
                        "order": order,
                        "size": size,
                        "collected": str(sum(Decimal(pool[i]["dollars"]) for i in taken)),
                        "games": rows,
                    }
                    if rows:
                        with path.open("a") as file:
                            file.write(json.dumps(cell) + "\n")
                    if order == "active" and size != sizes[-1]:
                        part = live[number * live_games : (number + 1) * live_games]
                        played = [play_entry(worker, e, i, seed + 1000 * (number + 1)) for i, e in enumerate(part)]
                        with database.begin(write=True) as connection:
                            write_records(connection, [d for r in played for d in r.decisions])
            worker.forget()


def play_entry(worker: BankedWorker, entry: dict[str, Any], index: int, seed: int) -> EpisodeRecord:
    record = worker.play(EpisodeJob("cascade", seed, index, entry["task"], entry["task"], None, entry["kind"]))
    assert record.error is None, record.error
    return record


def forced_row(record: EpisodeRecord, episodes: dict[str, Trajectory]) -> list[Any]:
    """Share of steps that the student takes as the teacher did, steps, deferred steps, dollars."""
    taught = [" ".join(step.action.lower().split()) for step in episodes[record.task].steps]
    right = [
        d.answered_by == "student" and d.action == action for d, action in zip(record.decisions, taught, strict=True)
    ]
    return [sum(right) / len(right), record.steps, record.teacher_steps, str(record.dollars)]


def kinds(pool: Sequence[dict[str, Any]], taken: Sequence[int]) -> dict[str, int]:
    counts = defaultdict[str, int](int)
    for i in taken:
        counts[pool[i]["kind"]] += 1
    return dict(counts)


def show(folder: Path, name: str, draws: int = 2000) -> None:
    cells = [json.loads(line) for line in (folder / name).read_text().splitlines()]
    by = {(c["order"], c["size"], c["seed"]): c for c in cells}
    print(
        "stand-ins (offline/imitator under offline/expert), official games; 95 % bootstrap over seeds and their games; "
        "differences to random are paired"
    )
    print("columns: solved (forced: student's steps that are as the teacher's), teacher share, $/episode; collected $")
    for size in sorted({c["size"] for c in cells}):
        for order in ORDERS:
            seeds = sorted({s for (_, _, s) in by if {("random", size, s), (order, size, s)} <= set(by)})
            if not seeds:
                continue
            own, other = ({s: table(by[o, size, s]) for s in seeds} for o in (order, "random"))
            rng, sampled, apart = np.random.default_rng(0), [], []
            for _ in range(draws):
                drawn = [int(s) for s in rng.choice(seeds, len(seeds))]
                which = [rng.integers(0, len(own[s]), len(own[s])) for s in drawn]
                mine, base = (figures([of[s][w] for s, w in zip(drawn, which)]) for of in (own, other))
                sampled.append(mine)
                apart.append(mine - base)
            spent = np.mean([float(by[order, size, s]["collected"]) for s in seeds])
            games = sum(len(rows) for rows in own.values())
            told_own = told(figures(own.values()), sampled)
            print(f"{size:3} {order:7} {len(seeds)} seeds, {games:3} games  {told_own}  ${spent:.3f}")
            if order != "random":
                print(f"{'less random':>31}  {told(figures(own.values()) - figures(other.values()), apart)}")


def told(point: np.ndarray, drawn: Sequence[np.ndarray]) -> str:
    """Figures with their intervals."""
    low, high = np.percentile(drawn, [2.5, 97.5], axis=0)
    return "  ".join(f"{p:+.4f} [{a:+.4f}, {b:+.4f}]" for p, a, b in zip(point, low, high))


def recorded(draws: int = 1000) -> None:
    from agentcascade.envs.intercode_sql import shipped
    from agentcascade.envs.intercode_sql.tasks import load_tasks

    texts = {number: task.query for number, task in enumerate(load_tasks())}
    rows = {number: row for number, row in shipped.rows().items() if number in texts}
    numbers = sorted(rows)
    embedder = components.make_embedder("minilm")
    vectors = np.asarray(embedder.embed([texts[n] for n in numbers]))
    group = np.array([rows[n].group for n in numbers])
    taught = np.array([rows[n].models["gpt-4"].results[0][0].right for n in numbers])
    likeness = np.where((group[:, None] == group[None, :]) | ~taught[None, :], 0.0, vectors @ vectors.T)
    supports = support(nearest(likeness, 3))
    needs = {
        name: np.array([needs_teacher(rows[n].models[name].results[:3]) for n in numbers])
        for name in ("qwen2.5-coder-1.5b", "qwen2.5-coder-1.5b-demos")
    }
    places = sorted({rows[n].database for n in numbers})
    members = [np.array([i for i, n in enumerate(numbers) if rows[n].database == place]) for place in places]
    rng = np.random.default_rng(0)
    samples = [np.concatenate([members[i] for i in rng.integers(0, len(members), len(members))]) for _ in range(draws)]
    spread = np.quantile(supports, [0.1, 0.5, 0.9]).round(2)
    print(f"{len(numbers)} questions of {len(places)} databases; deciles 1, 5 and 9 of support: {spread}")
    for name, need in needs.items():
        slopes = [fit_curve(supports[drawn], need[drawn]).slope for drawn in samples]
        found = fit_curve(supports, need)
        low, high = np.percentile(slopes, [2.5, 97.5])
        print(f"{name}: need {need.mean():.3f}; slope of the curve {found.slope:.2f} [{low:.2f}, {high:.2f}]")
    gain = needs["qwen2.5-coder-1.5b"] - needs["qwen2.5-coder-1.5b-demos"]
    edges = np.quantile(supports, [0, 1 / 3, 2 / 3, 1])
    for least, most in pairwise(edges):
        inside = (supports >= least) & (supports <= most)
        parts = [gain[drawn][inside[drawn]].mean() for drawn in samples]
        low, high = np.nanpercentile(parts, [2.5, 97.5])
        fallen = f"{gain[inside].mean():+.3f} [{low:+.3f}, {high:+.3f}]"
        print(f"support {least:.2f} to {most:.2f}: need falls by {fallen}")


def needs_teacher(results: Sequence[Any]) -> float:
    """1 where three samples do not agree on rows, or agree on wrong ones."""
    rows = {result.rows for result, _ in results}
    return float(len(rows) > 1 or None in rows or not results[0][0].right)


def table(cell: dict[str, Any]) -> np.ndarray:
    """Games as rows: solved, steps, the teacher's steps, dollars."""
    return np.array([[g[0], g[1], g[2], float(g[3])] for g in cell["games"]], dtype=np.float64)


def figures(of_seeds: Iterable[np.ndarray]) -> np.ndarray:
    """Solve rate, teacher share of steps, dollars an episode."""
    rows = np.concatenate(list(of_seeds))
    return np.array([rows[:, 0].mean(), rows[:, 2].sum() / rows[:, 1].sum(), rows[:, 3].mean()])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("play", "forced", "show", "recorded"))
    parser.add_argument("--out", type=Path, default=Path("runs/active"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--games", type=int, default=30, help="Of the evaluation, of each seed.")
    parser.add_argument("--forced", action="store_true", help="Show what `forced` played.")
    parser.add_argument("--last", action="store_true", help="Evaluate the last of --sizes alone.")
    parser.add_argument("--sizes", type=int, nargs="+", default=(10, 20, 40), help="Of the bank, for `forced`.")
    parser.add_argument("--traffic", type=int, default=25, help="Live games at each size.")
    options = parser.parse_args()
    if options.what == "play":
        play(options.out, options.seeds, options.games, options.traffic)
    elif options.what == "forced":
        play_forced(options.out, options.seeds, options.games, options.traffic, options.sizes, last=options.last)
    elif options.what == "show":
        show(options.out, "forced.jsonl" if options.forced else "cells.jsonl")
    else:
        recorded()


if __name__ == "__main__":
    main()
