"""What recorded runs of real models say: are rewards reproduced, what is an action key worth, does retrieval help?

    INTERCODE_DATA=../shared/data/intercode_sql python tests/benchmarks/bench_intercode_sql.py [--failed 400]

Rewards: GPT-4's and GPT-3.5's recorded statements, run in our SQLite databases, against the rewards that InterCode gave
on MySQL. Keys: all statements of both models and the gold ones, task by task. Retrieval: for tasks that GPT-3.5 failed,
whether a demonstration by GPT-4 (never of the same gold answer) has what GPT-3.5's last query lacked, against chance.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from collections import Counter, defaultdict
from contextlib import closing
from functools import cache
from itertools import combinations
from math import comb

from agentcascade.actions.sql import SUBMIT, canonical_sql, parser, statement_of
from agentcascade.assembly import components
from agentcascade.bank.bank import Bank
from agentcascade.envs.intercode_sql import tasks
from agentcascade.envs.intercode_sql.readonly_database import ReadOnlyDatabase
from agentcascade.envs.intercode_sql.rewards import rows_reward
from agentcascade.envs.intercode_sql.runs import RecordedRun, recorded_runs
from agentcascade.errors import InvalidAction
from agentcascade.storage import open_database
from agentcascade.types import Situation, Step, Trajectory

NAMES = {"gpt-4": "GPT-4, told its reward", "gpt-3.5-turbo": "GPT-3.5, ReAct"}
SKILLS = (
    *("Join", "Group", "Having", "Order", "Limit", "Distinct", "Union", "Intersect", "Except", "Subquery", "Like"),
    *("In", "Not", "Or", "Between", "Count", "Sum", "Avg", "Max", "Min"),
)


class Databases:
    def __init__(self) -> None:
        self._open: dict[str, ReadOnlyDatabase] = {}

    def __getitem__(self, name: str) -> ReadOnlyDatabase:
        if name not in self._open:
            self._open[name] = ReadOnlyDatabase(tasks.database_folder() / f"{name}.sqlite")
        return self._open[name]


def queries(run: RecordedRun) -> list[str]:
    found = (statement_of(action) for action in run.actions)
    return [s for s in found if s.lower() != SUBMIT]


def rewards(databases: Databases) -> None:
    for name, title in NAMES.items():
        same: Counter[str] = Counter()
        steps = like = 0
        for task, run in recorded_runs(name).items():
            question = tasks.load_tasks()[task]
            database = databases[question.db]
            gold = database.run(question.gold)
            answers = [database.run(q) for q in queries(run)]
            ours = [rows_reward(a.rows, gold.rows) for a in answers]
            if name == "gpt-4":
                steps += len(ours)
                like += sum(abs(a - b) < 0.006 for a, b in zip(ours, run.rewards))
            mine = max(ours, default=0.0) if name == "gpt-4" else (ours or [0.0])[-1]
            if (mine == 1) == (run.reward == 1):
                same["solved by both" if mine == 1 else "solved by neither"] += 1
                continue
            place = run.rewards.index(max(run.rewards)) if run.reward == 1 else ours.index(max(ours))
            shown = run.observations[place] if name == "gpt-4" else run.observations[-1]
            same[reason(answers[place if name == "gpt-4" else -1], gold.rows, shown, mine)] += 1
        total = sum(same.values())
        agree = same["solved by both"] + same["solved by neither"]
        print(f"\n## {title}: {agree} of {total} tasks have the recorded verdict ({agree / total:.3f})")
        if steps:
            print(f"   {like} of {steps} turns have the recorded reward ({like / steps:.3f})")
        for why, number in same.most_common():
            print(f"   {number:5d} {why}")


def reason(answer: object, gold: object, recorded: str, mine: float) -> str:
    """Why a verdict differs, as far as it can be told from the answers."""
    rows, error = getattr(answer, "rows", None), getattr(answer, "error", "")
    if rows is None:
        return f"differs: our database rejects it ({error.split(':')[0][:40]})"
    if mine == 1:
        return "differs: MySQL rejected the gold query or typed its numbers otherwise, ours does not"
    if isinstance(gold, list) and sorted(map(str, rows)) == sorted(map(str, gold)):
        return "differs: the same rows in another order, where no ORDER BY says which"
    if str(rows)[: len(recorded)] == recorded[: len(str(rows))]:
        return "differs: the same answer as recorded, another one of the gold query"
    return "differs: other rows"


def keys(databases: Databases) -> None:
    """Pairs of distinct statements of one task."""
    pairs: Counter[tuple[bool, bool]] = Counter()
    wrong: list[tuple[str, str]] = []
    invalid = 0
    for task, question in enumerate(tasks.load_tasks()):
        database = databases[question.db]
        said = {question.gold.rstrip("; ")}
        for name in NAMES:
            said |= {*queries(recorded_runs(name)[task])} if task in recorded_runs(name) else set()
        known = []
        for statement in sorted(said):
            try:
                answer = database.run(statement)
                if answer.rows is not None:
                    known.append((statement, canonical_sql(statement), str(answer.rows)))
            except InvalidAction:
                invalid += 1
        for (one, key, rows), (other, key_, rows_) in combinations(known, 2):
            if " ".join(one.split()).lower() == " ".join(other.split()).lower():
                continue
            pairs[key == key_, rows == rows_] += 1
            if key == key_ and rows != rows_:
                wrong.append((one, other))
    right, missed = pairs[True, True], pairs[False, True]
    print(f"\n## SQL keys on {sum(pairs.values()):,} pairs of different texts that ran, within a task")
    print(f"   merged by their text alone: {right} right, {pairs[True, False]} wrong")
    print(f"   same rows, not merged: {missed}; the layer of result sets merges those too ({invalid} did not parse)")
    for one, other in wrong[:5]:
        print(f"   wrong: {one!r} = {other!r}")


@cache
def skills(statement: str, tables: bool = False) -> frozenset[str]:
    """Constructs of a query, and its tables."""
    sqlglot, exp = parser()
    try:
        tree = sqlglot.parse_one(statement, read="mysql")
    except sqlglot.errors.SqlglotError:
        return frozenset()
    if not isinstance(tree, exp.Query):
        return frozenset()
    found = {name for name in SKILLS if tree.find(getattr(exp, name)) is not None}
    if len(list(tree.find_all(exp.Select))) > 1:
        found.add("Subquery")
    if tables:
        found |= {f"table {t.name.lower()}" for t in tree.find_all(exp.Table)}
    return frozenset(found)


async def retrieval(failed: int, k: int) -> None:
    questions, teacher, student = tasks.load_tasks(), recorded_runs("gpt-4"), recorded_runs("gpt-3.5-turbo")
    with tempfile.TemporaryDirectory() as folder, closing(open_database(f"sqlite:///{folder}/b.db")) as database:
        embedder = components.make_embedder("minilm")
        bank = Bank(database, embedder, components.make_retriever("exact", 3 * embedder.dimension))
        won = [task for task, run in teacher.items() if run.reward == 1]
        await bank.add_many([trajectory(task, questions[task], teacher[task]) for task in won])
        taught = {task: [*map(statement_of, teacher[task].actions)] for task in won}
        lost = [task for task, run in student.items() if run.reward < 1][:failed]
        for title, tables in (("constructs (JOIN, GROUP BY, ...)", False), ("constructs and tables", True)):
            counts: dict[str, Counter[str]] = defaultdict(Counter)
            chance: dict[str, float] = defaultdict(float)
            for task in lost:
                question, run = questions[task], student[task]
                said = [q for q in queries(run) if skills(q)] or [""]
                lacking = skills(question.gold, tables) - skills(said[-1], tables)
                if not lacking:
                    continue
                observation = run.observations[-1]
                own = {t for t in won if questions[t].db == question.db and same_gold(questions[t], question)}
                for where in ("any", "same", "other"):
                    fit = {t for t in won if t not in own and in_place(where, questions[t].db, question.db)}
                    if len(fit) < k:
                        continue
                    situation = Situation(goal=question.query, observation=observation[:350])
                    found = (await bank.retrieve(situation, 400)).demonstrations
                    shown = [d for d in found if int(d.trajectory.split("-")[1]) in fit][:k]
                    has = any(lacking <= union([s.action for s in d.steps], tables) for d in shown)
                    counts[where]["tasks"] += 1
                    counts[where]["retrieved"] += has
                    good = sum(lacking <= union(taught[t], tables) for t in fit)
                    chance[where] += 1 - comb(len(fit) - good, k) / comb(len(fit), k)
            print(f"\n## Retrieval, k = {k}: a demonstration has all {title} that GPT-3.5's last query lacked")
            for where, count in counts.items():
                n = count["tasks"]
                found_, random_ = count["retrieved"] / n, chance[where] / n
                ratio = found_ / random_ if random_ else float("inf")
                print(
                    f"   from {where:>5} database: {n} failed tasks lack something; retrieved {found_:.3f}, random "
                    f"{random_:.3f} ({ratio:.1f} x)"
                )


def same_gold(one: tasks.SqlTask, other: tasks.SqlTask) -> bool:
    return one.gold.rstrip("; ").lower() == other.gold.rstrip("; ").lower()


def in_place(where: str, one: str, other: str) -> bool:
    return where == "any" or (one == other) == (where == "same")


def union(statements: list[str], tables: bool) -> set[str]:
    return set().union(*(skills(statement_of(s), tables) for s in statements)) if statements else set()


def trajectory(task: int, question: tasks.SqlTask, run: RecordedRun) -> Trajectory:
    before = [f"The MySQL database is `{question.db}`.", *run.observations]
    steps = [Step(observation=o[:350], action=f"execute[{statement_of(a)}]") for o, a in zip(before, run.actions)]
    return Trajectory(id=f"task-{task}", goal=question.query, steps=tuple(steps), success=True, model="recorded/gpt-4")


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--failed", type=int, default=10_000)
    arguments.add_argument("--k", type=int, default=3)
    options = arguments.parse_args()
    databases = Databases()
    rewards(databases)
    keys(databases)
    asyncio.run(retrieval(options.failed, options.k))


if __name__ == "__main__":
    main()
