"""What is not thrown away on a deferral, and prompts that differ between samples: measured on recorded answers.

    INTERCODE_DATA=data/intercode python tests/benchmarks/bench_drafts.py [drafts] [feedback] [spread]

drafts: Qwen2.5-Coder-1.5B (Q4_K_M, llama.cpp on a CPU, temperature 0) as the teacher of the 0.5B, on questions of
InterCode-SQL, drawn at random, on which three samples of the 0.5B did not agree: without drafts, and with these three
behind the question as `prompt.teacher_sees_drafts` shows them. The answers are in drafts.jsonl.xz; each is judged by
the rows that it returns. feedback: InterCode's recordings of models that were told that their first query failed, and
why: what the second was worth. spread: does agreement of three samples tell right from wrong better where they come
from two prompts (with and without demonstrations)? Recorded samples at temperature 0.8; needs no data.
"""

from __future__ import annotations

import json
import lzma
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from agentcascade.envs.intercode_sql import shipped
from agentcascade.envs.intercode_sql.readonly_database import ReadOnlyDatabase
from agentcascade.envs.intercode_sql.rewards import rows_reward
from agentcascade.envs.intercode_sql.tasks import data_file, database_folder, load_tasks

ANSWERS = Path(__file__).parent / "drafts.jsonl.xz"
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


def vote(results: Sequence[tuple[object, int | None]]) -> Vote:
    """The share of the largest class of results, and whether it is right."""
    counts: dict[str, int] = defaultdict(int)
    right: dict[str, bool] = {}
    for result, _ in results:
        if rows := getattr(result, "rows", None):
            counts[rows] += 1
            right[rows] = bool(getattr(result, "right", False))
    if not counts:
        return 0.0, False
    top = max(counts, key=lambda rows: counts[rows])
    return counts[top] / len(results), right[top]


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


PARTS = {"drafts": drafts, "feedback": feedback, "spread": spread}

if __name__ == "__main__":
    for name in sys.argv[1:] or PARTS:
        print(f"# {name}")
        PARTS[name]()
