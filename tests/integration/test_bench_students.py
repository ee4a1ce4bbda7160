"""Benchmarks whose student is a server: OpenAI's API on the loopback, without a key."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from fake_openai import FakeOpenAI, Reply, Request

from agentcascade.actions import text_of
from agentcascade.cli.bench_run import configuration
from agentcascade.config import CascadeConfig

USAGE = {"prompt_tokens": 1000, "completion_tokens": 30}


def wanders(request: Request) -> Reply:
    """A student that knows the form of an answer and little else: it goes to the first place that it is told of."""
    assert "n" not in request.body or request.body["n"] == 3
    observed = text_of(request.body["messages"][1])
    place = observed.partition("you see a ")[2].partition(",")[0]
    return Reply(texts=(f"Thought: I look.\nAction: go to {place}",), usage=USAGE)


def bench(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("OPENAI_", "HOSTED_VLLM_", "ALFWORLD_"))}
    environment["AGENTCASCADE_CACHE"] = str(tmp_path / "cache")
    command = [sys.executable, "-m", "agentcascade", "bench", *arguments, "--out", str(tmp_path / "run")]
    return subprocess.run(command, env=environment, text=True, capture_output=True, timeout=240)


@pytest.mark.slow
@pytest.mark.engine
@pytest.mark.parametrize("student", ["hosted_vllm/qwen", "openai/qwen"])
def test_a_student_behind_a_local_server_plays_without_a_key(
    student: str, fake_openai: Callable[..., FakeOpenAI], tmp_path: Path
) -> None:
    pytest.importorskip("alfworld")
    fake = fake_openai(wanders)
    sizes = ("--episodes", "2", "--demos", "6", "--k", "2", "--workers", "2", "--embedder", "hashing:64")
    policies = ("--policy", "teacher", "--policy", "student+demos", "--policy", "cascade", "--policy", "random")
    asked = ("--samples", "3", "--temperature", "0.7", "--max-tokens", "80", "--timeout", "90")
    served = ("--student", student, "--api-base", fake.url, "--student-price", "0.03/0.09")
    done = bench(tmp_path, "alfworld", *served, *sizes, *policies, *asked)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [json.loads(line) for line in (tmp_path / "run" / "episodes.jsonl").read_text().splitlines()]
    assert not [r["error"] for r in lines if r["error"]]
    calls = [c for r in lines for d in r["decisions"] for c in d["calls"] if c["role"] == "student"]
    assert calls
    assert {Decimal(c["dollars"]) for c in calls} == {Decimal("0.0000327")}  # (1000 × 0.03 + 30 × 0.09) / 10⁶
    bodies = [r.body for r in fake.requests]
    assert {b["model"] for b in bodies} == {"qwen"}
    assert {b["max_tokens"] for b in bodies} == {80}
    assert {b["temperature"] for b in bodies} == {0.7}
    assert {tuple(b["stop"]) for b in bodies} == {("\nObservation:",)}
    assert {r.headers["authorization"] for r in fake.requests} == {"Bearer none"}
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert [p["policy"] for p in results["policies"]] == ["teacher", "student+demos", "cascade", "random"]
    assert results["run"]["timeout"] == 90


class Suite:
    actions = MappingProxyType({"format": "react"})
    dropped = ()


OPTIONS: dict[str, Any] = dict.fromkeys(
    ("staged", "log_samples", "verifier", "dry_run", "constrain", "sticky", "timeout")
) | {"k": 2, "embedder": "hashing:64", "samples": 3, "temperature": 0.7, "log_temperatures": (), "log_ks": ()}


def test_a_slow_student_gets_its_time_and_the_teacher_its_own_after_it() -> None:
    models = {"teacher": {"name": "offline/expert"}, "student": {"name": "hosted_vllm/qwen", "api_base": "http://x"}}

    def made(**options: Any) -> CascadeConfig:
        return configuration(Suite(), models, OPTIONS | options)  # type: ignore[arg-type]

    plain, slow = made(), made(timeout=600.0)
    assert plain.student is not None
    assert slow.student is not None
    assert slow.teacher is not None
    assert (plain.sampling.timeout_seconds, plain.student.timeout_seconds) == (30, 60)
    assert slow.sampling.timeout_seconds == slow.student.timeout_seconds == slow.shadow.timeout_seconds == 600
    assert slow.deadline_seconds == plain.deadline_seconds + 600
    assert slow.teacher.timeout_seconds == 60
