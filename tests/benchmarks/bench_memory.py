"""Memory on the real LoCoMo: indexing, recalls by tier, and training a router on the logged table.

    python tests/benchmarks/bench_memory.py --data locomo10.json [--log runs/sweep/log.npz] [--questions 30]

Recalls are measured with distinct questions on warm indexes, from question to memory: the embedding of the question
is in the figure. Ratios are against plain retrieval of the same questions in the same run.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")

import numpy as np

from agentcascade.assembly.memory import build_memory
from agentcascade.bench.memory.sweep import SweepPlan, collect_sweep
from agentcascade.bench.memory.training import question_embedder, train_router
from agentcascade.config.load import CascadeConfig
from agentcascade.envs.memory_qa import locomo
from agentcascade.memory.types import State
from agentcascade.routers.tier import log as tier_log
from agentcascade.routers.tier.baselines import FixedTiers
from agentcascade.routers.tier.ppo import Recipe
from agentcascade.types import MODULES


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="locomo10.json")
    parser.add_argument("--log", type=Path, help="of an earlier `agentcascade memory train`; else a sweep is made")
    parser.add_argument("--questions", type=int, default=30, help="of each conversation")
    parser.add_argument("--skip-policy", action="store_true", help="train the value router only")
    options = parser.parse_args()
    if options.data is None:
        print("skipped: --data takes LoCoMo's published locomo10.json")
        return
    conversations = locomo.load_conversations(options.data)
    asyncio.run(recalls(conversations, options.questions))
    training(conversations, options.log, options.skip_policy)


async def recalls(conversations: list[Any], most: int) -> None:
    with build_memory(CascadeConfig(), router=FixedTiers("low"), stored=False) as memory:
        started = time.perf_counter()
        for conversation in conversations:
            await memory.append(conversation.id, conversation.turns)
            await memory.prepare(conversation.id)
        turns = sum(len(c.turns) for c in conversations)
        print(
            f"indexing {len(conversations)} dialogues, {turns:,} turns: {time.perf_counter() - started:.1f} s (goal 60)"
        )
        asked = [(c.id, q.text) for c in conversations for q in c.questions[: 4 * most]]
        quarter = len(asked) // 4
        rng = np.random.default_rng(0)
        order = rng.permutation(len(asked))
        plain = [measure(partial(memory.question_context, q, h)) for h, q in (asked[i] for i in order[:quarter])]
        base = statistics.median(plain)
        print(f"plain retrieval: p50 {base:.1f} ms, p95 {np.quantile(plain, 0.95):.1f} ms ({len(plain)} questions)")
        for number, (tier, goal) in enumerate((("low", "10"), ("mid", "150"), ("high", "none")), 1):
            router = FixedTiers(tier)  # type: ignore[arg-type]
            own = [asked[i] for i in order[number * quarter : (number + 1) * quarter]]
            await memory.recall(own[0][1], own[0][0], router=router)
            took = []
            for history, question in own[1:]:
                before = time.perf_counter()
                await memory.recall(question, history, router=router)
                took.append((time.perf_counter() - before) * 1000)
            p50, p95 = statistics.median(took), np.quantile(took, 0.95)
            print(
                f"all-{tier}: p50 {p50:.1f} ms, p95 {p95:.1f} ms, {p50 / base:.1f} x plain retrieval (goal p50 {goal})"
            )


def training(conversations: list[Any], path: Path | None, skip_policy: bool) -> None:
    config = CascadeConfig()
    with tempfile.TemporaryDirectory() as folder:
        if path is None:
            started = time.perf_counter()
            log = collect_sweep(SweepPlan(config, conversations), Path(folder) / "sweep")
            print(
                f"sweep of {len(log.questions):,} questions, {len(log):,} rows: {time.perf_counter() - started:.0f} s"
            )
        else:
            log = tier_log.load_log(path)
        for kind in ("values",) if skip_policy else ("values", "policy"):
            started = time.perf_counter()
            embedder = question_embedder(config) if kind == "policy" else None
            outcome = train_router(log, Path(folder) / kind, kind, recipe=Recipe(), embedder=embedder)  # type: ignore[arg-type]
            passes = f", {len(outcome.history)} passes" if outcome.history else ""
            print(
                f"training {kind} on {len(log.questions):,} questions: {time.perf_counter() - started:.1f} s{passes} "
                "(goal 180)"
            )
            decisions(outcome.path, kind, log)


def decisions(path: Path, kind: str, log: Any) -> None:
    from agentcascade.bench.memory.inputs import open_router

    router = open_router(path, None)
    states = [State("", log.query[i], log.vectors[i].astype(np.float32)) for i in range(min(400, len(log.query)))]
    took = []
    for state in states:
        for module in MODULES:
            before = time.perf_counter()
            router.probabilities(module, state, 0.1)
            took.append((time.perf_counter() - before) * 1e6)
    print(
        f"one decision of {kind}: p50 {statistics.median(took):.0f} us, mean {statistics.mean(took):.0f} us (goal 50)"
    )


def measure(call: Callable[[], Any]) -> float:
    before = time.perf_counter()
    call()
    return (time.perf_counter() - before) * 1000


if __name__ == "__main__":
    main()
