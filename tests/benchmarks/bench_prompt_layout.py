"""Where the task stands beside demonstrations: real answers of a small model, judged by what the queries return.

    INTERCODE_DATA=data/intercode python tests/benchmarks/bench_prompt_layout.py

Qwen2.5-Coder-1.5B-Instruct (Q4_K_M, llama.cpp on a CPU, temperature 0) answered questions of InterCode-SQL, drawn at
random, with the schema in the prompt. plain: no demonstrations. behind: three of GPT-4's right answers to other
questions quoted behind the question, which ended with "Continue your own task from here". restated: the same, and the
question once more behind them, as `agentcascade.prompts` does now. The answers are in prompt_layout.jsonl.xz.
"""

from __future__ import annotations

import json
import lzma
from collections import defaultdict
from math import comb
from pathlib import Path

from agentcascade.envs.intercode_sql.readonly_database import ReadOnlyDatabase
from agentcascade.envs.intercode_sql.rewards import rows_reward
from agentcascade.envs.intercode_sql.tasks import database_folder, load_tasks

ANSWERS = Path(__file__).parent / "prompt_layout.jsonl.xz"


def query_of(text: str) -> str:
    """The statement without a Markdown fence and the last semicolon."""
    inner = text.split("```")[1].removeprefix("sql") if "```" in text else text
    return inner.strip().rstrip(";")


def sign_test(wins: int, losses: int) -> float:
    """Two-sided exact p-value of as uneven a split."""
    n, k = wins + losses, min(wins, losses)
    return min(1.0, 2 * sum(comb(n, i) for i in range(k + 1)) / 2.0**n)


def main() -> None:
    tasks, folder = load_tasks(), database_folder()
    right: dict[str, dict[int, bool]] = defaultdict(dict)
    tokens: dict[str, list[int]] = defaultdict(list)
    for line in lzma.decompress(ANSWERS.read_bytes()).splitlines():
        answer = json.loads(line)
        task = tasks[answer["task"]]
        database = ReadOnlyDatabase(folder / f"{task.db}.sqlite", seconds=3.0)
        given, gold = database.run(query_of(answer["text"])), database.run(task.gold)
        right[answer["variant"]][answer["task"]] = rows_reward(given.rows, gold.rows) == 1.0
        tokens[answer["variant"]].append(answer["prompt_tokens"])
    for variant, verdicts in right.items():
        share, mean = sum(verdicts.values()) / len(verdicts), sum(tokens[variant]) / len(verdicts)
        print(f"{variant:10} {len(verdicts)} questions, right {share:.3f}, {mean:.0f} tokens of prompt")
    for one, other in (("behind", "plain"), ("restated", "plain"), ("restated", "behind")):
        wins = sum(right[one][i] and not right[other][i] for i in right[one])
        losses = sum(right[other][i] and not right[one][i] for i in right[one])
        print(f"{one} against {other}: {wins} better, {losses} worse, sign test p = {sign_test(wins, losses):.3f}")


if __name__ == "__main__":
    main()
