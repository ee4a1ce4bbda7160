"""Is the certificate true, and what is it worth? On real samples, on logs whose truth is known, and how fast.

    python tests/benchmarks/bench_tune.py [--data ../shared/data/multi_sample] [--splits 200] [--steps 1000000]

Real samples: 200 random half-splits; a rule is certified on one half and held against the other. Synthetic logs: the
true risk of every rule is known, so that violations (a certified rule with more than the allowed risk) and power (cost
against the best rule that knew the truth) can be counted, with steps of one episode alike. Speed: 1,000,000 steps.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.stats import binomtest

from agentcascade.routers.tuning.columns import Arm, Columns, columns
from agentcascade.routers.tuning.costs import Bill
from agentcascade.routers.tuning.families import SIZES
from agentcascade.routers.tuning.replay import replay
from agentcascade.routers.tuning.risks import Risk, losses
from agentcascade.routers.tuning.rules import Rule, TeacherAlone, Threshold
from agentcascade.routers.tuning.tuner import Settings, search
from agentcascade.steplog.jsonl import read_jsonl

DATA = Path(__file__).parents[2].parent / "shared" / "data" / "multi_sample"


def interval(bad: int, of: int) -> str:
    low, high = binomtest(bad, of).proportion_ci(0.95)
    return f"{bad}/{of} = {bad / of:.3f} ({low:.3f} to {high:.3f})"


def frontier(name: str, log: Columns) -> None:
    print(f"\n## {name}: frontier, one call for n, a sample costs 0.02 teacher answers, averaged over all subsets")
    print(f"{'rule':>10} {'student':>8} {'wrong':>7} {'≠teacher':>8} {'accuracy':>8} {'cost':>6} {'staged':>6}")
    for n in (1, 2, 3, 5, 8, 10):
        for needed in sorted({n, n - 1, (n // 2) + 1} & set(range(1, n + 1)), reverse=True):
            row = replay(log, Threshold(n, needed), [Bill("one-call"), Bill("staged")])
            assert row.accuracy is not None
            costs = row.by_sampling
            risks = f"{row.risks['wrong']:7.3f} {row.risks['teacher-disagreement']:8.3f}"
            print(
                f"{row.rule.name:>10} {row.acceptance:8.3f} {risks} {row.accuracy:8.3f} {costs['one-call']:6.3f} "
                f"{costs['staged']:6.3f}"
            )


def half_splits(name: str, log: Columns, splits: int) -> None:
    print(f"\n## {name}: {splits} half-splits, confidence 0.95; held-out risk of the chosen rule above the bound in")
    rng = np.random.default_rng(0)
    for kind in ("wrong", "teacher-disagreement"):
        for bound in (0.05, 0.10):
            settings = Settings(max_risk=bound, risk=Risk(kind))
            above = whole = chosen = 0
            gains, held, accepts = [], [], []
            for _ in range(splits):
                order = rng.permutation(len(log))
                tuned = search([log.take(np.sort(order[: len(log) // 2]))], settings)
                if tuned.chosen is None:
                    continue
                chosen += 1
                rest = log.take(np.sort(order[len(log) // 2 :]))
                rule = tuned.chosen.rule
                found = losses(rest, rule.on(rest), settings.risk)
                above += found.drawn_loss.mean() > bound
                whole += losses(log, rule.on(log), settings.risk).risk > bound
                row = replay(rest, rule, [Bill(tuned.sampling)])
                gains.append(row.saving.value)
                accepts.append(row.acceptance)
                held.append(found.risk)
            print(
                f"{kind:>21} R = {bound:.2f}: {interval(above, splits)}; risk on all 400 above R: {whole}; a rule in "
                f"{chosen}, mean held-out risk {np.mean(held):.3f}, student acts {np.mean(accepts):.3f}, "
                f"saving {np.mean(gains):.3f}"
            )


def synthetic(
    episodes: int,
    rng: np.random.Generator,
    *,
    steps: int = 1,
    alike: float = 0.0,
    loops: bool = False,
    most: int = 5,
    hard: float = 0.35,
) -> Columns:
    """Episodes of up to `steps` steps; `alike`: the share of a step's difficulty that its episode decides; `loops`: and
    the harder it is, the longer it gets.

    Every step has a chance that a sample is right, and a temptation: how alike the wrong samples are.
    """
    lengths = np.ones(episodes, int) if steps == 1 else rng.integers(1, steps + 1, episodes)
    cluster = np.repeat(np.arange(episodes), lengths)
    n = len(cluster)
    shared = (lengths / steps if loops else rng.random(episodes))[cluster]
    own = rng.random(n)
    level = np.where(rng.random(n) < alike, shared, own)
    right = np.clip(1.25 - level / (1 - hard) * 0.6, 0.02, 0.995)
    tempting = rng.beta(1, 3, n)[:, None]
    hit = rng.random((n, most)) < right[:, None]
    wrong = np.where(rng.random((n, most)) < tempting, 1, rng.integers(2, 6, (n, most)))
    codes = np.where(hit, 0, wrong).astype(np.int16)
    codes[rng.random((n, most)) < 0.02] = -1
    codes, gold = _numbered(codes)
    return Columns(
        arm=Arm(),
        codes=codes,
        gold=gold,
        teacher=gold,
        teacher_right=np.ones(n, np.int8),
        success=np.full(n, -1, np.int8),
        cluster=cluster.astype(np.int64),
        weight=np.ones(n),
        position=np.zeros(n, np.int32),
        similarity=np.full(n, np.nan),
        logprob=np.empty((n, 0)),
        category=np.zeros(n, np.int32),
        tool=np.zeros((n, 8), np.int16),
        names={"tool": [""], "category": [""]},
    )


def _numbered(codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Classes by first appearance, in a table with room for them all; and which of them was 0."""
    n, most = codes.shape
    names = np.full((n, 7), -1, np.int16)  # by old class
    seen = np.zeros(n, np.int16)
    found = np.full((n, 8), -2, np.int16)
    rows = np.arange(n)
    for j in range(most):
        old = codes[:, j]
        new = (old >= 0) & (names[rows, old] < 0)
        names[rows[new], old[new]] = seen[new]
        seen[new] += 1
        found[:, j] = np.where(old < 0, -1, names[rows, old])
    return found, np.where(names[:, 0] < 0, 8, names[:, 0]).astype(np.int16)


def truth(rules: Sequence[Rule], risk: Risk, **shape: float) -> dict[str, tuple[float, float]]:
    """By rule: (risk, cost) on 200,000 steps that no test ever sees."""
    log = synthetic(round(200_000 / (1 + shape.get("steps", 1)) * 2), np.random.default_rng(12345), **shape)  # type: ignore[arg-type]
    found = {}
    for rule in rules:
        outcome = rule.on(log)
        found[rule.name] = losses(log, outcome, risk).risk, float(Bill().steps(log, outcome).mean())
    return found


def validity(runs: int) -> None:
    """The bounds: one below which several rules lie, and the worst one for a test, just under the risk of a rule."""
    print(f"\n## Synthetic logs, {runs} each, 0.95 sure: a certified rule's true risk is above R in (at most 0.05)")
    print("   cost: of the chosen rule, in teacher answers; best: of the cheapest rule whose true risk is at most R")
    sizes = tuple(n for n in SIZES if n <= 5)
    rules = [Threshold(n, k) for n in sizes for k in range(1, n + 1)] + [Threshold(1, 1)]
    shapes: list[tuple[str, dict[str, float], int]] = [
        ("one step an episode", {}, 300),
        ("one step an episode", {}, 2000),
        ("1-10 steps, independent", {"steps": 10}, 300),
        ("1-10 steps, all alike", {"steps": 10, "alike": 1.0}, 300),
        ("1-10 steps, all alike", {"steps": 10, "alike": 1.0}, 2000),
        ("1-20 steps, long are hard", {"steps": 20, "alike": 1.0, "loops": True}, 300),
        ("1-20 steps, long are hard", {"steps": 20, "alike": 1.0, "loops": True}, 2000),
    ]
    for name, shape, episodes in shapes:
        kinds = [(Risk(), 0.05), (Risk(count="selective"), 0.10), (Risk("episode-loss"), 0.20)]
        kinds += [(Risk(weigh="episodes"), 0.05)] if shape else []
        for risk, usual in kinds:
            true = truth(rules, risk, **shape)
            worst = min(r for r, _ in true.values() if r > usual) * 0.999
            for bound in (usual, worst):
                best = min([cost for r, cost in true.values() if r <= bound] + [1.0])
                exact = not shape or risk.kind == "episode-loss"
                for test in ("binomial", "hoeffding-bentkus", "betting") if exact else ("hoeffding-bentkus", "betting"):
                    _validity(
                        name, shape, episodes, Settings(bound, risk=risk, test=test, sizes=sizes), true, best, runs
                    )


def _validity(
    name: str,
    shape: dict[str, float],
    episodes: int,
    settings: Settings,
    true: dict[str, tuple[float, float]],
    best: float,
    runs: int,
) -> None:
    bad = found = 0
    costs = []
    for seed in range(runs):
        tuned = search([synthetic(episodes, np.random.default_rng(seed), **shape)], settings)  # type: ignore[arg-type]
        bad += any(true[c.rule.name][0] > settings.max_risk for c in tuned.certified)
        found += tuned.chosen is not None
        costs.append(true[tuned.chosen.rule.name][1] if tuned.chosen else 1.0)
    risk = settings.risk
    print(
        f"{name:>25} {episodes:5d} {risk.kind[:12]:>12} {risk.count:9} {risk.weigh:8} R={settings.max_risk:.3f} "
        f"{tuned.test:>17}: violations {interval(bad, runs)}; a rule in {found}; cost {np.mean(costs):.3f}, "
        f"best {best:.3f}",
        flush=True,
    )


def speed(steps: int, rules: int) -> None:
    log = synthetic(steps // 10 * 2, np.random.default_rng(0), steps=9, alike=0.5, most=8)
    log = log.take(np.arange(min(steps, len(log))))
    tried = [Threshold(n, k) for n in range(1, 9) for k in range(1, n + 1)]
    tried = (tried * (rules // len(tried) + 1))[:rules]
    started = time.perf_counter()
    for rule in tried:
        replay(log, rule)
    took = time.perf_counter() - started
    print(f"\n## Speed: {len(log):,} steps x {rules} rules replayed in {took:.1f} s (goal 60)")
    one = TeacherAlone()
    started = time.perf_counter()
    tuned = search([log], Settings(max_risk=0.05, risk=Risk()))
    took = time.perf_counter() - started
    print(f"   tune on it: {len(tuned.candidates)} rules, {len(tuned.certified)} certified, {took:.1f} s; {one.name}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--splits", type=int, default=200)
    parser.add_argument("--runs", type=int, default=400)
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--rules", type=int, default=200)
    options = parser.parse_args()
    for path in sorted(options.data.glob("*.jsonl")):
        log = columns(read_jsonl(path))
        frontier(path.stem, log)
        half_splits(path.stem, log, options.splits)
    if options.runs:
        validity(options.runs)
    if options.steps:
        speed(options.steps, options.rules)


if __name__ == "__main__":
    main()
