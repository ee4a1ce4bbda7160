"""What is not thrown away on a deferral, and prompts that differ between samples: measured on recorded answers.

    INTERCODE_DATA=data/intercode python tests/benchmarks/bench_drafts.py [drafts] [feedback] [spread] [varied]

drafts: Qwen2.5-Coder-1.5B (Q4_K_M, llama.cpp on a CPU, temperature 0) as the teacher of the 0.5B, on questions of
InterCode-SQL, drawn at random, on which three samples of the 0.5B did not agree: without drafts, and with these three
behind the question as `prompt.teacher_sees_drafts` shows them. The answers are in drafts.jsonl.xz; each is judged by
the rows that it returns. feedback: InterCode's recordings of models that were told that their first query failed, and
why: what the second was worth. spread: does agreement of three samples tell right from wrong better where they come
from two prompts (with and without demonstrations)? Recorded samples at temperature 0.8; needs no data. varied: the same
of `sampling.vary`, three samples each: of one prompt at temperature 0.8, of three orders or three subsets of its three
demonstrations at 0 and at 0.8. Qwen2.5-Coder-0.5B (Q4_K_M, llama.cpp on a CPU), questions of InterCode-SQL drawn at
random, demonstrations of the nearest other questions in short templates, schemas without rows: 400 tokens of prompt.
The first sample of `order` at 0.8 is that of `same`. Answers and verdicts are in vary.jsonl.xz; needs no data. By rows
votes are what queries return, by text the canonical statements.
"""

from __future__ import annotations

import json
import lzma
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from agentcascade.actions.sql import canonical_sql
from agentcascade.envs.intercode_sql import shipped
from agentcascade.envs.intercode_sql.readonly_database import ReadOnlyDatabase
from agentcascade.envs.intercode_sql.results import Result
from agentcascade.envs.intercode_sql.rewards import rows_reward
from agentcascade.envs.intercode_sql.tasks import data_file, database_folder, load_tasks
from agentcascade.errors import InvalidAction

ANSWERS, VARIED = (Path(__file__).parent / name for name in ("drafts.jsonl.xz", "vary.jsonl.xz"))
ARMS = {
    "one prompt, T = .8": [("same", 0), ("same", 1), ("same", 2)],
    "orders, T = 0": [("order0", 0), ("order0", 1), ("order0", 2)],
    "orders, T = .8": [("same", 0), ("order8", 1), ("order8", 2)],
    "subsets, T = 0": [("subsets0", 0), ("subsets0", 1), ("subsets0", 2)],
    "subsets, T = .8": [("subsets8", 0), ("subsets8", 1), ("subsets8", 2)],
}
"""Samples of each way to vary, by name in the file and number."""
TOLD = {
    "text-bison": "schema text-bison",
    "chat-bison": "schema chat-bison",
    "gpt-3.5-turbo": "schema gpt-3.5-turbo-retry",
}
ROUNDS = 2_000


def interval(values: Sequence[float]) -> str:
    """Mean with a bootstrap interval of 95 %."""
    data, rng = np.array(values, float), np.random.default_rng(0)
    means = data[rng.integers(0, len(data), (ROUNDS, len(data)))].mean(axis=1)
    return f"{data.mean():.3f} [{np.quantile(means, 0.025):.3f}, {np.quantile(means, 0.975):.3f}]"


def query_of(text: str) -> str:
    """The statement without a Markdown fence, which sampling left open behind the semicolon."""
    inner = text.split("```")[1].removeprefix("sql") if "```" in text else text
    return inner.strip().rstrip(";")


def drafts() -> None:
    tasks, folder = load_tasks(), database_folder()
    right: dict[str, dict[int, float]] = defaultdict(dict)
    tokens: dict[str, list[int]] = defaultdict(list)
    for line in lzma.decompress(ANSWERS.read_bytes()).splitlines():
        answer = json.loads(line)
        task = tasks[answer["task"]]
        database = ReadOnlyDatabase(folder / f"{task.db}.sqlite", seconds=3.0)
        given, gold = database.run(query_of(answer["text"])), database.run(task.gold)
        right[answer["variant"]][answer["task"]] = float(rows_reward(given.rows, gold.rows) == 1.0)
        tokens[answer["variant"]].append(answer["prompt_tokens"])
    for variant, verdicts in right.items():
        print(
            f"{variant:6} {len(verdicts)} questions, right {interval(list(verdicts.values()))}, "
            f"{np.mean(tokens[variant]):.0f} tokens of prompt"
        )
    change = [right["drafts"][task] - right["plain"][task] for task in right["plain"]]
    print(f"drafts against plain: {change.count(1)} better, {change.count(-1)} worse, difference {interval(change)}")


def feedback() -> None:
    for model, file in TOLD.items():
        runs = json.loads(data_file(file).read_text(encoding="utf-8")).values()
        failed = [run["turn_history"] for run in runs if _failed(run["turn_history"], 0)]
        told = [history for history in failed if len(history["observations"]) > 1]
        valid = [float(not _failed(history, 1)) for history in told]
        right = [float(history["rewards"][1] == 1.0) for history in told]
        same = sum(history["actions"][0] == history["actions"][1] for history in told)
        print(
            f"{model:14} first query failed {len(failed)} of {len(runs)}; told why: valid {interval(valid)}, "
            f"right {interval(right)}, the same query again {same}"
        )


def _failed(history: dict[str, list[str]], turn: int) -> bool:
    return len(history["observations"]) > turn and str(history["observations"][turn]).startswith("Error")


Vote = tuple[float, bool]


def spread() -> None:
    rows = [row.models for row in shipped.rows().values()]
    plain, shown = "qwen2.5-coder-1.5b", "qwen2.5-coder-1.5b-demos"
    print(f"{len(rows)} questions: AUROC of the agreement of samples; share and rightness of what is unanimous")
    for n in (3, 4, 6):
        arms = {"plain": (n, 0), "demonstrations": (0, n), "mixed": (n // 2, n - n // 2)}
        votes = {
            name: [vote([*row[plain].results[:a], *row[shown].results[:b]]) for row in rows]
            for name, (a, b) in arms.items()
        }
        for name, cast in votes.items():
            whole = [right for share, right in cast if share == 1.0]
            print(f"{n} samples, {name:14} {auroc(cast):.3f}; {len(whole) / len(cast):.3f}, {np.mean(whole):.3f}")
        for other in ("plain", "demonstrations"):
            print(f"  mixed against {other}: {difference(votes['mixed'], votes[other], auroc)}")


def varied_answers() -> dict[int, dict[tuple[str, int], dict[str, Any]]]:
    """By task, arm and number."""
    found: dict[int, dict[tuple[str, int], dict[str, Any]]] = defaultdict(dict)
    for line in lzma.decompress(VARIED.read_bytes()).splitlines():
        answer = json.loads(line)
        found[answer["task"]][answer["arm"], answer["n"]] = answer
    return found


def text_key(answer: dict[str, Any]) -> str | None:
    try:
        return canonical_sql(answer["text"], "mysql", True)
    except InvalidAction:
        return None


def varied() -> None:
    answers = varied_answers()
    print(f"{len(answers)} questions, {len({shipped.rows()[task].group for task in answers})} gold queries")
    for by, key in (("rows", lambda answer: answer["rows"]), ("text", text_key)):
        votes = {
            name: [ballot([(key(own[one]), own[one]["right"]) for one in drawn]) for own in answers.values()]
            for name, drawn in ARMS.items()
        }
        base, *others = ARMS
        for name, cast in votes.items():
            whole = [float(right) for share, right in cast if share == 1.0]
            print(
                f"by {by}: {name:18} AUROC {auroc(cast):.3f}; the vote is right {np.mean([r for _, r in cast]):.3f}; "
                f"unanimous {len(whole) / len(cast):.3f}, right of those {interval(whole)}"
            )
        for other in others:
            print(f"  {other} against {base}: AUROC {difference(votes[other], votes[base], auroc)}")


def ballot(votes: Sequence[tuple[object, bool]]) -> Vote:
    """The share of the largest class, None being no vote, and whether it is right."""
    counts: dict[object, int] = defaultdict(int)
    right: dict[object, bool] = {}
    for key, fine in votes:
        if key is not None:
            counts[key] += 1
            right.setdefault(key, fine)
    if not counts:
        return 0.0, False
    top = max(counts, key=lambda key: counts[key])
    return counts[top] / len(votes), right[top]


def vote(results: Sequence[tuple[Result, int | None]]) -> Vote:
    return ballot([(result.rows or None, result.right) for result, _ in results])


def auroc(votes: Sequence[Vote]) -> float:
    scores, labels = np.array([share for share, _ in votes]), np.array([right for _, right in votes])
    _, place, number = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(number) - (number - 1) / 2)[place]
    yes, no = labels.sum(), (~labels).sum()
    return float((ranks[labels].sum() - yes * (yes + 1) / 2) / (yes * no))


def difference(one: Sequence[Vote], other: Sequence[Vote], score: Callable[[Sequence[Vote]], float]) -> str:
    rng = np.random.default_rng(0)
    found = []
    for _ in range(500):
        drawn = rng.integers(0, len(one), len(one))
        found.append(score([one[i] for i in drawn]) - score([other[i] for i in drawn]))
    low, high = np.quantile(found, (0.025, 0.975))
    return f"{score(one) - score(other):+.3f} [{low:+.3f}, {high:+.3f}]"


PARTS = {"drafts": drafts, "feedback": feedback, "spread": spread, "varied": varied}

if __name__ == "__main__":
    for name in sys.argv[1:] or PARTS:
        print(f"# {name}")
        PARTS[name]()
