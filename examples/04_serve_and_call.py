"""Serve two cascades over HTTP and call them as any OpenAI-compatible server is called, from whatever language.

    python examples/04_serve_and_call.py

Teacher and student are stand-ins that run without a key. With real models, write their names into the configuration
and start `agentcascade serve` in a terminal of its own.
"""

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import httpx
import openai
from warehouse import SYSTEM, Warehouse

CONFIG = """
teacher: {name: "offline_expert:Expert"}
student: {name: offline/imitator, price: {input: 0.40, output: 1.60}}
actions: {format: react}
bank: {url: "sqlite:///agentcascade.db"}
cascades:                          # each is a model name for the clients
  warehouse: {mode: cascade}
  warehouse-collect: {mode: collect}
"""


def agent(client: openai.OpenAI, model: str, world: Warehouse) -> list:
    """Somebody's agent on the OpenAI SDK, as it was before."""
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": world.start()}]
    answers = []
    while not world.done:
        answer = client.chat.completions.create(model=model, messages=messages)
        answers.append(answer)
        text = answer.choices[0].message.content
        messages += [{"role": "assistant", "content": text}, {"role": "user", "content": world.act(text)}]
    return answers


def run(url: str, model: str, seeds: range) -> None:
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="none: see `agentcascade keys create`")
    solved, who = 0, Counter()
    for seed in seeds:
        world = Warehouse(seed)
        episode = f"{model}-{seed}"
        # Told or not: without headers, episode and goal are read off the first messages.
        headers = {"x-agentcascade-episode": episode, "x-agentcascade-goal": world.goal}
        answers = agent(client.with_options(default_headers=headers), model, world)
        who.update(answer.agentcascade["answered_by"] for answer in answers)
        told = {"success": world.success}  # what becomes a demonstration
        httpx.post(f"{url}/v1/episodes/{episode}/feedback", json=told).raise_for_status()
        solved += world.success
    share = who["teacher"] / who.total()
    print(f"{model}: {solved} of {len(seeds)} solved, {share:.0%} of {who.total()} steps by the teacher")


@contextmanager
def serving(folder: Path):
    """`agentcascade serve`, as you would start it by hand."""
    (folder / "agentcascade.yaml").write_text(CONFIG)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "agentcascade", "serve", "--port", str(port), "--log-level", "warning"]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}  # where offline_expert lies
    server = subprocess.Popen(command, cwd=folder, env=environment)
    url = f"http://127.0.0.1:{port}"
    try:
        while not ready(url):
            if server.poll() is not None:
                sys.exit("the server did not start")
            time.sleep(0.1)
        yield url
    finally:
        server.terminate()
        server.wait()


def ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz").is_success
    except httpx.TransportError:
        return False


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder)) as url:
        run(url, "warehouse-collect", range(20))
        run(url, "warehouse", range(100, 110))
