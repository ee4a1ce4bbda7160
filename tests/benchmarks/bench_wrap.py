"""`agentcascade.wrap(client)` against the bare OpenAI client: the milliseconds that it adds to a call.

Run: python tests/benchmarks/bench_wrap.py [--calls 1000] [--steps 10000] [--turns 1]

Both talk to the same endpoint, in another process, that answers at once; calls are taken in turn, in changing order.
Mode `teacher`: the same call through both. Mode `cascade`: n = 3 samples in one call to `client/MODEL`, six
demonstrations out of a bank of `--steps` steps, embeddings of MiniLM cached; the bare client sends the same prompt with
n = 3, so that the model call is on both sides. Records go to SQLite as usual. "Added" is a call's time less that of the
bare call beside it; both ends are sync or both are async. The bare client has the SDK walk through every message,
0.12 ms each, and make objects of all that is answered, which a wrapped one spares where messages are plain: it makes
those of the one answer that it hands out. `--turns` makes conversations longer. "Noise" is the 99th percentile of the
difference between a bare call and the one before it: p99 of what is added has it in it. p99 is given as a multiple of
p50, or of its goal where that is more: what is added may be less than nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np
from openai import AsyncOpenAI, OpenAI
from openai.types.chat import ChatCompletionMessageParam

import agentcascade
from agentcascade.integrations.openai import Wrapped
from agentcascade.types import Message
from tests.benchmarks import endpoint
from tests.benchmarks.bench_bank import STEPS_EACH, trajectories

MODEL = "gpt-4.1-mini"
WARM_UP = 50


TURNS = 1
"""Answers in a conversation so far."""


def conversation(i: int) -> list[ChatCompletionMessageParam]:
    """Some step of some run; there are few enough different ones for the embedding cache."""
    looks: list[ChatCompletionMessageParam] = [
        {"role": "user", "content": "Nothing happens."},
        {"role": "assistant", "content": endpoint.ANSWER},
    ]
    return [
        {"role": "system", "content": "You act in a house."},
        {"role": "user", "content": f"Your task is to: put a clean mug {i % 10} on the desk"},
        {"role": "assistant", "content": endpoint.ANSWER},
        *looks * (TURNS - 1),
        {"role": "user", "content": f"You arrive at shelf {i % 9} of room {i % 10}. You see a mug {i % 10}."},
    ]


def show(what: str, ours: list[float], bare: list[float], target: float) -> None:
    ours, bare = ours[WARM_UP:], bare[WARM_UP:]
    added = np.subtract(ours, bare)
    low, high = np.percentile(bare, [50, 99])
    mid, far = np.percentile(ours, [50, 99])
    middle, end = np.percentile(added, [50, 99])
    noise = np.percentile(np.abs(np.diff(bare)), 99)
    print(
        f"{what:15} added p50 {middle:5.2f} ms, p99 {end:5.2f} ms, {end / max(middle, target):.1f} times p50  "
        f"(bare {low:.2f} / {high:.2f}, noise {noise:.2f}, wrapped {mid:.2f} / {far:.2f}; "
        f"goal: p50 {target} ms, p99 3 times that)",
        flush=True,
    )


def options(mode: str, folder: str) -> dict[str, Any]:
    return {
        "mode": mode,
        "bank": {"url": f"sqlite:///{folder}/bank.db"},
        "retrieval": {"k": 6 if mode == "cascade" else 0},
        "actions": {"format": "react"},
        "router": {"name": "unanimity", "options": {"n": 3}},
        **({"student": f"client/{MODEL}"} if mode == "cascade" else {}),
    }


def spy(cascade: agentcascade.Cascade) -> list[list[Message]]:
    """The prompts that the student gets, so that the bare client can send the same."""
    sent: list[list[Message]] = []
    student: Any = cascade.context.student
    complete = student.complete

    def remembering(messages: list[Message], **asked: Any) -> Any:
        sent.append(messages)
        return complete(messages, **asked)

    student.complete = remembering
    return sent


def bare_arguments(mode: str, sent: list[Any], i: int) -> dict[str, Any]:
    if mode == "teacher":
        return {"messages": conversation(i), "model": MODEL}
    return {"messages": sent[-1], "model": MODEL, "n": 3, "temperature": 0.1, "seed": 1000}


async def timed(work: Awaitable[Any]) -> tuple[float, Any]:
    started = time.perf_counter()
    answer = await work
    return (time.perf_counter() - started) * 1000, answer


async def asynchronous(url: str, folder: str, mode: str, calls: int) -> tuple[list[float], list[float]]:
    client = AsyncOpenAI(base_url=url, api_key="k")
    wrapped = agentcascade.wrap(client, **options(mode, folder))
    sent = spy(Wrapped.of(wrapped).cascade) if mode == "cascade" else []
    ours, bare = [], []
    await wrapped.chat.completions.create(model=MODEL, messages=conversation(0))

    async def one(i: int) -> None:
        arguments = bare_arguments(mode, sent, i)
        bare.append((await timed(client.chat.completions.create(**arguments)))[0])

    for i in range(calls + WARM_UP):
        if i % 2:
            await one(i)
        taken, answer = await timed(wrapped.chat.completions.create(model=MODEL, messages=conversation(i)))
        ours.append(taken)
        checked(mode, answer)
        if not i % 2:
            await one(i)
    await Wrapped.of(wrapped).aclose()
    return ours, bare


def synchronous(url: str, folder: str, mode: str, calls: int) -> tuple[list[float], list[float]]:
    client = OpenAI(base_url=url, api_key="k")
    wrapped = agentcascade.wrap(client, **options(mode, folder))
    sent = spy(Wrapped.of(wrapped).cascade) if mode == "cascade" else []
    ours, bare = [], []
    wrapped.chat.completions.create(model=MODEL, messages=conversation(0))

    def one(i: int) -> None:
        arguments = bare_arguments(mode, sent, i)
        started = time.perf_counter()
        client.chat.completions.create(**arguments)
        bare.append((time.perf_counter() - started) * 1000)

    for i in range(calls + WARM_UP):
        if i % 2:
            one(i)
        started = time.perf_counter()
        answer = wrapped.chat.completions.create(model=MODEL, messages=conversation(i))
        ours.append((time.perf_counter() - started) * 1000)
        checked(mode, answer)
        if not i % 2:
            one(i)
    Wrapped.of(wrapped).close()
    return ours, bare


def checked(mode: str, answer: Any) -> None:
    decision = answer.agentcascade
    if mode == "teacher":
        assert decision.answered_by == "teacher"
    else:
        assert decision.answered_by == "student"
        assert (len(decision.demonstrations), decision.samples) == (6, 3)
        assert len(decision.calls) == 1


async def fill(folder: str, steps: int) -> None:
    with agentcascade.build(**{**options("cascade", folder), "student": f"openai/{MODEL}", "mode": "student"}) as one:
        assert one.bank is not None
        for first in range(0, steps // STEPS_EACH, 50):
            await one.bank.add_many(trajectories(50, first))
        print(f"bank of {len(one.bank.retriever):,} steps", flush=True)


def main(calls: int, steps: int) -> None:
    with tempfile.TemporaryDirectory() as folder, endpoint.running() as url:
        asyncio.run(fill(folder, steps))
        for mode, target in (("teacher", 0.4), ("cascade", 0.9)):
            show(f"{mode}, async", *asyncio.run(asynchronous(url, folder, mode, calls)), target)
            show(f"{mode}, sync", *synchronous(url, folder, mode, calls), target)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--turns", type=int, default=TURNS)
    chosen = parser.parse_args()
    TURNS = chosen.turns
    main(chosen.calls, chosen.steps)
