"""A benchmark's log of steps, and the tuned rule that is played; the first log is made in real worker processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from tiny_runs import play as play_policies

from agentcascade.bench import runner
from agentcascade.bench.policies import SHADOW, TUNED, apply_rule
from agentcascade.bench.records import EpisodeRecord, EpisodeRunFolder
from agentcascade.bench.runner import RunPlan
from agentcascade.bench.step_log import logged_steps
from agentcascade.bench.suites.protocol import Task
from agentcascade.bench.worker import Setup
from agentcascade.cli import main
from agentcascade.cli.bench_options import chosen_policies, read_rule
from agentcascade.config.load import CascadeConfig
from agentcascade.errors import AgentCascadeError, BenchError, ConfigError
from agentcascade.models.pricing import PriceTable
from agentcascade.steplog import jsonl
from agentcascade.steplog.types import LoggedStep
from agentcascade.types import Usage
from tests.inline_pool import plays_here  # noqa: F401

pytestmark = pytest.mark.usefixtures("plays_here")

DEMOS = [Task(f"demo {i}", f"count demo{i}") for i in range(3)]
TASKS = [Task(f"task {i}", f"count task{i}", "counting") for i in range(4)]
PRICES = PriceTable({"scripted": {"input": 1, "output": 2}})
BASE = {
    "teacher": {"name": "tiny_suite:Teacher"},
    "student": {"name": "tiny_suite:Student"},
    "retrieval": {"embedder": "hashing:64", "index": "exact", "k": 2},
    "actions": {"format": "react"},
    "shadow": {"samples": 5, "temperatures": [0.2, 0.8], "ks": [1, 2]},
}


def play(folder: Path, policies: tuple[str, ...], rule: Any = None, tasks: list[Task] = TASKS) -> list[EpisodeRecord]:
    config = CascadeConfig.model_validate(BASE)
    store = EpisodeRunFolder(folder, {"suite": "tiny"}, resume=True)
    tuned = apply_rule(config, rule) if rule else None
    setup = Setup("tiny_suite:Suite", config, {0: store.bank_url(0)}, tuned)
    try:
        return runner.run_benchmark(
            RunPlan(setup, policies, {0: DEMOS}, {0: tasks}, 2), store, lambda record, resumed: None
        )
    finally:
        store.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("log")


@pytest.fixture(scope="module")
def records(folder: Path) -> list[EpisodeRecord]:
    return play(folder, (SHADOW,), tasks=[*TASKS, Task("broken", "break")])


@pytest.fixture(scope="module")
def steps(records: list[EpisodeRecord]) -> list[LoggedStep]:
    return list(logged_steps(records, PRICES))


def test_every_step_of_the_teacher_is_in_the_log_once_with_all_samples(
    records: list[EpisodeRecord], steps: list[LoggedStep]
) -> None:
    whole = [step for step in steps if step.episode != "shadow-0-4"]
    assert [(s.episode, s.step) for s in whole] == [(f"shadow-0-{i}", j) for i in range(4) for j in range(3)]
    assert [s.teacher for s in whole[:3]] == ["say 1", "say 2", "say 3"]
    assert {len(s.student.samples) for s in steps} == {5}
    assert {(s.category, s.success, s.kind) for s in whole} == {("counting", True, "shadow")}
    assert {s.goal for s in whole} == {f"count to three (task{i})." for i in range(4)}
    assert len({s.id for s in steps}) == len(steps)
    answers = {sample.action for s in whole for sample in s.student.samples}
    assert {"say 9", "say 1", "say 2", "say 3"} == answers, "a student that is sometimes wrong"


def test_each_step_is_asked_at_one_of_the_settings(steps: list[LoggedStep]) -> None:
    assert {s.student.temperature for s in steps} == {0.2, 0.8}
    assert {s.student.k for s in steps} == {1, 2}
    assert all(len(s.student.demonstrations) == s.student.k for s in steps)
    assert all(s.student.similarity for s in steps)


def test_the_bill_of_a_step_is_in_the_log_and_the_run_has_paid_for_all(
    records: list[EpisodeRecord], steps: list[LoggedStep]
) -> None:
    record = next(r for r in records if r.policy == SHADOW and r.index == 0)
    [acted], [drawn] = record.decisions[0].calls, record.shadows[0].calls
    step = steps[0]
    assert step.teacher_usage == acted.usage
    assert step.student.prompt == Usage(input=drawn.usage.input)
    assert sum(s.tokens or 0 for s in step.student.samples) == drawn.usage.output
    assert step.student.price is not None
    assert step.student.price.input == Decimal(1)
    bills = [decision.calls for decision in record.decisions] + [shadow.calls for shadow in record.shadows]
    assert record.dollars == sum((call.dollars or Decimal(0) for calls in bills for call in calls), Decimal(0))


def test_a_broken_episode_is_a_lost_one(steps: list[LoggedStep]) -> None:
    broken = [s for s in steps if s.episode == "shadow-0-4"]
    assert broken
    assert {s.success for s in broken} == {False}


def test_the_same_run_gives_the_same_log_and_a_file_gives_it_back(
    folder: Path, steps: list[LoggedStep], tmp_path: Path
) -> None:
    again = play(tmp_path / "again", (SHADOW,), tasks=[*TASKS, Task("broken", "break")])
    assert list(logged_steps(again, PRICES)) == steps
    resumed = play(folder, (SHADOW,), tasks=[*TASKS, Task("broken", "break")])
    assert list(logged_steps(resumed, PRICES)) == steps
    assert jsonl.write_jsonl(tmp_path / "log.jsonl", steps) == len(steps)
    assert jsonl.read_jsonl(tmp_path / "log.jsonl") == steps


def test_other_policies_log_nothing(tmp_path: Path) -> None:
    records = play_policies(tmp_path, policies=("cascade",), seeds=(0,))
    assert not [shadow for record in records for shadow in record.shadows]
    assert list(logged_steps(records, PRICES)) == []


def test_the_tuned_rule_is_played_beside_the_cascade(tmp_path: Path) -> None:
    rule = {
        "router": {"name": "threshold", "options": {"n": 5, "threshold": 0.6}},
        "sampling": {"temperature": 0.7, "staged": "never"},
        "retrieval": {"k": 1},
    }
    found = play(tmp_path, ("cascade", TUNED), rule)
    samples = {p: {d.samples for r in found if r.policy == p for d in r.decisions} for p in ("cascade", TUNED)}
    assert samples[TUNED] == {5}
    assert max(samples["cascade"]) == 3
    shown = {len(d.demonstrations) for r in found if r.policy == TUNED for d in r.decisions}
    assert shown == {1}


@pytest.mark.parametrize(
    ("rule", "complaint"),
    [
        ({"routers": {}}, r"'routers' is not part of a rule: did you mean 'router'"),
        ({"router": {"nam": "x"}}, "nam"),
        ({"sampling": {"temperature": 7}}, "temperature"),
    ],
)
def test_a_rule_that_cannot_be_played_is_refused(rule: dict[str, Any], complaint: str) -> None:
    with pytest.raises((AgentCascadeError, ValueError), match=complaint):
        apply_rule(CascadeConfig.model_validate(BASE), rule)


def test_a_rules_sections_leave_the_rest_as_it_is() -> None:
    base = CascadeConfig.model_validate(BASE)
    made = apply_rule(base, {"router": {"name": "unanimity", "options": {"n": 2}}, "sampling": {"temperature": 0.5}})
    assert made.sampling == base.sampling.model_copy(update={"temperature": 0.5})
    assert (made.teacher, made.retrieval) == (base.teacher, base.retrieval)


def options(**given: Any) -> dict[str, Any]:
    return {"policies": (), "log": None, "rule": None, "log_ks": (), "k": 6} | given


def test_a_log_asks_for_its_own_policy_alone_and_a_rule_for_one_more() -> None:
    assert chosen_policies(options(log=Path("log.jsonl"))) == (SHADOW,)
    assert chosen_policies(options(log=Path("log.jsonl"), policies=("teacher",))) == (SHADOW, "teacher")
    assert chosen_policies(options(rule=Path("rule.yaml")))[0] == TUNED
    assert len(chosen_policies(options())) == 6
    for wrong in ({"policies": (SHADOW,)}, {"policies": (TUNED,)}, {"log_ks": (3,), "k": 0}):
        with pytest.raises(click.UsageError):
            chosen_policies(options(**wrong))
    with pytest.raises(BenchError, match="shadow"):
        chosen_policies(options(policies=("shadows",)))


def test_a_rules_file_is_read_or_named_with_what_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "rule.yaml"
    path.write_text("router: {name: unanimity, options: {n: 4}}\n")
    assert read_rule(path) == {"router": {"name": "unanimity", "options": {"n": 4}}}
    assert read_rule(None) is None
    for text in ("router: unanimity", "- 1", "router: {"):
        path.write_text(text)
        with pytest.raises(ConfigError, match=r"rule\.yaml"):
            read_rule(path)


@pytest.mark.slow
@pytest.mark.engine
def test_the_command_writes_a_log_and_plays_a_rule_and_a_resumed_run_writes_the_same(
    tmp_path: Path, games_cache: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("alfworld")
    monkeypatch.delenv("ALFWORLD_DATA", raising=False)
    monkeypatch.setenv("AGENTCASCADE_CACHE", games_cache)
    rule = tmp_path / "rule.yaml"
    rule.write_text("router: {name: threshold, options: {n: 4, threshold: 0.75}}\nretrieval: {k: 2}\n")

    def bench(*more: str) -> list[str]:
        sizes = ("--episodes", "1", "--demos", "3", "--embedder", "hashing:64", "--out", str(tmp_path / "run"))
        return ["bench", "alfworld", *sizes, *more]

    settings = ("--log-samples", "4", "--log-temperature", "0.1", "--log-temperature", "0.6", "--log-k", "2")
    first = bench("--log", str(tmp_path / "log.jsonl"), "--rule", str(rule), "--policy", "cascade", *settings)
    command = [sys.executable, "-m", "agentcascade", *first]
    done = subprocess.run(command, env=dict(os.environ), text=True, capture_output=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert [p["policy"] for p in results["policies"]] == [SHADOW, TUNED, "cascade"]
    steps = jsonl.read_jsonl(tmp_path / "log.jsonl")
    assert {len(s.student.samples) for s in steps} == {4}
    assert {s.student.temperature for s in steps} <= {0.1, 0.6}
    assert {(s.student.k, len(s.student.demonstrations)) for s in steps} == {(2, 2)}
    assert all(s.category and s.success and s.teacher_price and s.teacher_usage for s in steps)
    again = CliRunner().invoke(main, bench("--resume", "--log", str(tmp_path / "again.jsonl"), "--policy", "cascade"))
    assert again.exit_code == 0, again.output
    assert (tmp_path / "again.jsonl").read_bytes() == (tmp_path / "log.jsonl").read_bytes()
