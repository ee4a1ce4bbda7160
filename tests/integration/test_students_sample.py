"""`agentcascade students sample`: a log sampled without a server, by a package that plays vLLM and by vLLM itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from agentcascade.config.load import CascadeConfig
from agentcascade.models.pricing import Price
from agentcascade.steplog.files import read_log
from agentcascade.vllm.registry import Registry, Replica, Student

TESTS = Path(__file__).parents[1]
EPISODE = [
    {"role": "system", "content": "You act."},
    {"role": "user", "content": "put a mug on the desk"},
    {"role": "assistant", "content": "go 1"},
    {"role": "user", "content": "you see a mug"},
    {"role": "assistant", "content": "take mug"},
]


@pytest.fixture
def env(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that looks like a virtual environment with vLLM."""
    monkeypatch.setenv("AGENTCASCADE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("FAKE_VLLM_DIED", str(tmp_path / "died"))
    monkeypatch.setenv("AGENTCASCADE_CHILD_VARIABLES", "FAKE_VLLM_DIED")
    folder, package = tmp_path / "env", tmp_path / "site" / "vllm"
    for made in (folder / "bin", package, folder / "lib" / "python3.11" / "site-packages" / "vllm-0.33.0.dist-info"):
        made.mkdir(parents=True)
    (package / "__init__.py").write_text((TESTS / "fake_vllm_library.py").read_text())
    script = f'#!/bin/sh\nPYTHONPATH={package.parent} exec {sys.executable} "$@"\n'
    for name in ("python", "vllm"):
        (folder / "bin" / name).write_text(script)
        (folder / "bin" / name).chmod(0o755)
    return folder


@pytest.fixture
def transcripts(tmp_path: Path) -> Path:
    path = tmp_path / "gpt.jsonl"
    lines = [{"model": "gpt-4o", "messages": [{**m, "content": m["content"]} for m in EPISODE], "success": True}]
    lines.append({"model": "gpt-4o", "messages": [{"role": "user", "content": "look"}, *EPISODE[-1:]], "reward": 0})
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def sample(model: str, *arguments: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "agentcascade", "students", "sample", model, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def test_transcripts_of_the_teacher_become_a_log_of_both(env: Path, transcripts: Path, tmp_path: Path) -> None:
    out = tmp_path / "out" / "log.jsonl"
    price = Price.model_validate({"input": "1", "cached_input": "0.1", "output": "2"})
    replica = Replica(api_base="http://127.0.0.1:1/v1", pid=os.getpid())
    Registry().put(Student(name="good", model="good", replicas=(replica,), price=price))
    out.parent.mkdir()
    made = sample("good", "--vllm", env, "--log", transcripts, "--out", out, "--n", 4, "--at-once", 2)
    assert made.returncode == 0, made.stderr
    assert "wrote 3 steps" in made.stdout
    steps = read_log(out)
    assert [s.teacher for s in steps] == ["go 1", "take mug", "take mug"]
    assert [s.success for s in steps] == [True, True, False]
    assert [s.step for s in steps] == [0, 1, 0]
    for step in steps:
        drawn = step.student
        assert drawn.model == "hosted_vllm/good"
        assert drawn.n == len(drawn.samples) == 4
        assert {s.action for s in drawn.samples} == {"go 0", "go 1"}
        assert {(s.tokens, s.logprob) for s in drawn.samples} == {(2, -1.5)}
        assert drawn.prompt is not None
        assert drawn.prompt.cached_input == drawn.prompt.prompt // 2
        assert drawn.price == price
    assert not out.with_name("log.jsonl.partial").exists()
    replayed = subprocess.run(
        [sys.executable, "-m", "agentcascade", "replay", "--log", out, "--n", "3"], capture_output=True, text=True
    )
    assert replayed.returncode == 0, replayed.stderr


def test_a_run_that_died_goes_on_where_it_was(env: Path, transcripts: Path, tmp_path: Path) -> None:
    out, whole = tmp_path / "log.jsonl", tmp_path / "whole.jsonl"
    arguments = ("--vllm", env, "--log", transcripts, "--n", 2, "--at-once", 1)
    died = sample("dies", *arguments, "--out", out)
    assert died.returncode == 1
    assert "dies: vLLM ended with status 9" in died.stderr
    assert "Traceback" not in died.stderr
    assert not out.exists()
    partial = out.with_name("log.jsonl.partial")
    assert len(partial.read_text().splitlines()) == 2, "the run's name, and the one answer that came"
    with partial.open("a") as file:
        file.write('{"id": "cut o')
    other = sample("dies", *arguments, "--out", out, "--seed", 1)
    assert "is what another run left" in other.stderr
    again = sample("dies", *arguments, "--out", out)
    assert again.returncode == 0, again.stderr
    assert again.stderr.splitlines()[0] == "1 of 3 steps"
    assert sample("dies", *arguments, "--out", whole).returncode == 0
    assert out.read_bytes() == whole.read_bytes()


def test_a_step_that_cannot_be_sampled_is_kept_without_samples(env: Path, transcripts: Path, tmp_path: Path) -> None:
    out = tmp_path / "log.jsonl"
    made = sample("good", "--vllm", env, "--log", transcripts, "--out", out, "--max-model-len", 9, "--n", 2)
    assert made.returncode == 0, made.stderr
    assert "1 steps have no samples: ValueError: the prompt has 14 tokens, more than 9" in made.stdout
    steps = read_log(out)
    assert [s.student.n for s in steps] == [2, 2, 2]
    assert [sum(x.action is None for x in s.student.samples) for s in steps] == [0, 2, 0]
    assert steps[1].student.prompt is None


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("oom", "does not fit into memory"),
        ("no-template", "has no chat template: give one with --chat-template"),
        ("hangs", "was not ready within 3 seconds"),
    ],
)
def test_what_does_not_start_says_why(env: Path, transcripts: Path, tmp_path: Path, model: str, said: str) -> None:
    wait = 3 if model == "hangs" else 60
    made = sample(model, "--vllm", env, "--log", transcripts, "--out", tmp_path / "log.jsonl", "--wait", wait)
    assert made.returncode == 1
    assert said in made.stderr
    assert "its log: " in made.stderr
    assert "Traceback" not in made.stderr
    assert subprocess.run(["pgrep", "-f", f"offline_engine.py --model {model}"], capture_output=True).stdout == b""


def test_a_log_of_steps_is_asked_by_goal_and_keeps_other_students(env: Path, tmp_path: Path) -> None:
    log, out = tmp_path / "log.jsonl", tmp_path / "out.parquet"
    rows = [{"id": i, "goal": f"question {i}", "student": {"other": ["a"]}, "teacher": "go 0"} for i in range(3)]
    log.write_text("".join(json.dumps(row) + "\n" for row in [*rows, {"id": 9, "student": ["a"], "teacher": "b"}]))
    made = sample("good", "--vllm", env, "--log", log, "--out", out, "--n", 2, "--student-price", "1/2")
    assert made.returncode == 0, made.stderr
    assert "left out: 1 steps without goal and observation" in made.stdout
    steps = read_log(out)
    assert [[d.model for d in s.students] for s in steps] == [["other", "hosted_vllm/good"]] * 3
    assert {s.students[1].price.output for s in steps if s.students[1].price} == {2}


def test_a_form_of_the_configuration_holds_here_too(env: Path, transcripts: Path, tmp_path: Path) -> None:
    config = tmp_path / "agentcascade.yaml"
    config.write_text("sampling: {constrain: regex, constraint: 'take [a-z]+'}\n")
    CascadeConfig.load(config)
    out = tmp_path / "log.jsonl"
    arguments = ("--vllm", env, "--log", transcripts, "--out", out, "--n", 1, "--config", config)
    assert sample("good", *arguments).returncode == 0
    assert {s.student.samples[0].action for s in read_log(out)} == {"take [a-z]+"}
    config.write_text("sampling: {constrain: choice}\n")
    assert "a log does not say what was admissible" in sample("good", *arguments).stderr


def test_several_models_in_a_transcript_need_a_teacher(env: Path, tmp_path: Path) -> None:
    log = tmp_path / "mixed.jsonl"
    log.write_text("".join(json.dumps({"model": m, "messages": EPISODE}) + "\n" for m in ("gpt-4o", "llama")))
    arguments = ("--vllm", env, "--log", log, "--out", tmp_path / "out.jsonl")
    assert "several models (gpt-4o, llama): --teacher" in sample("good", *arguments).stderr
    assert "no call of the teacher 'gpt-5'" in sample("good", *arguments, "--teacher", "gpt-5").stderr
    assert "wrote 2 steps" in sample("good", *arguments, "--teacher", "llama").stdout


VLLM = os.environ.get("AGENTCASCADE_VLLM")


@pytest.mark.slow
@pytest.mark.skipif(not VLLM, reason="no vLLM: AGENTCASCADE_VLLM names its virtual environment")
def test_vllm_itself_samples_a_log(transcripts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real engine: seeds reproduce whatever is asked at once, a prompt that is too long harms no other."""
    monkeypatch.setenv("AGENTCASCADE_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "tiny"
    made = subprocess.run([f"{VLLM}/bin/python", TESTS / "tiny_model.py", folder], capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    with transcripts.open("a") as file:
        long = [{"role": "user", "content": "word " * 5000}, EPISODE[-1]]
        file.write(json.dumps({"model": "gpt-4o", "messages": long}) + "\n")
    arguments = ["--vllm", VLLM, "--log", transcripts, "--n", 3, "--max-tokens", 8, "--max-model-len", 1024]
    arguments += ["--cpu-memory", 1, "--wait", 300]
    for at_once in (1, 8):
        out = tmp_path / f"{at_once}.jsonl"
        done = sample(str(folder), *arguments, "--out", out, "--at-once", at_once, "--", "--enforce-eager")
        assert done.returncode == 0, done.stderr[-3000:]
        assert "1 steps have no samples: " in done.stdout
    one, many = (read_log(tmp_path / f"{n}.jsonl") for n in (1, 8))
    assert [s.student.samples for s in one] == [s.student.samples for s in many]
    assert len({x.text for s in one for x in s.student.samples}) > 3
    assert all(x.logprob is not None and x.logprob < 0 for s in one[:3] for x in s.student.samples)
    assert all(s.student.prompt for s in one[:3])
    assert subprocess.run(["pgrep", "-f", f"offline_engine.py --model {folder}"], capture_output=True).stdout == b""
