"""Ladder of recorded models on InterCode-SQL against committees: dollars and success, chosen and counted apart.

    python tests/benchmarks/bench_sql_ladder.py [--splits 200]

Rungs are models (no recorded data has one model at several efforts): Qwen2.5-Coder 0.5B, 1.5B, gpt-3.5-turbo, GPT-4. A
rung gives its samples and takes the question where enough of them return the same rows. Thresholds are chosen on one
half of the questions (questions with one gold query stay on one side), the cheapest whose success is GPT-4's at least,
and counted with the verdicts on the other half; so are those of committees. Intervals are over questions, paired with
GPT-4.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from itertools import product
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np

from agentcascade.envs.intercode_sql import prices, shipped
from agentcascade.envs.recorded.prices import Price
from tests.benchmarks.bench_sql_committees import given

SMALL, MIDDLE, LARGE, TOP = "qwen2.5-coder-0.5b", "qwen2.5-coder-1.5b", "gpt-3.5-turbo", "gpt-4"
SIZES = (3, 5, 10)


class Vote(NamedTuple):
    """By question: votes of the most frequent rows of the first n samples, whether they are right, dollars."""

    n: int
    top: np.ndarray
    right: np.ndarray
    dollars: np.ndarray


Played = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Of each question: right, dollars, whether the last rung was asked"""
Said = tuple[str | None, float, float]
"""Rows, right, dollars"""


def vote(model: str, n: int, ids: list[str], known: dict[str, Price]) -> Vote:
    top, right, dollars = [], [], []
    for id in ids:
        answers, prompt = given(model, id)
        drawn = answers[:n]
        counts = Counter(a.rows for a in drawn if a.rows is not None)
        rows, votes = counts.most_common(1)[0] if counts else (None, 0)
        top.append(votes)
        right.append(bool(votes) and next(a.right for a in drawn if a.rows == rows))
        dollars.append(float(known[model].dollars(prompt, sum(a.output_tokens or 0 for a in drawn))))
    return Vote(n, np.array(top), np.array(right, float), np.array(dollars))


def climb(rungs: list[tuple[Vote, int]], top: Vote) -> Played:
    open_ = np.ones(len(top.right), bool)
    right, dollars = np.zeros(len(open_)), np.zeros(len(open_))
    for asked, needed in rungs:
        dollars += open_ * asked.dollars
        takes = open_ & (asked.top >= needed)
        right[takes] = asked.right[takes]
        open_ &= ~takes
    right[open_] = top.right[open_]
    return right, dollars + open_ * top.dollars, open_


def committee(first: dict[str, list[Said]], members: tuple[str, ...], needed: int, top: Vote) -> Played:
    """One sample of each; ties go to the first that votes."""
    right, dollars, open_ = np.zeros(len(top.right)), np.zeros(len(top.right)), np.zeros(len(top.right), bool)
    for i in range(len(top.right)):
        said = [first[m][i] for m in members]
        dollars[i] = sum(d for _, _, d in said)
        counts = Counter(rows for rows, _, _ in said if rows is not None)
        rows, votes = counts.most_common(1)[0] if counts else (None, 0)
        open_[i] = votes < needed
        right[i] = top.right[i] if open_[i] else next(r for rows_, r, _ in said if rows_ == rows)
        dollars[i] += top.dollars[i] * open_[i]
    return right, dollars, open_


def interval(difference: np.ndarray, groups: np.ndarray) -> str:
    sums = np.bincount(groups, weights=difference)
    sizes = np.bincount(groups)
    mean, c = difference.mean(), len(sums)
    spread = np.sqrt(((sums - mean * sizes) ** 2).sum() * c / (c - 1)) / len(difference)
    return f"{mean:+.3f} [{mean - 1.96 * spread:+.3f}, {mean + 1.96 * spread:+.3f}]"


def line(name: str, found: Played, top: Vote, groups: np.ndarray) -> None:
    right, dollars, open_ = found
    cost = dollars / top.dollars.mean()
    print(
        f"{name:58s} right {right.mean():.3f}  vs GPT-4 {interval(right - top.right, groups)}  "
        f"cost {cost.mean():.3f} of GPT-4's ({interval(cost - top.dollars / top.dollars.mean(), groups)})  "
        f"GPT-4 asked {open_.mean():.2f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--splits", type=int, default=200)
    splits = parser.parse_args().splits
    known = prices.table()
    ids = [str(task) for task in shipped.rows()]
    models = (SMALL, MIDDLE, LARGE, TOP)
    _, groups = np.unique([shipped.rows()[int(id)].group for id in ids], return_inverse=True)
    top = vote(TOP, 1, ids, known)
    counts = {m: min(len(given(m, id)[0]) for id in ids) for m in models}
    print(f"{len(ids)} questions, {groups.max() + 1} groups; samples {counts}; GPT-4 right {top.right.mean():.3f}, "
          f"${top.dollars.mean():.5f} a question")  # fmt: skip
    first = {
        m: [(a[0].rows, float(a[0].right), float(known[m].dollars(p, a[0].output_tokens or 0)))
            for a, p in (given(m, id) for id in ids)]
        for m in models
    }  # fmt: skip
    votes = {(m, n): vote(m, n, ids, known) for m in (SMALL, MIDDLE) for n in SIZES if n <= counts[m]}
    large = vote(LARGE, min(2, counts[LARGE]), ids, known)
    candidates = {}
    for n in SIZES:
        if n > min(counts[SMALL], counts[MIDDLE]):
            continue
        needs = range(n // 2 + 1, n + 2)  # n + 1: never
        for a, b, c in product(needs, needs, (large.n, large.n + 1)):
            rungs = [(votes[SMALL, n], a), (votes[MIDDLE, n], b), (large, c)]
            kept = [(v, k) for v, k in rungs if k <= v.n]
            name = " > ".join(f"{m} {k}/{v.n}" for m, (v, k) in zip(("0.5B", "1.5B", "gpt-3.5"), rungs) if k <= v.n)
            if kept:
                candidates[f"ladder {name} > GPT-4"] = climb(kept, top)
    pools = {
        f"committee {k} of {len(m)}: {'+'.join(('0.5B', '1.5B', 'gpt-3.5')[models.index(x)] for x in m)} > GPT-4":
        committee(first, m, k, top)
        for m, k in (((SMALL, MIDDLE), 2), ((MIDDLE, LARGE), 2), ((SMALL, MIDDLE, LARGE), 2),
                     ((SMALL, MIDDLE, LARGE), 3))
    }  # fmt: skip
    line("GPT-4 alone", (top.right, top.dollars, np.ones(len(ids), bool)), top, groups)
    for name, found in pools.items():
        line(name, found, top, groups)
    best = sorted(candidates, key=lambda n: candidates[n][1].mean())
    fine = [n for n in best if candidates[n][0].mean() >= top.right.mean()]
    print("cheapest ladders that are right as often as GPT-4, on all questions (chosen after looking):")
    for name in fine[:4]:
        line(name, candidates[name], top, groups)
    print(f"chosen on one half, counted on the other, {splits} splits (mean, 2.5 to 97.5 %):")
    for what, pool in (("ladder", candidates), ("committee", pools)):
        gained, spent = [], []
        for seed in range(splits):
            order = np.random.default_rng(seed).permutation(groups.max() + 1)
            half = np.isin(groups, order[: len(order) // 2])
            base = top.right[half].mean()
            allowed = [n for n, f in pool.items() if f[0][half].mean() >= base]
            chosen = min(allowed, key=lambda n: pool[n][1][half].mean(), default=None)
            right, dollars, _ = pool[chosen] if chosen else (top.right, top.dollars, None)
            gained.append((right - top.right)[~half].mean())
            spent.append(dollars[~half].sum() / top.dollars[~half].sum())
        for name, values in (("right - GPT-4", gained), ("cost / GPT-4", spent)):
            low, high = np.percentile(values, [2.5, 97.5])
            print(f"  {what:10s} {name:14s} {np.mean(values):+.3f} [{low:+.3f}, {high:+.3f}]")


if __name__ == "__main__":
    main()
