"""What fencing the demonstrations costs: tokens and dollars of ALFWorld episodes, and microseconds of a prompt.

Run: python tests/benchmarks/bench_quoting.py [--episodes 20] [--demos 30]

The models are the offline stand-ins, which read the same demonstrations either way and draw the same answers: accuracy
and steps must be equal, and what differs are the marks' tokens. Hostile texts cost more: a space for every token of a
chat template, and a mark for every line that imitates the prompt.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import timeit
from pathlib import Path

from agentcascade.models.tokens import token_counter
from agentcascade.prompts import demonstrations
from agentcascade.prompts.prompts import DEFAULT, UNQUOTED, Prompts
from agentcascade.prompts.transcripts import render_demonstration
from agentcascade.types import Demonstration, Step

FIELDS = ("accuracy", "steps", "deferral_share", "dollars_per_episode")


def played(quoting: str, episodes: int, demos: int) -> dict[str, float]:
    """The line of policy ``cascade``."""
    with tempfile.TemporaryDirectory() as folder:
        asked = ["bench", "alfworld", "--policy", "cascade", "--quoting", quoting, "--embedder", "hashing"]
        asked += ["--episodes", str(episodes), "--demos", str(demos), "--out", folder]
        done = subprocess.run([sys.executable, "-m", "agentcascade", *asked], capture_output=True, text=True)
        if done.returncode:
            sys.exit(done.stderr[-2000:])
        results = json.loads((Path(folder) / "results.json").read_text())
    (line,) = (row for row in results["policies"] if row["policy"] == "cascade")
    return {name: line[name] for name in FIELDS}


def marks() -> None:
    """The tokens that six demonstrations of five steps get, and the time that a prompt takes."""
    text = "You arrive at countertop 1. On the countertop 1, you see a mug 1, a plate 2 and a knife 1. " * 2
    step = Step(
        observation=text, reasoning="I need a mug, and there is one here.", action="take mug 1 from countertop 1"
    )
    shown = [
        Demonstration(
            trajectory=f"t{i}", goal="put a mug on the desk", start=0, steps=(step,) * 5, match=0, length=9, score=1.0
        )
        for i in range(6)
    ]
    count = token_counter()
    messages = [{"role": "user", "content": "Your task is to: put a clean plate in the fridge."}]
    for name, prompts in (("plain", UNQUOTED), ("fenced", DEFAULT)):
        content = demonstrations.build(messages, shown, budget=10**6, count=count, prompts=prompts).messages[0][
            "content"
        ]
        once = timeit.timeit(lambda: rendered(shown, prompts), number=200)  # noqa: B023
        print(f"{name:<8} {count(str(content)):>6,} tokens  {once / 200 * 1e6:>6.0f} µs to render")


def rendered(shown: list[Demonstration], prompts: Prompts) -> str:
    return demonstrations.render([(d, render_demonstration(d, prompts)) for d in shown], prompts)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--episodes", type=int, default=20)
    parser.add_argument("--demos", type=int, default=30)
    asked = parser.parse_args()
    marks()
    for quoting in ("plain", "fenced"):
        print(quoting, played(quoting, asked.episodes, asked.demos))


if __name__ == "__main__":
    main()
