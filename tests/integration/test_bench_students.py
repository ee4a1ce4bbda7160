"""Benchmarks whose student is a server: OpenAI's API on the loopback, without a key."""

from __future__ import annotations

import asyncio
import json
import os
from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from click.testing import CliRunner, Result
from tiny_runs import play
from tiny_suite import right

from agentcascade.assembly.components import make_model
from agentcascade.bench.early_stop import MAX_ALIKE_FAILURES, FailureBreaker, check_models_answer
from agentcascade.bench.report import RunReport
from agentcascade.bench.suites.protocol import Task
from agentcascade.cli import main
from agentcascade.cli.bench_configuration import configuration
from agentcascade.config.load import CascadeConfig
from agentcascade.config.sections import ModelConfig
from agentcascade.errors import BenchError
from agentcascade.messages import text_of
from agentcascade.models.tokens import token_counter
from tests.fake_openai import FakeOpenAI, Reply, Request
from tests.inline_pool import plays_here  # noqa: F401

pytestmark = pytest.mark.usefixtures("plays_here")

RUN = {"suite": "tiny", "split": "test", "models_are": "real", "notes": [], "group": ""}

USAGE = {"prompt_tokens": 1000, "completion_tokens": 30}


def wanders(request: Request) -> Reply:
    """A student that knows the form of an answer and little else: it goes to the first place that it is told of."""
    if len(request.body["messages"]) == 1:
        return Reply(texts=("Yes.",), usage=USAGE)  # tried before the run
    assert request.body.get("n", 3) == 3
    observed = text_of(request.body["messages"][1])
    place = observed.partition("you see a ")[2].partition(",")[0]
    return Reply(texts=(f"Thought: I look.\nAction: go to {place}",), usage=USAGE)


@pytest.fixture
def bench(tmp_path: Path, games_cache: str, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """The command, without a key of anybody's."""
    for name in [k for k in os.environ if k.startswith(("OPENAI_", "HOSTED_VLLM_", "ALFWORLD_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AGENTCASCADE_CACHE", games_cache)
    return lambda *arguments: CliRunner().invoke(main, ["bench", *arguments, "--out", str(tmp_path / "run")])


@pytest.mark.slow
@pytest.mark.engine
@pytest.mark.parametrize(
    ("student", "played"),
    [
        ("hosted_vllm/qwen", ["teacher", "student+demos", "cascade", "random"]),
        ("openai/qwen", ["teacher", "student+demos"]),
    ],
)
def test_a_student_behind_a_local_server_plays_without_a_key(
    student: str,
    played: list[str],
    fake_openai: Callable[..., FakeOpenAI],
    bench: Callable[..., Result],
    tmp_path: Path,
) -> None:
    pytest.importorskip("alfworld")
    fake = fake_openai(wanders)
    sizes = ("--episodes", "2", "--demos", "6", "--k", "2", "--workers", "2", "--embedder", "hashing:64")
    policies = [option for policy in played for option in ("--policy", policy)]
    asked = ("--samples", "3", "--temperature", "0.7", "--max-tokens", "80", "--timeout", "90")
    served = ("--student", student, "--api-base", fake.url, "--student-price", "0.03/0.09")
    done = bench("alfworld", *served, *sizes, *policies, *asked)
    assert done.exit_code == 0, done.output
    lines = [json.loads(line) for line in (tmp_path / "run" / "episodes.jsonl").read_text().splitlines()]
    assert not [r["error"] for r in lines if r["error"]]
    calls = [c for r in lines for d in r["decisions"] for c in d["calls"] if c["role"] == "student"]
    assert calls
    assert {Decimal(c["dollars"]) for c in calls} == {Decimal("0.0000327")}  # (1000 × 0.03 + 30 × 0.09) / 10⁶
    tried, *bodies = (r.body for r in fake.requests)
    assert len(tried["messages"]) == 1
    assert {b["model"] for b in bodies} == {"qwen"}
    assert {b["max_tokens"] for b in bodies} == {80}
    assert {b["temperature"] for b in bodies} == {0.7}
    assert {tuple(b["stop"]) for b in bodies} == {("\nObservation:",)}
    assert {r.headers["authorization"] for r in fake.requests} == {"Bearer none"}
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert [p["policy"] for p in results["policies"]] == played
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


def broken(fake: FakeOpenAI) -> dict[str, Any]:
    return {"name": "openai/s", "api_base": fake.url, "retries": 0, "price": {"input": "1", "output": "2"}}


def test_what_fails_alike_is_stopped_and_goes_on_when_it_is_mended(
    fake_openai: Callable[..., FakeOpenAI], tmp_path: Path
) -> None:
    fake = fake_openai([Reply(status=401, body={"error": {"message": "no such key 1234567890"}})])
    policies = ("teacher", "student", "cascade", "random")
    stopped: dict[str, str] = {}
    records = play(tmp_path, policies=policies, workers=1, student=broken(fake), stopped=stopped)
    assert set(stopped) == {"student", "cascade", "random"}
    assert all("AuthenticationError" in why and "no such key" in why for why in stopped.values())
    played = Counter(r.policy for r in records)
    assert (played["teacher"], played["demos"]) == (8, 6)
    assert MAX_ALIKE_FAILURES <= played["student"] <= MAX_ALIKE_FAILURES + 2  # what was under way is not thrown away
    assert MAX_ALIKE_FAILURES <= played["cascade"] <= MAX_ALIKE_FAILURES + 2
    assert "random" not in played

    report = RunReport({**RUN, "seeds": [0, 1]}, records, policies, stopped)
    assert [row.policy for row in report.rows] == ["teacher"]  # a few losses are no figure of a policy
    assert len(report.faults) == 3
    assert "student was stopped, its episodes broke alike: AuthenticationError" in report.faults[0]

    fake.script = lambda request: Reply(texts=(f"Thought: I count.\nAction: {right(request.body['messages'])}",))
    stopped = {}
    mended = play(tmp_path, policies=policies, workers=1, student=broken(fake), stopped=stopped)
    assert stopped == {}
    assert Counter(r.policy for r in mended) == {"demos": 6, "teacher": 8, "student": 8, "cascade": 8, "random": 8}
    assert all(r.success for r in mended)
    assert RunReport({**RUN, "seeds": [0, 1]}, mended, policies).faults == []


def test_demonstrations_that_break_alike_end_the_run(fake_openai: Callable[..., FakeOpenAI], tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=r"5 episodes in a row broke alike, of RuntimeError: the world fell apart"):
        play(tmp_path, policies=("cascade",), demos=[Task(f"demo {i}", "break") for i in range(9)], workers=1)


def test_now_and_then_is_not_again_and_again() -> None:
    breaker = FailureBreaker(3)
    assert not any(breaker.is_one_too_many("a", f) for f in ("x 1", "x 2", None, "x 3", "x 4", "y", "x 5", "x 6"))
    assert breaker.is_one_too_many("a", "x 7")
    assert not breaker.is_one_too_many("b", "x 8")
    assert breaker.is_one_too_many("a", "x 9")


async def listens(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, asked: asyncio.Event, gone: asyncio.Event
) -> None:
    """A server that never answers, and notices when nobody waits any more."""
    await reader.readuntil(b"\r\n\r\n")
    asked.set()
    while await reader.read(65536):
        pass
    gone.set()
    writer.close()


@pytest.mark.parametrize("name", ["openai/slow", "openai/org/slow", "hosted_vllm/slow"])  # direct, by litellm, direct
async def test_a_servers_queue_is_left_when_the_time_is_up(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, gone = asyncio.Event(), asyncio.Event()
    server = await asyncio.start_server(lambda r, w: listens(r, w, asked, gone), "127.0.0.1", 0)
    async with server:
        base = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        model = make_model(ModelConfig(name=name, api_base=base, timeout_seconds=0.5, retries=2), token_counter())
        while not asked.is_set():  # the first import of a client may take longer than its time
            with pytest.raises(TimeoutError):
                await model.complete([{"role": "user", "content": "Say yes."}])
        await asyncio.wait_for(gone.wait(), 60)


def test_models_are_asked_once_before_anything_is_paid_for(
    fake_openai: Callable[..., FakeOpenAI], monkeypatch: pytest.MonkeyPatch
) -> None:
    good = fake_openai()
    denied = fake_openai([Reply(status=401, body={"error": {"message": "no such key"}})])
    silent = fake_openai([Reply(texts=("",), finish="length")])
    slow = fake_openai([Reply(delay=30)])

    def model(fake: FakeOpenAI, **more: Any) -> ModelConfig:
        return ModelConfig.model_validate(broken(fake) | more)

    stand_ins = {"teacher": ModelConfig(name="offline/expert"), "recorded": ModelConfig(name="recorded/gpt-4")}
    check_models_answer({**stand_ins, "own": ModelConfig(name="tiny_suite:Student"), "none": None})
    check_models_answer({"student": model(good), "verifier": model(silent)})
    assert len(good.requests) == len(silent.requests) == 1
    with pytest.raises(BenchError) as error:
        check_models_answer(
            {
                "teacher": model(good),
                "student": model(denied),
                "verifier": model(slow, timeout_seconds=0.3),
                "judge": model(good, api_base="http://127.0.0.1:9/v1"),
            }
        )
    said = str(error.value)
    assert "the student openai/s does not answer (AuthenticationError" in said
    assert "the verifier openai/s does not answer (TimeoutError" in said
    assert "the judge openai/s does not answer (APIConnectionError" in said
    assert "teacher" not in said
    assert "Nothing else was asked or paid for" in said


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--student", "openai/s", "--api-base", "http://127.0.0.1:9/v1"), "the student openai/s does not answer"),
        (("--teacher", "openai/gpt-4.1"), "the teacher openai/gpt-4.1 does not answer"),
        (("--verifier", "openai/gpt-4.1"), "the verifier openai/gpt-4.1 does not answer"),
    ],
)
def test_a_missing_key_and_a_wrong_address_are_told_before_anything_is_played(
    options: tuple[str, ...], says: str, bench: Callable[..., Result], tmp_path: Path
) -> None:
    pytest.importorskip("alfworld")
    done = bench("alfworld", "--episodes", "2", "--demos", "2", "--embedder", "hashing:64", *options)
    assert done.exit_code == 1
    assert says in " ".join(done.stderr.split())
    assert not (tmp_path / "run").exists()
