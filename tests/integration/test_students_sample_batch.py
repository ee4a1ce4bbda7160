"""`agentcascade students sample --batch` and `agentcascade batch`, as a user calls them, killed in between."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentcascade.steplog.files import read_log
from tests.batch_provider import BatchProvider, completion

EPISODE = [
    {"role": "system", "content": "You act."},
    {"role": "user", "content": "put a mug on the desk"},
    {"role": "assistant", "content": "go 1"},
    {"role": "user", "content": "you see a mug"},
    {"role": "assistant", "content": "take mug"},
]


@pytest.fixture
def provider() -> Iterator[BatchProvider]:
    with BatchProvider(lambda body: (200, completion(body, ["go 1", "take mug", "take mug"][: body["n"]]))) as running:
        yield running


@pytest.fixture
def folder(tmp_path: Path, provider: BatchProvider) -> Path:
    price = "{input: 0.15, output: 0.6}"
    model = f'{{name: openai/gpt-4o-mini, api_base: "{provider.url}", api_key: sk-test, price: {price}}}'
    (tmp_path / "c.yaml").write_text(f"student: {model}\nbank: {{url: 'sqlite:///{tmp_path}/a.db'}}\n")
    (tmp_path / "gpt.jsonl").write_text(json.dumps({"model": "gpt-4o", "messages": EPISODE, "success": True}) + "\n")
    return tmp_path


def started(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "agentcascade", *arguments, "--config", "c.yaml"]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def run(folder: Path, *arguments: str) -> str:
    process = started(folder, *arguments)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return out


SAMPLE = ("students", "sample", "openai/gpt-4o-mini", "--batch", "--poll", "0.05", "--n", "3", "--log", "gpt.jsonl")


def test_a_log_is_sampled_by_a_batch_that_outlives_its_command(folder: Path, provider: BatchProvider) -> None:
    provider.polls = 10**9
    killed = started(folder, *SAMPLE, "--out", "log.jsonl")
    deadline = time.monotonic() + 200
    while provider.count("GET", "/v1/batches/.+") < 1 and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate()
    listed = run(folder, "batch", "list")
    assert "students sample" in listed
    assert "≤ $" in listed
    provider.polls = 0
    assert "2 succeeded" in run(folder, "batch", "wait", "bt", "--poll", "0.05")
    run(folder, *SAMPLE, "--out", "log.jsonl")
    assert provider.count("POST", "/v1/batches") == 1
    steps = read_log(folder / "log.jsonl")
    assert [[s.action for s in step.student.samples] for step in steps] == [["go 1", "take mug", "take mug"]] * 2
    assert [s.student.model for s in steps] == ["openai/gpt-4o-mini"] * 2
    data = json.loads(run(folder, "ledger", "--json"))
    assert [(g["group"], float(g["dollars"])) for g in data["groups"]] == [("batch", provider.dollars(0.075, 0.3))]
    assert float(data["batches"]["ordinary"]) == 2 * float(data["batches"]["dollars"])
