"""Soak of `agentcascade serve`: mixed traffic on all doors with faults, and books against the provider's own bill.

Run: python tests/benchmarks/bench_soak.py --hours 4 [--workers 2] [--pause .6] [--folder F]

Chat Completions, Responses and Messages, whole and streamed, in mode `teacher`; the provider fails (500, 429), is slow,
or breaks off in mid-answer, and clients leave while they wait. It says how many tokens each prompt had, another number
each time, so that every answer that it bills is found in the books, or missed. At the end: every whole answer is booked
once, at its price; each of the others that cost something has an entry, an estimate that is no lower; nothing else is
booked. With `--folder`, another run goes on with the same database and bill.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import aiohttp
import yaml
from aiohttp import web

from tests.benchmarks.bench_memory_server import Sample, figure
from tests.benchmarks.bench_proxy import DOORS, Target, made_key, server

TEXT = "Thought: It has to be washed, so the sink is next. Action: go to sink 1"
FAULTS = {"none": 84, "500": 4, "429": 3, "slow": 5, "cut": 4}
LEAVING = 0.04
"""Share of requests whose client leaves before the answer is whole."""
FIRST = 1000
"""Tokens of the first prompt; each later one has one more."""


class Provider:
    """Chat Completions with faults. `billed` are the prompts' tokens of whole answers, `cut` those of broken ones."""

    def __init__(self, seed: int) -> None:
        self._random, self._tokens = random.Random(seed), FIRST
        self.billed: set[int] = set()
        self.cut: set[int] = set()
        self.faults: Counter[str] = Counter()

    def save(self, path: Path) -> None:
        """The bill so far as JSON; a request under way counts as cut."""
        sets = {"billed": sorted(self.billed), "cut": sorted(self.cut)}
        path.write_text(json.dumps({"tokens": self._tokens, "faults": self.faults, **sets}))

    def load(self, path: Path) -> None:
        """Go on with a bill that `save` wrote."""
        kept = json.loads(path.read_text())
        self._tokens, self.faults = kept["tokens"], Counter(kept["faults"])
        self.billed, self.cut = set(kept["billed"]), set(kept["cut"])

    async def answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        fault = self._random.choices(list(FAULTS), list(FAULTS.values()))[0]
        self.faults[fault] += 1
        if fault in ("500", "429"):
            return web.json_response({"error": {"message": "not now", "type": "server_error"}}, status=int(fault))
        self._tokens += 1
        tokens = self._tokens
        self.cut.add(tokens)  # until all of it is written
        await asyncio.sleep(self._random.uniform(0.2, 1.0) if fault == "slow" else 0.002)
        usage = {"prompt_tokens": tokens, "completion_tokens": 20, "total_tokens": tokens + 20}
        own = {"id": f"chatcmpl-{tokens}", "created": 1_700_000_000, "model": "gpt-4.1-mini"}
        response = web.StreamResponse()
        response.content_type = "text/event-stream" if body.get("stream") else "application/json"
        if body.get("stream"):
            own["object"] = "chat.completion.chunk"
            pieces = [
                {**own, "choices": [{"index": 0, "delta": {"role": "assistant", "content": word}}]}
                for word in TEXT.replace(" ", " |").split("|")
            ]
            pieces.append({**own, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
            pieces.append({**own, "choices": [], "usage": usage})
            data = [f"data: {json.dumps(piece)}\n\n".encode() for piece in pieces] + [b"data: [DONE]\n\n"]
        else:
            choice = {"index": 0, "message": {"role": "assistant", "content": TEXT}, "finish_reason": "stop"}
            text = json.dumps({**own, "object": "chat.completion", "choices": [choice], "usage": usage}).encode()
            data = [text[:100], text[100:]]
        with contextlib.suppress(ConnectionError):  # its client has left
            await self._write(request, response, data, fault, tokens)
        return response

    async def _write(
        self, request: web.Request, response: web.StreamResponse, data: list[bytes], fault: str, tokens: int
    ) -> None:
        await response.prepare(request)
        for piece in data[: len(data) // 2] if fault == "cut" else data:
            await response.write(piece)
        if fault == "cut":
            assert request.transport is not None
            request.transport.abort()
            return
        await response.write_eof()
        self.cut.remove(tokens)
        self.billed.add(tokens)


async def client(
    target: Target, session: aiohttp.ClientSession, until: float, pause: float, chance: random.Random
) -> Counter[str]:
    """One client, asking one request after the other, `pause` seconds between them on average; what came of them."""
    came: Counter[str] = Counter()
    while time.monotonic() < until:
        await asyncio.sleep(chance.uniform(0, 2 * pause))
        door = chance.choice(list(DOORS))
        path, body = DOORS[door]
        asked = {"model": "teacher", "stream": chance.random() < 0.5, **body(chance.randrange(90))}
        url = target.url.replace("/v1/chat/completions", path)
        leaving = chance.uniform(0.005, 0.3) if chance.random() < LEAVING else 60
        try:
            async with asyncio.timeout(leaving):
                headers = {"authorization": f"Bearer {target.key}"}
                async with session.post(url, json=asked, headers=headers) as response:
                    text = await response.read()
                    broken = response.status == 200 and (b'"error":{' in text or b'"error": {' in text)
                    came[f"{door}: {'an error in the stream' if broken else response.status}"] += 1
        except TimeoutError:
            came["left" if leaving < 60 else "hung"] += 1
        except aiohttp.ClientError as error:
            came[f"{door}: {type(error).__name__}"] += 1
    return came


def booked(path: Path) -> tuple[list[tuple[int, int, int]], int]:
    """((prompt tokens, answer tokens, 10⁻¹² dollars) of each exact entry; requests of all estimated ones)."""
    with contextlib.closing(sqlite3.connect(path)) as database:
        rows = database.execute("SELECT input, output, dollars FROM calls WHERE NOT estimated").fetchall()
        ((guessed,),) = database.execute("SELECT coalesce(sum(requests), 0) FROM calls WHERE estimated")
    return rows, guessed


async def main(chosen: argparse.Namespace) -> None:
    provider = Provider(chosen.seed)
    app = web.Application(client_max_size=2**24)
    app.router.add_post("/v1/chat/completions", provider.answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(chosen.folder or name)
        bill = folder / "bill.json"
        if bill.exists():
            provider.load(bill)
        port = runner.addresses[0][1]
        settings = {"api_base": f"http://127.0.0.1:{port}/v1", "api_key": "k", "retries": 0}
        teacher = {"name": "openai/gpt-4.1-mini", "price": {"input": "1", "output": "2"}, **settings}
        config = {
            "teacher": teacher,
            "retrieval": {"k": 0},
            "bank": {"url": f"sqlite:///{folder}/soak.db"},
            "cascades": {"teacher": {"mode": "teacher"}},
        }
        path = folder / "agentcascade.yaml"
        path.write_text(yaml.safe_dump(config))
        key = await asyncio.to_thread(made_key, folder)
        command = [
            sys.executable,
            "-m",
            "agentcascade",
            "serve",
            "--config",
            str(path),
            "--workers",
            str(chosen.workers),
        ]
        with contextlib.ExitStack() as stack:
            target = await asyncio.to_thread(stack.enter_context, server(command, "/readyz", folder, key))
            until = time.monotonic() + chosen.hours * 3600
            samples: list[Sample] = []
            async with aiohttp.ClientSession() as session:
                chances = [random.Random(f"{chosen.seed} {i}") for i in range(chosen.clients)]
                asking = asyncio.gather(*(client(target, session, until, chosen.pause, chance) for chance in chances))
                while not asking.done():
                    await asyncio.wait([asking], timeout=60)
                    mib = sum(p.memory_info().rss for p in [target.process, *target.process.children(True)]) / 2**20
                    samples.append(Sample(sum(provider.faults.values()), mib, 0, Counter()))
                    print(f"{sum(provider.faults.values()):8,} requests {mib:7.1f} MiB", flush=True)
                    provider.save(bill)
                came = sum(asking.result(), Counter())
        provider.save(bill)
        exact, guessed = booked(folder / "soak.db")
    await runner.cleanup()
    if chosen.figure:
        await asyncio.to_thread(figure, samples, chosen.figure)
    report(provider, came, exact, guessed)


def report(provider: Provider, came: Counter[str], exact: list[tuple[int, int, int]], guessed: int) -> None:
    print("what the provider did:", dict(provider.faults))
    print("what clients saw:", dict(sorted(came.items())))
    found = Counter(row[0] for row in exact)
    twice, unknown = [t for t, times in found.items() if times > 1], found.keys() - provider.billed
    missed = provider.billed - found.keys()  # whole at the provider, but their client had left: booked as estimates
    wrong = [row for row in exact if row[2] != (row[0] + 2 * row[1]) * 10**6 or row[1] != 20]
    print(
        f"{len(provider.billed):,} whole answers billed: {len(found):,} booked exactly, {len(wrong)} of them wrongly "
        f"priced, {len(twice)} twice, {len(unknown)} unknown to the provider"
    )
    others = len(missed) + len(provider.cut)
    print(f"{len(missed)} whole answers that nobody read and {len(provider.cut)} broken ones: {guessed} estimates")
    good = not (wrong or twice or unknown or came["hung"]) and guessed >= others
    print("the books are the provider's bill" if good else "THE BOOKS ARE NOT THE PROVIDER'S BILL")
    raise SystemExit(not good)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, default=4)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--pause", type=float, default=0, help="seconds between a client's requests, on average")
    parser.add_argument("--folder", type=os.path.abspath, help="an existing folder that keeps database and bill")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--figure", metavar="FILE.svg", help="memory of all processes over the requests")
    parser.add_argument("--seed", type=int, default=0)
    asyncio.run(main(parser.parse_args()))
