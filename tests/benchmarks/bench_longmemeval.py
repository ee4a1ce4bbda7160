"""Memory of LongMemEval's size: questions with haystacks of 115,000 tokens each, indexed and asked with all tiers low.

    python tests/benchmarks/bench_longmemeval.py [--questions 500] [--embedder minilm] [--store histories.db]

Each question's history is appended, embedded, asked once, and stays: what the process holds is bounded by
`memory.max_histories` and `memory.max_held_tokens`, and printed as it grows. With `--store` histories, vectors and
recalls are in that SQLite file, else in a temporary one; `--stored no` keeps histories in the process.

Texts are generated in the published file's shape (`longmemeval_shaped.py`), or read from `--data FILE`. The embedder
`hashing` costs next to nothing: it shows memory and the rest of indexing for all 500; MiniLM's share is shown on fewer.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np

from agentcascade.assembly.memory import build_memory
from agentcascade.config.load import CascadeConfig
from agentcascade.envs.memory_qa import longmemeval
from agentcascade.routers.tier.baselines import FixedTiers
from tests.benchmarks import longmemeval_shaped

GOAL_GB, GOAL_RECALL_MS = 2.0, 50


def conversations(data: Path | None, questions: int, sessions: int) -> Iterator[Any]:
    if data:
        yield from longmemeval.iterate_conversations(data)
        return
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "one.json"
        for entry in longmemeval_shaped.entries(questions, sessions):
            file.write_text(json.dumps([entry]))
            yield from longmemeval.iterate_conversations(file)


def resident() -> float:
    """GB of the process now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e9


async def play(options: argparse.Namespace, store: str) -> None:
    settings = CascadeConfig.model_validate(
        {"retrieval": {"embedder": options.embedder}, "bank": {"url": store}, "memory": {}}
    )
    with build_memory(settings, router=FixedTiers("low"), stored=options.stored == "yes") as memory:
        await memory.append("warm", ["One line."])
        await memory.recall("What is one?", "warm")
        indexing = cpu = 0.0
        recalls, lines, tokens, right, began = [], 0, 0, 0, time.perf_counter()
        print(f"before: {resident():.2f} GB")
        for number, own in enumerate(conversations(options.data, options.questions, options.sessions), 1):
            started, cpu_started = time.perf_counter(), time.process_time()
            await memory.append(own.id, own.turns)
            lines += await memory.prepare(own.id)
            indexing += time.perf_counter() - started
            cpu += time.process_time() - cpu_started
            question = own.questions[0]
            recall = await memory.recall(question.text, own.id, asked_at=question.asked_at)
            started = time.perf_counter()
            recall = await memory.recall(question.text + " Tell me.", own.id, asked_at=question.asked_at)
            recalls.append(1000 * (time.perf_counter() - started))
            right += bool(set(question.evidence) & set(recall.sources))
            tokens += sum(memory.count(turn.text) for turn in own.turns) if number <= 5 else tokens // (number - 1)
            if number % options.every == 0 or number == options.questions:
                p50, p99 = np.percentile(recalls, [50, 99])
                print(
                    f"{number:4} histories, {lines:,} lines, {tokens / 1e6:.1f}M tokens: {resident():.2f} GB; indexing "
                    f"{lines / indexing:.0f} lines, {tokens / indexing:,.0f} tokens a second ({cpu / number:.2f} s CPU "
                    f"a history); recall all low, warm: p50 {p50:.1f} ms, p99 {p99:.1f} ms; evidence found for {right}",
                    flush=True,
                )
            if number == options.questions:
                break
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        each = indexing / len(recalls)
        print(
            f"{len(recalls)} of 500 questions in {time.perf_counter() - began:.0f} s: indexing one takes {each:.2f} s, "
            f"so 500 take {500 * each / 60:.0f} minutes; peak memory of the process {peak:.2f} GB (goal "
            f"{GOAL_GB:.0f} GB); "
            f"recall p50 {np.percentile(recalls, 50):.1f} ms (goal {GOAL_RECALL_MS})"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=20)
    parser.add_argument("--sessions", type=int, default=50, help="of each question; 50 are about 115,000 tokens")
    parser.add_argument("--every", type=int, default=10, help="histories between two lines")
    parser.add_argument("--embedder", default="minilm")
    parser.add_argument("--data", type=Path, help="longmemeval_s.json")
    parser.add_argument("--stored", choices=("yes", "no"), default="yes")
    parser.add_argument("--store", help="SQLite file or URL, kept")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(play(options, options.store or str(Path(folder) / "memory.db")))


if __name__ == "__main__":
    main()
