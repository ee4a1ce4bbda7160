"""Prompt caches: dollars by class of the teacher alone, of the cascade as it was, and as it is, on recorded episodes.

Run: python tests/benchmarks/bench_caching.py [--data gpt-4o-airline.json] [--episodes 60] [--long 6] [--agree 0.75]

1. Real episodes of an agent with tools (tau-bench airline, gpt-4o: `--data`; left out where the file is absent).
2. Generated long ones: 60 steps of tool results, to some 50,000 tokens, with deferrals in runs.

The conversations are as recorded: every model says what the agent said. There is no real student: it agrees at a share
of the steps that is drawn by seed (`--agree`), so the shares are assumed and the dollars are what the parts make of
them. Providers are simulated in this process and keep their caches by the published rules: OpenAI's in blocks of 128
tokens from 1,024 on; Anthropic's where breakpoints are, looking back over 20 blocks; both by the time between steps.
Prices are litellm's list. Demonstrations are windows of other episodes that succeeded, k = 6.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count as numbers
from itertools import pairwise
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
sys.path.insert(0, str(Path(__file__).parents[2]))

from agentcascade.bank.bank import Bank
from agentcascade.cascade import Cascade
from agentcascade.config.load import CascadeConfig
from agentcascade.models.pricing import PriceTable
from agentcascade.models.tokens import token_counter
from agentcascade.retrievers.hashing import HashEmbedder
from agentcascade.retrievers.numpy_index import ExactRetriever
from agentcascade.routers.step.consistency import Unanimity
from agentcascade.step.context import StepContext
from agentcascade.storage import open_database
from agentcascade.types import Decision, Message, Step, Trajectory, Usage
from tests.cascades import Recorder
from tests.prompt_caches import Clock, MeteredModel

DATA = Path(__file__).parents[3] / "shared/data/tau_bench/gpt-4o-airline.json"
PAIRS = (
    ("openai/gpt-4.1", "openai/gpt-4.1-mini"),
    ("anthropic/claude-sonnet-4-5", "openai/gpt-4.1-mini"),
    ("anthropic/claude-sonnet-4-5", "anthropic/claude-haiku-4-5"),
)
BEFORE: dict[str, Any] = {"caching": False, "prompt": {"place": "first"}}
POLICIES: dict[str, dict[str, Any]] = {
    "teacher alone, unmarked": {"mode": "teacher", "caching": False},
    "teacher alone, cached": {"mode": "teacher"},
    "cascade before": BEFORE,
    "cascade now": {},
    "… and sticky: auto": {"retrieval": {"sticky": "auto"}},
    "… and latch: auto": {"router": {"latch": "auto"}},
}


@dataclass(frozen=True)
class Trace:
    """A recorded conversation, and what is drawn for each of its steps."""

    id: str
    messages: list[Message]
    accepts: list[bool]
    pauses: list[float]

    def steps(self) -> Iterator[tuple[int, Message]]:
        """(messages before it, the answer) of each step."""
        return ((i, m) for i, m in enumerate(self.messages) if m["role"] == "assistant")


def drawn(id: str, messages: list[Message], agree: float, runs: float, seed: int) -> Trace:
    """A trace whose student agrees at a share of the steps; `runs`: probability that a step is as the one before."""
    generator = random.Random(f"{id}:{seed}")
    accepts: list[bool] = []
    pauses = []
    for i, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        again = accepts and generator.random() < runs
        accepts.append(accepts[-1] if again else generator.random() < agree)
        asked_a_person = i > 0 and messages[i - 1]["role"] == "user"
        pauses.append(generator.expovariate(1 / 45) if asked_a_person else generator.expovariate(1 / 6))
    return Trace(id, messages, accepts, pauses)


def recorded(path: Path, episodes: int, agree: float, seed: int) -> tuple[list[Trace], list[Trajectory]]:
    runs = json.loads(path.read_text())
    traces = [
        drawn(f"tau-{run['task_id']}-{run['trial']}", [plain(m) for m in run["traj"]], agree, 0.0, seed)
        for run in runs
        if run["trial"] > 0
    ]
    bank = [banked(run) for run in runs if run["trial"] == 0 and run["reward"] == 1.0]
    return traces[:episodes], bank


def plain(message: Message) -> Message:
    return {
        k: v for k, v in message.items() if v is not None and k in ("role", "content", "tool_calls", "tool_call_id")
    }


def banked(run: dict[str, Any]) -> Trajectory:
    messages, steps = run["traj"], []
    for before, message in pairwise(messages):
        if message["role"] == "assistant":
            calls = message.get("tool_calls") or []
            action = "; ".join(f"{c['function']['name']}({c['function']['arguments']})" for c in calls)
            steps.append(Step(observation=str(before["content"])[:1500], action=action or str(message["content"])))
    return Trajectory(goal=str(messages[1]["content"])[:300], steps=tuple(steps), success=True)


def generated(episodes: int, agree: float, seed: int) -> list[Trace]:
    """Coding-agent-shaped: a long system prompt, 60 calls of tools whose results are some 800 tokens each."""
    made = []
    for i in range(episodes):
        generator = random.Random(f"long:{seed}:{i}")
        words = [f"name{generator.randrange(5000)}" for _ in range(20_000)]
        messages: list[Message] = [
            {"role": "system", "content": "You mend programs. " + " ".join(words[:1200])},
            {"role": "user", "content": f"Mend the failing test number {i}. " + " ".join(words[1200:1400])},
        ]
        for step in range(60):
            call = {"id": f"call{step:05}", "type": "function", "function": {
                "name": "read_file", "arguments": json.dumps({"path": f"src/{words[step]}.py"})}}  # fmt: skip
            start = 1400 + 200 * step
            messages.append({"role": "assistant", "content": "", "tool_calls": [call]})
            messages.append(
                {"role": "tool", "tool_call_id": call["id"], "content": " ".join(words[start : start + 200])}
            )
        made.append(drawn(f"long-{i}", messages, agree, 0.8, seed))
    return made


class Play:
    """One policy on traces, with its own providers."""

    def __init__(self, teacher: str, student: str, bank: Bank, changes: dict[str, Any]) -> None:
        prices, count = PriceTable(), token_counter()
        self.clock, self.accept, self.others = Clock(), True, numbers()
        self.answer: Message = {}
        self.teacher = MeteredModel(lambda i: self.answer, teacher, prices.lookup(teacher), self.clock, count)
        self.student = MeteredModel(self.sample, student, prices.lookup(student), self.clock, count,
                                    supports_n=student.startswith("openai/"))  # fmt: skip
        sections = {"mode": "cascade", "retrieval": {}, **changes}
        sections["retrieval"] = {"k": 6, **sections["retrieval"]}
        self.cascade = Cascade(
            StepContext(
                config=CascadeConfig(**sections),
                router=Unanimity(3),
                count=count,
                teacher=self.teacher,
                student=self.student,
                bank=bank,
                recorder=Recorder(),
                clock=self.clock,
            )
        )

    def sample(self, i: int) -> Message:
        return self.answer if self.accept else {"role": "assistant", "content": f"no agreement {next(self.others)}"}

    async def run(self, traces: Sequence[Trace]) -> list[Decision]:
        decisions: list[Decision] = []
        for trace in traces:
            self.clock.now += 1_000
            episode = self.cascade.episode(id=trace.id)
            for (i, answer), accept, pause in zip(trace.steps(), trace.accepts, trace.pauses):
                self.clock.now += pause
                self.answer, self.accept = answer, accept
                await episode.complete(trace.messages[:i])
            decisions += episode.decisions
        return decisions


def tell(name: str, decisions: Sequence[Decision], episodes: int) -> None:
    calls = [c for d in decisions for c in d.calls]
    of = {role: [c for c in calls if c.role == role] for role in ("teacher", "student")}
    tokens = {}
    for role, own in of.items():
        usage = sum((c.usage for c in own), Usage())
        tokens[role] = f"{usage.input:>11,} {usage.cached_input:>11,} {usage.cache_write:>11,} {usage.output:>8,}"
    spent = [float(sum(c.dollars or 0 for c in own)) for own in of.values()]
    regret = float(sum(d.cache_regret or 0 for d in decisions))
    alone = float(sum(d.teacher_dollars or 0 for d in decisions))
    print(
        f"{name:25} ${sum(spent) / episodes:8.4f}  teacher ${spent[0] / episodes:8.4f} {tokens['teacher']}"
        f"  student ${spent[1] / episodes:8.4f} {tokens['student']}  alone ${alone / episodes:8.4f}"
        f"  regret ${regret / episodes:7.4f}"
    )


async def compare(
    title: str, traces: Sequence[Trace], trajectories: Sequence[Trajectory], pairs: Sequence[Any]
) -> None:
    steps = sum(len(t.accepts) for t in traces)
    share = sum(sum(t.accepts) for t in traces) / steps
    print(f"\n{title}: {len(traces)} episodes, {steps} steps, the student agrees at {share:.0%}")
    print("dollars per episode; tokens in all: input, cached, written, output")
    database = open_database("sqlite:///:memory:")
    bank = Bank(database, HashEmbedder(256), ExactRetriever(768))
    await bank.add_many(list(trajectories))
    for teacher, student in pairs:
        print(f"\n{teacher} + {student}")
        for name, changes in POLICIES.items():
            play = Play(teacher, student, bank, changes)
            tell(name, await play.run(traces), len(traces))
    database.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--episodes", type=int, default=60)
    parser.add_argument("--long", type=int, default=6)
    parser.add_argument("--agree", type=float, default=0.75)
    parser.add_argument("--pairs", type=int, nargs="*", default=range(len(PAIRS)))
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    pairs = [PAIRS[i] for i in chosen.pairs]
    trajectories: list[Trajectory] = []
    if chosen.data.exists():
        traces, trajectories = recorded(chosen.data, chosen.episodes, chosen.agree, chosen.seed)
        asyncio.run(compare("tau-bench airline", traces, trajectories, pairs))
    else:
        print(f"{chosen.data} is not here: the recorded episodes are left out")
    long = generated(chosen.long, chosen.agree, chosen.seed)
    source = [Trajectory(goal="mend a test", success=True, steps=tuple(
        Step(observation=t.messages[i - 1]["content"][:1500], action=m["tool_calls"][0]["function"]["arguments"])
        for i, m in list(t.steps())[:20])) for t in generated(4, 1.0, 99)]  # fmt: skip
    asyncio.run(compare("generated, long", long, trajectories + source, pairs))


if __name__ == "__main__":
    main()
