"""What is agreement worth on real agents? gpt-4o on tau-bench's airline tasks, 4 trials each, tool calls and rewards.

    python tests/benchmarks/bench_agreement.py [--data ../shared/data/tau_bench/gpt-4o-airline.json]

The simulated user says something else in every trial, so later calls are not asked the same: what is compared is the
first call of a tool, the first call that changes something, and the set of such calls of a whole trial.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from agentcascade.actions.base import ToolCallActions

DATA = Path(__file__).parents[2].parent / "shared" / "data" / "tau_bench" / "gpt-4o-airline.json"
READS = ("get_", "search_", "list_", "calculate", "think", "transfer_")
"""Tools whose names begin so change nothing."""


def keys(trial: dict[str, Any]) -> list[str]:
    """Action keys of all tool calls, in order."""
    calls = [m for m in trial["traj"] if m.get("role") == "assistant" and m.get("tool_calls")]
    return [ToolCallActions().parse(m).key for m in calls]


def first_call(trial: dict[str, Any]) -> str:
    return next(iter(keys(trial)), "none")


def first_tool(trial: dict[str, Any]) -> str:
    return first_call(trial).split("(")[0]


def first_write(trial: dict[str, Any]) -> str:
    return next((k for k in keys(trial) if not k.startswith(READS)), "none")


def all_writes(trial: dict[str, Any]) -> str:
    return " | ".join(sorted(k for k in keys(trial) if not k.startswith(READS))) or "none"


SIGNALS: dict[str, Callable[[dict[str, Any]], str]] = {
    "first tool called": first_tool,
    "first call, with arguments": first_call,
    "first call that changes something": first_write,
    "all calls that change something": all_writes,
}


def bootstrap(values: list[float], seed: int = 0) -> tuple[float, float]:
    drawn = np.random.default_rng(seed).choice(values, (4000, len(values))).mean(axis=1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(low), float(high)


def explained(levels: list[float], rewards: list[float]) -> str:
    """Variance of rewards between levels of agreement (adjusted for their number), and what full agreement picks."""
    level, reward = np.array(levels), np.array(rewards)
    means = {own: reward[level == own].mean() for own in levels}
    within = np.sum((reward - [means[own] for own in levels]) ** 2) / (len(rewards) - len(means))
    full = level == 1
    return (
        f"variance of the tasks' rewards explained: {1 - within / reward.var(ddof=1):.1%}; trusting full agreement "
        f"only: {full.mean():.0%} of tasks, {full @ reward / reward.sum():.0%} of the rewards"
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, default=DATA)
    tasks: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for trial in json.loads(parser.parse_args().data.read_text(encoding="utf-8")):
        tasks[trial["task_id"]].append(trial)
    rewards = {t: float(np.mean([x["reward"] for x in trials])) for t, trials in tasks.items()}
    every = float(np.mean([*rewards.values()]))
    print(f"{len(tasks)} tasks, {sum(map(len, tasks.values()))} trials, mean reward {every:.3f}")
    for name, signal in SIGNALS.items():
        agreement, majority, lone, idle = {}, [], [], set()
        for task, trials in tasks.items():
            counts = Counter(map(signal, trials))
            top, votes = counts.most_common(1)[0]
            agreement[task] = votes / len(trials)
            if top == "none":
                idle.add(task)
            if 1 < votes < len(trials):  # where trials differ: does the majority fare better than the others?
                majority += [x["reward"] for x in trials if signal(x) == top]
                lone += [x["reward"] for x in trials if signal(x) != top]
        print(f"\n{name}: mean agreement {np.mean([*agreement.values()]):.3f}")
        for level in sorted(set(agreement.values()), reverse=True):
            own = [rewards[t] for t in tasks if agreement[t] == level]
            low, high = bootstrap(own)
            print(
                f"  {level * 4:.0f} of 4: {len(own):2d} tasks, mean reward {np.mean(own):.3f} ({low:.3f} to {high:.3f})"
            )
        found = spearmanr([agreement[t] for t in tasks], [rewards[t] for t in tasks])
        print(f"  Spearman correlation with the task's reward {found.statistic:+.3f}, p = {found.pvalue:.2g}")
        print(f"  {explained([agreement[t] for t in tasks], [rewards[t] for t in tasks])}")
        if idle:  # that all refuse says which kind of task it is, not that an action is right
            acted = [t for t in tasks if t not in idle]
            own = [rewards[t] for t in acted if agreement[t] == 1]
            found = spearmanr([agreement[t] for t in acted], [rewards[t] for t in acted])
            print(
                f"  without the {len(idle)} tasks whose commonest answer is none (mean reward "
                f"{np.mean([rewards[t] for t in idle]):.3f}): correlation {found.statistic:+.3f}, "
                f"p = {found.pvalue:.2g}; 4 of 4: {len(own)} tasks" + (f", {np.mean(own):.3f}" if own else "")
            )
            print(f"  {explained([agreement[t] for t in acted], [rewards[t] for t in acted])}")
        if majority and lone:
            print(
                f"  where trials differ: reward of the majority {np.mean(majority):.3f}, of others {np.mean(lone):.3f}"
            )


if __name__ == "__main__":
    main()
