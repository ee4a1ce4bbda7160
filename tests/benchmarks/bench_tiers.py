"""One tier decision: microseconds of every tier router, and as a multiple of fixed tiers in the same run.

Run: python tests/benchmarks/bench_tiers.py [--questions 2000] [--dimension 384]

Each question is new to the router and has five decisions, in the order of the pipeline: one before and one after the
three that read the same chunks. The bandits have learned from 1,000 examples, which is timed as well; the policy has
the weights that training begins with or, where `--policy` names a checkpoint, those.
"""

from __future__ import annotations

import argparse
import math
import os
import random
import sys
import time
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np
from numpy.typing import NDArray

from agentcascade.memory.types import State, TierRouter
from agentcascade.types import MODULES, TIERS

TARGET = 50.0
STAGES = (0, 1, 1, 1, 2)
"""Which vector each module would read."""


def unit(rng: np.random.Generator, dimension: int) -> NDArray[np.float32]:
    drawn = rng.standard_normal(dimension).astype(np.float32)
    made: NDArray[np.float32] = drawn / np.linalg.norm(drawn)
    return made


def questions(count: int, dimension: int, seed: int) -> list[list[State]]:
    """The five states of each question."""
    rng, draws = np.random.default_rng(seed), random.Random(seed)
    people = ["Ann", "Bob", "Caroline", "Melanie", "Joanna", "Nate"]
    forms = [
        "When did {0} go to the lake with {1}, {2} weeks before or after the wedding?",
        "How many books about {2} birds has {0} read since {1} moved?",
        "Why would {0} rather have {2} dogs than {1}'s cat?",
        "Where does {0} live, {2}?",
    ]
    found = []
    for _ in range(count):
        text = draws.choice(forms).format(*draws.sample(people, 2), draws.randrange(10_000))
        query, reads = unit(rng, dimension), [unit(rng, dimension) * np.float32(0.7) for _ in range(3)]
        found.append([State(text, query, reads[stage]) for stage in STAGES])
    return found


def fresh_policy(dimension: int) -> TierRouter:
    from agentcascade.routers.tier.policy import HEAD, SHAPES, WIDTH, PolicyRouter

    sizes = {"width": WIDTH, "head": HEAD, "dimension": dimension, "state": 2 * dimension, "both": 2 * WIDTH}
    sizes |= {"modules": len(MODULES), "tiers": len(TIERS)}
    rng = np.random.default_rng(0)
    weights = {}
    for name, parts in SHAPES.items():
        shape = [sizes[part] for part in parts]
        weights[name] = (rng.standard_normal(shape) / math.sqrt(shape[-1])).astype(np.float32)
    return PolicyRouter.of(weights, {"encoder": "none"})


def fresh_values(dimension: int) -> TierRouter:
    from agentcascade.memory.combinations import COMBINATIONS
    from agentcascade.routers.tier.values import ValueRouter

    rng = np.random.default_rng(0)
    weights = {
        "mean": np.zeros(dimension, dtype=np.float32),
        "weights": rng.standard_normal((2 * COMBINATIONS, dimension)).astype(np.float32),
        "constants": np.zeros(2 * COMBINATIONS, dtype=np.float32),
    }
    return ValueRouter.of(weights, {"encoder": "none", "dimension": dimension, "reward": {"scale": 1.0}})


def made(dimension: int, policy: str | None) -> dict[str, TierRouter]:
    """All that are registered."""
    found: dict[str, TierRouter] = {}
    for entry in sorted(entry_points(group="agentcascade.tier_routers"), key=lambda e: e.name):
        if entry.name == "values":
            found[entry.name] = fresh_values(dimension)
            continue
        options = {"path": policy} if entry.name == "policy" else {}
        bare = entry.name == "policy" and policy is None
        found[entry.name] = fresh_policy(dimension) if bare else entry.load()(**options)
    return {"fixed": found.pop("fixed"), **found}


def taught(bandit: Any, dimension: int, count: int = 1000) -> float:
    """Microseconds of one update."""
    draws = random.Random(0)
    seen = questions(count // 5, dimension, seed=1)
    started = time.perf_counter()
    for states in seen:
        for module, state in zip(MODULES, states):
            bandit.update(module, state, draws.choice(TIERS), draws.random(), draws.random())
    return (time.perf_counter() - started) / count * 1e6


def decisions(router: TierRouter, asked: list[list[State]]) -> NDArray[np.float64]:
    """Microseconds of each."""
    clock, spent = time.perf_counter_ns, []
    for states in asked:
        for module, state in zip(MODULES, states):
            started = clock()
            router.probabilities(module, state, 0.3)
            spent.append(clock() - started)
    return np.array(spent) / 1000


def main(count: int, dimension: int, policy: str | None) -> None:
    routers = made(dimension, policy)
    updates = {name: taught(r, dimension) for name, r in routers.items() if hasattr(r, "update")}
    asked = questions(count, dimension, seed=0)
    for router in routers.values():
        decisions(router, questions(50, dimension, seed=2))
    spent = {name: decisions(router, asked) for name, router in routers.items()}
    base = np.median(spent["fixed"])
    print(f"{count:,} questions, five decisions each, vectors of {dimension} dimensions, target p50 {TARGET:.0f} µs")
    print(f"{'router':10} {'p50 µs':>8} {'p95 µs':>8} {'p99 µs':>8} {'× fixed':>8} {'update µs':>10}")
    for name, figures in spent.items():
        p50, p95, p99 = np.percentile(figures, [50, 95, 99])
        update = f"{updates[name]:10.1f}" if name in updates else f"{'':10}"
        print(f"{name:10} {p50:8.2f} {p95:8.2f} {p99:8.2f} {p50 / base:8.1f} {update}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=2000)
    parser.add_argument("--dimension", type=int, default=384)
    parser.add_argument("--policy", help="a checkpoint of a trained policy")
    chosen = parser.parse_args()
    main(chosen.questions, chosen.dimension, chosen.policy)
