"""Calls of one library to an endpoint, timed: the part of bench_peers.py that runs in that library's environment.

Run: python peer_calls.py LIBRARY URL BODIES.json SECONDS [CONFIG]     prints a JSON object

Imports nothing of this repository's tests: the environment may know only its own library.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
os.environ.setdefault("OMP_NUM_THREADS", "1")
Ask = Callable[[list[dict[str, str]]], Awaitable[str | None]]
WARM_UP, ALONE, TOGETHER = 60, 300, 16
MODEL = "gpt-4.1-mini"


def bare(url: str, _: str) -> Ask:
    """OpenAI's SDK: what the others are measured against."""
    import openai

    client = openai.AsyncOpenAI(base_url=url, api_key="k", max_retries=0)

    async def ask(messages: list[dict[str, str]]) -> str | None:
        answer = await client.chat.completions.create(model=MODEL, messages=messages)  # type: ignore[arg-type]
        return answer.choices[0].message.content

    return ask


def wrapped(url: str, config: str) -> Ask:
    """OpenAI's SDK wrapped by agentcascade, mode `teacher`: books, budget, records."""
    import openai

    import agentcascade

    folder = Path(config).parent
    client = agentcascade.wrap(
        openai.AsyncOpenAI(base_url=url, api_key="k", max_retries=0), config=config, mode="teacher",
        bank={"url": f"sqlite:///{folder}/wrapped.db"}, retrieval={"k": 0},
    )  # fmt: skip

    async def ask(messages: list[dict[str, str]]) -> str | None:
        answer = await client.chat.completions.create(model=MODEL, messages=messages)  # type: ignore[arg-type]
        return answer.choices[0].message.content

    return ask


def built(mode: str) -> Callable[[str, str], Ask]:
    """agentcascade without a client: an episode of one step for each call."""

    def make(_: str, config: str) -> Ask:
        import agentcascade

        cascade = agentcascade.build(config, cascade=mode)

        async def ask(messages: list[dict[str, str]]) -> str | None:
            answer = await cascade.episode(messages[1]["content"]).complete(messages)
            content: str | None = answer.choices[0].message.content
            return content

        return ask

    return make


def litellm(url: str, _: str) -> Ask:
    import litellm as library

    async def ask(messages: list[dict[str, str]]) -> str | None:
        answer = await library.acompletion(model=f"openai/{MODEL}", messages=messages, api_base=url, api_key="k")
        content: str | None = answer.choices[0].message.content
        return content

    return ask


def cascadeflow(cascade: bool) -> Callable[[str, str], Ask]:
    """Its agent: a draft by the cheap model, checked by rules; else (`force_direct`) the dear model alone."""

    def make(url: str, _: str) -> Ask:
        import cascadeflow as library

        def model(name: str, cost: float) -> Any:
            return library.ModelConfig(name=name, provider="vllm", cost=cost, api_key="k", base_url=url)

        agent = library.CascadeAgent(models=[model("gpt-4.1-mini", 0.0004), model("gpt-4.1", 0.002)])

        async def ask(messages: list[dict[str, str]]) -> str | None:
            answer = await agent.run(messages, force_direct=not cascade)
            content: str | None = answer.content
            return content

        return ask

    return make


def tensorzero_config(folder: Path, url: str) -> Path:
    """TensorZero's configuration: one model behind `url`, without a database, so without observability."""
    path = folder / "tensorzero.toml"
    path.write_text(
        f"""
[gateway]
observability.enabled = false
[models.mini]
routing = ["local"]
[models.mini.providers.local]
type = "openai"
model_name = "{MODEL}"
api_base = "{url}/"
api_key_location = "env::PEER_KEY"
"""
    )
    return path


def tensorzero(url: str, _: str) -> Ask:
    """Its embedded gateway."""
    import tensorzero as library

    name = tensorzero_config(Path(tempfile.mkdtemp()), url)
    os.environ["PEER_KEY"] = "k"
    made: list[Any] = []

    async def ask(messages: list[dict[str, str]]) -> str | None:
        if not made:
            made.append(await library.AsyncTensorZeroGateway.build_embedded(config_file=str(name)))
        system = [{"system": m["content"]} for m in messages if m["role"] == "system"]
        turns = [m for m in messages if m["role"] != "system"]
        answer = await made[0].inference(model_name="mini", input={**(system[0] if system else {}), "messages": turns})
        text: str | None = answer.content[0].text
        return text

    return ask


LIBRARIES: dict[str, Callable[[str, str], Ask]] = {
    "openai": bare,
    "litellm": litellm,
    "tensorzero": tensorzero,
    "cascadeflow": cascadeflow(False),
    "cascadeflow, cascade": cascadeflow(True),
    "agentcascade.wrap": wrapped,
    "agentcascade": built("teacher"),
    "agentcascade, cascade": built("cascade"),
}


async def main(
    name: str, url: str, asked: list[list[dict[str, str]]], seconds: float, config: str = ""
) -> dict[str, float]:
    """p50 and p99 in ms of calls one after another, and calls a second with 16 at once; CPU ms of this process."""
    ask = LIBRARIES[name](url, config)
    taken = []
    for i in range(WARM_UP + ALONE):
        if i == WARM_UP:
            cpu = time.process_time()
        started = time.perf_counter()
        content = await ask(asked[i % len(asked)])
        taken.append(time.perf_counter() - started)
        assert content, "an answer without content"
    cpu = 1000 * (time.process_time() - cpu) / ALONE
    taken = sorted(taken[WARM_UP:])
    until, calls = time.monotonic() + seconds, 0

    async def client() -> None:
        nonlocal calls
        while time.monotonic() < until:
            await ask(asked[calls % len(asked)])
            calls += 1

    await asyncio.gather(*(client() for _ in range(TOGETHER)))
    p50, p99 = 1000 * taken[len(taken) // 2], 1000 * taken[int(len(taken) * 0.99)]
    return {"p50": p50, "p99": p99, "cpu": cpu, "rps": calls / seconds}


if __name__ == "__main__":
    library, address, file, duration, *more = sys.argv[1:]
    print(
        json.dumps(asyncio.run(main(library, address, json.loads(Path(file).read_text()), float(duration), *more))),
        flush=True,
    )
    os._exit(0)  # none waits for background work of the library
