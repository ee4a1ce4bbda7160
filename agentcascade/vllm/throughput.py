"""Token prices of a local student: an hour's price over its measured throughput.

Prompt tokens, cached prompt tokens and answer tokens are measured one after the other, each with several requests at
once. A request is then billed for the share of the machine's time that its tokens take.
"""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import Sequence
from decimal import ROUND_UP, Decimal
from typing import Any, NamedTuple

from agentcascade.errors import EnvironmentFailed
from agentcascade.models.pricing import Price

HOUR = 3600
WORDS = "the mug is on shelf two near a blue door and my next step was to open it then look"


class Throughput(NamedTuple):
    """Tokens a second by class, over all replicas."""

    input: float
    cached_input: float
    output: float

    def price(self, hour_dollars: Decimal) -> Price:
        """Dollars per million tokens. Raises `EnvironmentFailed` where nothing was measured."""
        if min(self) <= 0:
            raise EnvironmentFailed(f"throughput {self} was not measured: there is no price without it")
        # The ledger counts in 10^-12 dollars, so a token's price is a whole number of them; up, since none is free.
        per = [
            (hour_dollars / HOUR * 1_000_000 / Decimal(repr(rate))).quantize(Decimal("0.000001"), ROUND_UP)
            for rate in self
        ]
        return Price(input=per[0], cached_input=min(per[1], per[0]), output=per[2])


async def measure_throughput(
    api_bases: Sequence[str], name: str, *, at_once: int = 8, prompt_words: int = 600, tokens: int = 64, seed: int = 0
) -> Throughput:
    """Measure throughput now; it is meaningful on an idle server with prompts of your own length."""
    import httpx

    rng = random.Random(f"{seed} {time.time_ns()}")  # prompts that no cache has seen
    fresh = [" ".join(rng.choices(WORDS.split(), k=prompt_words)) for _ in range(at_once * len(api_bases))]
    async with httpx.AsyncClient(timeout=600.0, trust_env=False) as client:

        async def ask(prompts: Sequence[str], most: int) -> tuple[float, list[Any]]:
            started = time.perf_counter()
            requests = (_complete(client, api_bases[i % len(api_bases)], name, p, most) for i, p in enumerate(prompts))
            usages = await asyncio.gather(*requests)
            return time.perf_counter() - started, usages

        await ask(["warm up"] * len(api_bases), 2)
        seconds, read = await ask(fresh, 1)
        seconds_again, again = await ask(fresh, 1)
        alone, _ = await ask(["Write."] * len(fresh), 1)
        seconds_writing, wrote = await ask(["Write."] * len(fresh), tokens)
    prompt = sum(u["prompt_tokens"] for u in read)
    cached = sum((u.get("prompt_tokens_details") or {}).get("cached_tokens") or 0 for u in again)
    output = sum(u["completion_tokens"] for u in wrote)
    once = prompt / seconds
    return Throughput(once, cached / seconds_again if cached else once, output / max(1e-3, seconds_writing - alone))


async def _complete(client: Any, api_base: str, name: str, prompt: str, tokens: int) -> Any:
    body = {
        "model": name,
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": tokens,
        "ignore_eos": True,
        "temperature": 0.8,
    }
    answer = await client.post(f"{api_base}/chat/completions", json=body)
    if answer.status_code != 200:
        raise EnvironmentFailed(f"{name} answered {answer.status_code}: {answer.text[:300]}")
    return answer.json()["usage"]


def read_gauges(api_base: str) -> dict[str, float]:
    """Read an engine's metrics: prefix cache hits and queries, requests running and waiting; {} where it is gone."""
    import httpx

    try:
        text = httpx.get(api_base.removesuffix("/v1") + "/metrics", timeout=5.0, trust_env=False).text
    except httpx.HTTPError:
        return {}
    wanted = ("prefix_cache_hits_total", "prefix_cache_queries_total", "num_requests_running", "num_requests_waiting")
    sums: dict[str, float] = {}
    for name, value in re.findall(r"^vllm:(\w+)(?:\{[^}]*\})? ([\d.e+-]+)$", text, re.MULTILINE):
        if name in wanted:
            sums[name] = sums.get(name, 0.0) + float(value)
    return sums
