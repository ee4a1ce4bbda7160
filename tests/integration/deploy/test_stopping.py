"""How `agentcascade serve` stops: what an engine of containers sends, and when."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

pytest.importorskip("fastapi", reason="needs the extra `server`")
from sqlalchemy import select

from agentcascade._util.ports import free_port
from agentcascade.storage import open_database, tables
from tests.fake_openai import FakeOpenAI, Reply
from tests.proxy import settings

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals")
HANGS = """
import time
import agentcascade.server.app as app
from agentcascade.cli import main

def create_app(config):
    print("building", flush=True)
    time.sleep(120)

app.create_app = create_app
main(["serve", "--port", "0"])
"""


@contextmanager
def started(folder: Path, *command: str) -> Iterator[subprocess.Popen[str]]:
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, *command], cwd=folder, stdout=subprocess.PIPE, stderr=log, text=True, env=dict(os.environ)
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def until(look: Callable[[], Any], seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not look():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


def test_sigterm_ends_a_server_that_still_starts(tmp_path: Path) -> None:
    """It would serve on, and be killed with its requests when the patience of whoever stops it is over."""
    with started(tmp_path, "-c", HANGS) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "building\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 0
    assert "Traceback" not in (tmp_path / "log").read_text()


@pytest.mark.parametrize("reloading", [False, True])
def test_a_stream_is_finished_and_booked_while_others_are_refused(tmp_path: Path, reloading: bool) -> None:
    """Whatever is signalled meanwhile: another SIGTERM, or, before it, a SIGHUP whose new server must not come."""
    words = " ".join(f"w{i}" for i in range(60))
    with FakeOpenAI(lambda _: Reply(texts=(words,), chunk_delay=0.05)) as fake:
        port = free_port()
        config = settings(fake, tmp_path, mode="teacher", server={"port": port}, deadline_seconds=60)
        config["teacher"] |= {"timeout_seconds": 60}
        (tmp_path / "agentcascade.yaml").write_text(yaml.safe_dump(config))
        url = f"http://127.0.0.1:{port}"
        with started(tmp_path, "-m", "agentcascade", "serve") as process:
            until(lambda: answers(url))
            body = {"model": "default", "messages": [{"role": "user", "content": "hi"}], "stream": True}
            with httpx.stream("POST", f"{url}/v1/chat/completions", json=body, timeout=60, trust_env=False) as response:
                lines = response.iter_lines()
                got = [next(lines)]
                for number in (signal.SIGHUP, signal.SIGTERM) if reloading else (signal.SIGTERM,):
                    process.send_signal(number)
                until(lambda: "Shutting down" in (tmp_path / "log").read_text())
                process.send_signal(signal.SIGTERM)
                if not reloading:  # else the port is open, and nobody answers there
                    with pytest.raises(httpx.TransportError):
                        httpx.get(f"{url}/healthz", trust_env=False)
                got += [line for line in lines if line]
            assert process.wait(120) == 0
    said = [json.loads(line.removeprefix("data: ")) for line in got if line and "[DONE]" not in line]
    assert "".join(c["delta"].get("content") or "" for e in said for c in e.get("choices", ())) == words
    assert got[-1] == "data: [DONE]"
    assert "Traceback" not in (tmp_path / "log").read_text()
    database = open_database(config["bank"]["url"])
    with database.begin() as connection:
        (row,) = connection.execute(select(tables.decisions)).mappings()
        (call,) = connection.execute(select(tables.calls)).mappings()
    database.close()
    assert (row["answered_by"], row["failures"]) == ("teacher", [])
    assert call["dollars"] is not None
    assert not list(tmp_path.glob("*.journal/*")), "nothing waits for the next process"
