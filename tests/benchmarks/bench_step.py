"""One step: what the decision adds to the model's own time, and what importing costs.

Run: python tests/benchmarks/bench_step.py [--steps 100000] [--parts overhead whole imports reading]

1. Decision overhead (`Decision.overhead_ms`: everything but the model calls and the embedding) with a bank of `--steps`
   steps in SQLite behind faiss, three agreeing samples (after 10 ms, with their usage, as a provider reports it), six
   demonstrations, records kept in the database.
   Six random windows each time: of trajectories that were not read yet, of such whose texts were not shown yet, and of
   such that this process has shown. Then behind histories of 10, 100 and 400 steps, each a step longer than the last.
   Beside it stands what a call of `Episode.complete` takes outside of the step: reading the situation, writing the
   record and making the response.
2. A whole step with one n=3 call, against a bare `litellm.acompletion` of the same messages, both to an HTTP server in
   another process that answers at once; taken in turn. The same with MiniLM embedding each new observation.
3. Import times, each the best of several fresh processes.
4. Reading the situation of a step behind a history of tool calls: an episode that keeps what it has parsed, against
   reading the whole conversation.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from decimal import Decimal
from itertools import islice
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np

import agentcascade
from agentcascade import conversation
from agentcascade.actions.base import AutoActions
from agentcascade.bank.windows import cut_window
from agentcascade.config.keywords import StudentKeywords
from agentcascade.prompts.demonstrations import fit
from agentcascade.protocols import ChatModel
from agentcascade.types import Completion, Message, Trajectory, Usage
from tests.benchmarks.bench_bank import STEPS_EACH, make, trajectories
from tests.benchmarks.bench_wrap import spy
from tests.fake_openai import FakeOpenAI, Reply

PARTS = ("imports", "reading", "whole", "overhead")
GOALS = {"p50": 0.7, "p99": 3.0}
"""Milliseconds of decision overhead."""
COLD, UNSHOWN, SHOWN, BEHIND = 150, 250, 1_100, 120
"""Steps that are measured: percentiles stand, and all parts together end within two minutes on two free cores."""
DELAY = 0.01
"""Seconds that the student takes: as with any model, the last step's records are written meanwhile."""
ANSWER = "Thought: It has to be washed, so the sink is next.\nAction: go to sink 1"


PROMPT_TOKENS, ANSWER_TOKENS = 2_000, 20


class Remote:
    """A model elsewhere: it answers `ANSWER` after `DELAY`, and says what was used; nothing is counted here."""

    name, supports_n = "remote", True

    def dollars(self, usage: Usage) -> Decimal | None:
        return None

    async def complete(self, messages: Sequence[Message], *, n: int = 1, **options: object) -> Completion:
        await asyncio.sleep(DELAY)
        return Completion(
            model=self.name,
            messages=({"role": "assistant", "content": ANSWER},) * n,
            finish_reasons=("stop",) * n,
            usage=Usage(input=PROMPT_TOKENS, output=n * ANSWER_TOKENS),
        )


def serve(pipe: Connection) -> None:
    usage = {"prompt_tokens": PROMPT_TOKENS, "completion_tokens": 3 * ANSWER_TOKENS}
    with FakeOpenAI([Reply(texts=(ANSWER,), usage=usage)]) as server:
        pipe.send(server.url)
        pipe.recv()


def percentiles(values: Sequence[float]) -> str:
    p50, p99 = np.percentile(values, [50, 99])
    return f"p50 {p50:.2f} ms, p99 {p99:.2f} ms"


def situations(count: int) -> list[list[dict[str, str]]]:
    """Conversations that end in an observation not seen before."""
    return [
        [
            {"role": "system", "content": "You act in a house."},
            {"role": "user", "content": f"Your task is to: put a clean mug {i % 50} on the desk"},
            {"role": "assistant", "content": ANSWER},
            {"role": "user", "content": f"You arrive at shelf {i % 9} of room {i}. You see a mug {i}."},
        ]
        for i in range(count)
    ]


def build(url: str, student: ChatModel | StudentKeywords, embedder: str) -> agentcascade.Cascade:
    return agentcascade.build(
        mode="cascade",
        teacher=agentcascade.ScriptedModel([ANSWER]),
        student=student,
        bank={"url": url},
        retrieval={"embedder": embedder},
        actions={"format": "react"},
    )


async def play(cascade: agentcascade.Cascade, conversations: list[list[dict[str, str]]]) -> list[tuple[float, float]]:
    """Milliseconds of overhead of a step behind each, and those that the call takes outside of the step."""
    taken = []
    for i, messages in enumerate(conversations):
        episode = cascade.episode(id=f"bench-{i}", goal=messages[1]["content"])
        started = time.perf_counter()
        await episode.complete(messages)
        seconds = time.perf_counter() - started
        (decision,) = episode.decisions
        assert decision.answered_by == "student", decision
        assert len(decision.demonstrations) == 6, decision
        taken.append((decision.overhead_ms, (seconds - decision.seconds) * 1000))
    return taken


async def play_on(cascade: agentcascade.Cascade, history: int, steps: int) -> list[float]:
    """Milliseconds of overhead of `steps` steps of one episode, the first of them behind `history` others."""
    messages: list[Message] = situations(1)[0][:2]
    episode = cascade.episode(id=f"long-{history}", goal=str(messages[1]["content"]))
    for i in range(history + steps):
        messages += [
            {"role": "assistant", "content": f"Thought: On to shelf {i}.\nAction: go to shelf {i}"},
            {"role": "user", "content": f"You arrive at shelf {i % 9} of room {history}-{i}. You see a mug {i}."},
        ]
        if i >= history:
            await episode.complete(list(messages))
    return [decision.overhead_ms for decision in episode.decisions]


def show_all(cascade: agentcascade.Cascade, trajectories: int) -> None:
    """Have every step of the bank rendered and counted once, as it is by being shown."""
    bank, context = cascade.bank, cascade.context
    assert bank is not None
    for pk in range(1, trajectories + 1):
        trajectory = bank._trajectories.get(pk)
        assert trajectory is not None
        for match in range(2, STEPS_EACH, 5):
            window = cut_window(trajectory, match, 0.5, before=2, after=2)
            fit([window], 100_000, context.count, context.prompts)


def overhead(steps: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{folder}/bank.db"
        from agentcascade.storage import open_database

        database = open_database(url)
        bank = make(database)
        started = time.perf_counter()
        for start in range(0, steps // STEPS_EACH, 500):
            asyncio.run(bank.add_many(trajectories(500, start)))
        bank.close()
        print(f"bank of {len(bank.retriever):,} steps, filled in {time.perf_counter() - started:.0f} s")
        with build(url, Remote(), "hashing:384") as cascade:
            cascade = cascade.twin(bank=bank)  # the same database, with vectors that cost nothing to make
            left = iter(situations(COLD + UNSHOWN + SHOWN))
            cold = asyncio.run(play(cascade, list(islice(left, COLD))))
            bank._load(range(1, steps // STEPS_EACH + 1))
            unshown = asyncio.run(play(cascade, list(islice(left, UNSHOWN))))
            show_all(cascade, steps // STEPS_EACH)
            shown = asyncio.run(play(cascade, list(left)))
            behind = {n: asyncio.run(play_on(cascade, n, BEHIND + 20))[20:] for n in (10, 100, 400)}
        goals = ", ".join(f"{name} {goal} ms" for name, goal in GOALS.items())
        overheads, outside = zip(*shown)
        print(f"decision overhead: {percentiles(overheads)}  (goal {goals})")
        print(f"  demonstrations shown for the first time: {percentiles([own for own, _ in unshown])}  (goal {goals})")
        print(f"  trajectories yet to be read from the database: {percentiles([own for own, _ in cold])}  (no goal)")
        print(f"  situation, record and response, outside of the step: {percentiles(outside)}  (no goal)")
        first = float(np.median(behind[10]))
        for n, own in behind.items():
            ratio = float(np.median(own)) / first
            print(f"  behind {n} steps: {percentiles(own)}, p50 {ratio:.2f} × that behind 10  (goal {goals}, 1.0 ×)")
        database.close()


async def bare(url: str, messages: list[Message]) -> None:
    import litellm

    await litellm.acompletion(
        "openai/gpt-4.1-mini", messages, n=3, temperature=0.1, seed=0, api_base=url, api_key="k", timeout=30
    )


async def whole(url: str, embedder: str, rounds: int) -> tuple[float, float]:
    """Median milliseconds of (our step, the bare call)."""
    student: StudentKeywords = {"name": "openai/gpt-4.1-mini", "api_base": url, "api_key": "k"}
    ours, theirs = [], []
    with (
        tempfile.TemporaryDirectory() as folder,
        build(f"sqlite:///{folder}/bank.db", student, embedder) as cascade,
    ):
        assert cascade.bank is not None
        example: list[Trajectory] = trajectories(50)
        await cascade.bank.add_many(example)
        sent = spy(cascade)
        for i, messages in enumerate(situations(rounds + 20)):
            episode = cascade.episode(id=f"bench-{i}", goal=messages[1]["content"])
            started = time.perf_counter()
            await episode.complete(messages)
            middle = time.perf_counter()
            assert episode.decisions[0].answered_by == "student", episode.decisions[0]
            again = time.perf_counter()
            await bare(url, sent[-1])
            end = time.perf_counter()
            if i >= 20:
                ours.append((middle - started) * 1000)
                theirs.append((end - again) * 1000)
    return float(np.median(ours)), float(np.median(theirs))


def whole_step(rounds: int) -> None:
    context = get_context("spawn")
    pipe, other = context.Pipe()
    process = context.Process(target=serve, args=(other,))
    process.start()
    url = pipe.recv()
    for embedder, goal in (("hashing:384", 1.1), ("minilm", 1.4)):
        ours, theirs = asyncio.run(whole(url, embedder, rounds))
        print(
            f"whole step, {embedder}: {ours:.2f} ms; bare litellm {theirs:.2f} ms; "
            f"ratio {ours / theirs:.2f}  (goal {goal})"
        )
    pipe.send("stop")
    process.join()


def best(arguments: list[str], times: int = 5) -> float:
    taken = []
    for _ in range(times):
        started = time.perf_counter()
        subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
        taken.append(time.perf_counter() - started)
    return min(taken)


def imports() -> None:
    nothing = best(["-c", "pass"])
    package, shown = best(["-c", "import agentcascade"]), best(["-m", "agentcascade", "--help"])
    print(
        f"python alone {nothing:.3f} s; import agentcascade {package:.3f} s (goal 0.15 s); "
        f"--help {shown:.3f} s (goal 0.35 s)"
    )


def conversation_of(calls: int) -> list[Message]:
    messages: list[Message] = [{"role": "user", "content": "put a mug on the desk"}]
    for i in range(calls):
        function = {"name": "look", "arguments": json.dumps({"at": f"shelf {i}", "why": "because " * 20})}
        call = {"id": f"call_{i}", "type": "function", "function": function}
        messages += [
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": f"call_{i}", "content": "you see a mug " * 20},
        ]
    return messages


async def reading(rounds: int) -> None:
    for calls in (10, 100, 400):
        messages, formats = conversation_of(calls + rounds), AutoActions()
        history = conversation.History(formats)
        kept, whole = [], []
        await history.read(messages[: 2 * calls + 1])
        for i in range(rounds):
            so_far = messages[: 2 * (calls + i) + 3]
            started = time.perf_counter()
            situation = await history.read(so_far)
            middle = time.perf_counter()
            assert situation == conversation.read(so_far, formats)
            kept.append((middle - started) * 1000)
            whole.append((time.perf_counter() - middle) * 1000)
        print(
            f"situation behind {calls} tool calls: {np.median(kept):.3f} ms, of the whole conversation "
            f"{np.median(whole):.3f} ms ({np.median(whole) / np.median(kept):.0f} times; goal 0.3 ms)"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=150)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    chosen = parser.parse_args()
    if "imports" in chosen.parts:
        imports()
    if "reading" in chosen.parts:
        asyncio.run(reading(20))
    if "whole" in chosen.parts:
        whole_step(chosen.rounds)
    if "overhead" in chosen.parts:
        overhead(chosen.steps)
