"""Students on one's own machine, through the real vLLM: reading with and without prefix caching, what sticky
demonstrations do for the cache, what constrained answers do for a student that cannot act.

    AGENTCASCADE_VLLM=~/vllm-env python tests/benchmarks/bench_students.py [EPISODES]

The student is a tiny Qwen2 with random weights, made here: it shows that path, bills and cache are right, and wins
nothing by itself. Figures of speed are this machine's and this model's.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from agentcascade.vllm.engine import Engine, EngineSettings, is_vllm_environment, launch_command
from agentcascade.vllm.throughput import measure_throughput, read_gauges

MAKE = Path(__file__).parents[1] / "tiny_model.py"
WORDS = 1500
COMMON = ("--max-tokens", "300", "--demos", "10", "--k", "3", "--workers", "1")


@contextmanager
def serving(folder: Path, *, prefix_caching: bool = True) -> Iterator[Engine]:
    """A fresh engine, whose cache is empty."""
    settings = EngineSettings(
        str(folder / "tiny"),
        "tiny",
        max_model_len=32768,
        cpu_memory=2,
        prefix_caching=prefix_caching,
        extra=("--enforce-eager",),
    )
    engine = Engine(launch_command(None), settings, folder / "log")
    try:
        engine.wait(600)
        yield engine
    finally:
        engine.stop()


def play(engine: Engine, folder: Path, episodes: int, policy: str, *options: str) -> list[dict[str, Any]]:
    """The decisions of the policy's episodes, from the command that a user types."""
    out = folder / f"{policy}{''.join(options)}"
    command = [sys.executable, "-m", "agentcascade", "bench", "alfworld", "--student", "hosted_vllm/tiny"]
    command += ["--api-base", engine.api_base, "--episodes", str(episodes), "--policy", policy, "--out", str(out)]
    done = subprocess.run([*command, *COMMON, *options], capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    rows = [json.loads(line) for line in (out / "episodes.jsonl").read_text().splitlines()]
    mine = [row for row in rows if row.get("policy") == policy]
    lost = Counter(row["error"].split(":")[0] for row in mine if row.get("error"))
    print(
        f"  {policy} {' '.join(options)}: {sum(r['success'] for r in mine)} of {len(mine)} episodes solved", dict(lost)
    )
    return [decision for row in mine for decision in row["decisions"]]


def cached(decisions: list[dict[str, Any]]) -> str:
    """The share of the student's prompt tokens that its answers report as cached."""
    usages = [c["usage"] for d in decisions for c in d.get("calls", ()) if c["role"] == "student"]
    read, fresh = (sum(u.get(name, 0) for u in usages) for name in ("cached_input", "input"))
    return f"{read / max(1, read + fresh):.1%} of {read + fresh:,}"


def main(episodes: int) -> None:
    named = os.environ.get("AGENTCASCADE_VLLM")
    if not named or not is_vllm_environment(Path(named)):
        print("no vLLM: AGENTCASCADE_VLLM names its virtual environment")
        return
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        subprocess.run([Path(named) / "bin" / "python", MAKE, folder / "tiny"], check=True, capture_output=True)
        for prefix_caching in (True, False):
            with serving(folder, prefix_caching=prefix_caching) as engine:
                found = asyncio.run(measure_throughput([engine.api_base], "tiny", prompt_words=WORDS))
                kept = "on" if prefix_caching else "off"
                rates = f"read {found.input:,.0f}, read again {found.cached_input:,.0f}, written {found.output:,.0f}"
                print(f"prefix caching {kept}, {WORDS} words, 8 at once: tokens a second {rates}")
        for sticky in ("never", "always"):
            with serving(folder) as engine:
                decisions = play(engine, folder, episodes, "cascade", "--sticky", sticky)
                seen = read_gauges(engine.api_base)
                share = seen["prefix_cache_hits_total"] / seen["prefix_cache_queries_total"]
                print(f"    prompt tokens from the cache: /metrics {share:.1%}; usage {cached(decisions)}")
        with serving(folder) as engine:
            for options in ((), ("--constrain", "choice")):
                decisions = play(engine, folder, episodes, "student", *options)
                asked, unusable = (sum(d.get(name, 0) for d in decisions) for name in ("samples", "invalid_samples"))
                print(f"    answers with an action: {asked - unusable} of {asked}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 4)
