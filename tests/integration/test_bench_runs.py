"""Whole runs in real worker processes: killed ones go on, dead workers are replaced, broken episodes are losses.

(Not named test_bench.py: pytest would take it for tests/unit/test_bench.py.)
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny_runs import DEMOS, SEEDS, SETTINGS, TASKS, comparable, play

from agentcascade.bench import runner
from agentcascade.bench.policies import POLICIES
from agentcascade.bench.records import EpisodeRecord, EpisodeRunFolder
from agentcascade.bench.runner import RunPlan
from agentcascade.bench.statistics import summarise_policies
from agentcascade.bench.suites.protocol import Task
from agentcascade.bench.worker import Setup
from agentcascade.config.load import CascadeConfig
from agentcascade.errors import BenchError
from tests.inline_pool import plays_here  # noqa: F401


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> list[EpisodeRecord]:
    """An uninterrupted run of all policies."""
    records: list[EpisodeRecord] = play(tmp_path_factory.mktemp("whole"))
    return records


def test_every_policy_plays_every_task_of_every_seed_once(whole: list[EpisodeRecord]) -> None:
    expected = {(p, s, t.id) for p in POLICIES for s in SEEDS for t in TASKS}
    expected |= {("demos", s, t.id) for s in SEEDS for t in DEMOS}
    assert sorted(r.key for r in whole) == sorted(expected)
    assert not [r.error for r in whole if r.error]
    assert all(len(r.decisions) == r.steps > 0 for r in whole)


def test_policies_differ_as_they_should(whole: list[EpisodeRecord]) -> None:
    rows = {row.policy: row for row in summarise_policies(whole, POLICIES)}
    assert [r.trajectory is not None for r in whole] == [r.policy == "demos" for r in whole]
    assert (rows["teacher"].accuracy, rows["teacher"].steps, rows["teacher"].deferral_share) == (1.0, 3.0, 1.0)
    assert rows["student"].deferral_share == rows["student+demos"].deferral_share == 0.0
    assert 0 < rows["cascade"].deferral_share < rows["cascade-no-demos"].deferral_share < 1
    assert rows["student"].accuracy < rows["student+demos"].accuracy
    assert all(row.dollars_per_episode for row in rows.values())
    for record in whole:
        shown = {d.split(":")[0] for decision in record.decisions for d in decision.demonstrations}
        if record.policy in ("student+demos", "cascade"):
            assert shown
            assert shown <= {f"demo-{record.seed}-{i:05d}" for i in range(len(DEMOS))}  # of its own seed
        elif record.policy != "random":
            assert not shown


def test_random_gives_the_teacher_about_the_cascades_share(whole: list[EpisodeRecord]) -> None:
    by_chance = [d for r in whole if r.policy == "random" for d in r.decisions]
    assert {d.reason.split(" ")[0] for d in by_chance} <= {"router", "agreement"}
    share = sum(d.answered_by == "teacher" for d in by_chance) / len(by_chance)
    rows = {row.policy: row for row in summarise_policies(whole, POLICIES)}
    assert share == pytest.approx(rows["cascade"].deferral_share, abs=0.25)


@pytest.mark.usefixtures("plays_here")
@pytest.mark.parametrize("played", [pytest.param(4, marks=pytest.mark.processes), 50])
def test_a_stopped_run_goes_on_to_the_same_records(whole: list[EpisodeRecord], tmp_path: Path, played: int) -> None:
    with pytest.raises(KeyboardInterrupt):
        play(tmp_path, workers=1, stop_after=played)
    before = EpisodeRunFolder(tmp_path, SETTINGS, resume=True)
    kept = list(before)
    before.close()
    assert len(kept) == played
    records = play(tmp_path)
    assert comparable(records) == comparable(whole)
    ids = {r.key: [d.id for d in r.decisions] for r in records}
    assert all(ids[r.key] == [d.id for d in r.decisions] for r in kept)  # not played again
    assert (tmp_path / "episodes.jsonl").read_bytes().count(b"\n") == len(whole)


@pytest.mark.usefixtures("plays_here")
def test_a_finished_run_starts_no_worker_and_more_policies_can_join(tmp_path: Path) -> None:
    first = play(tmp_path, policies=("teacher",), seeds=(0,), workers=1)
    assert {r.policy for r in first} == {"teacher"}  # nothing needs demonstrations
    again = play(tmp_path, policies=("teacher",), seeds=(0,), workers=1, suite="no:Worker")
    assert comparable(again) == comparable(first)
    more = play(tmp_path, policies=("teacher", "student"), seeds=(0,), workers=1)
    assert [r.policy for r in more] == ["teacher"] * 4 + ["student"] * 4


def test_an_episode_whose_worker_died_is_played_again(tmp_path: Path) -> None:
    marker = tmp_path / "died"
    records = play(
        tmp_path / "run", policies=("teacher",), tasks=[*TASKS, Task("deadly", f"die once {marker}")], seeds=(0,)
    )
    assert marker.exists()
    assert sorted(r.task for r in records) == ["deadly", *(t.id for t in TASKS)]
    assert all(r.success and not r.error for r in records)


def test_a_task_that_kills_every_worker_ends_the_run_and_keeps_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "MAX_BROKEN_POOLS", 1)
    tasks = [*TASKS, Task("deadly", "die")]
    with pytest.raises(BenchError, match=r"worker processes died 2 times: .* continue with --resume"):
        play(tmp_path / "run", policies=("teacher",), tasks=tasks, seeds=(0,), workers=1)
    records = play(tmp_path / "run", policies=("teacher",), seeds=(0,), workers=1)
    assert sorted(r.task for r in records) == [t.id for t in TASKS]


@pytest.mark.usefixtures("plays_here")
def test_an_episode_whose_world_breaks_is_a_loss_with_the_reason(tmp_path: Path) -> None:
    records = play(tmp_path, policies=("teacher",), tasks=[Task("broken", "break"), *TASKS], seeds=(0,), workers=1)
    broken, *others = sorted(records, key=lambda r: r.key)
    assert (broken.task, broken.success, broken.error) == ("broken", False, "RuntimeError: the world fell apart")
    assert broken.steps == len(broken.decisions) == 2
    assert broken.dollars == sum(d.dollars or 0 for d in broken.decisions) > 0
    assert all(r.success for r in others)
    (row,) = summarise_policies(records, ["teacher"])
    assert (row.errors, row.accuracy, row.episodes) == (1, 0.8, 5)


@pytest.mark.usefixtures("plays_here")
def test_without_a_successful_demonstration_there_is_nothing_to_learn_from(tmp_path: Path) -> None:
    store = EpisodeRunFolder(tmp_path, SETTINGS, resume=True)
    config = CascadeConfig.model_validate(
        {"teacher": {"name": "tiny_suite:Student"}, "student": {"name": "tiny_suite:Student"}}
    )
    setup = Setup("tiny_suite:Suite", config, {0: store.bank_url(0)})
    plan = RunPlan(setup, ("cascade",), {0: [Task("broken", "break")]}, {0: TASKS})
    with pytest.raises(BenchError, match=r"no demonstration episode succeeded: .* Raise --demos or change --teacher"):
        runner.run_benchmark(plan, store, lambda record, resumed: None)
    store.close()


OPTIONS = [
    "bench",
    "alfworld",
    "--episodes",
    "2",
    "--demos",
    "3",
    "--policy",
    "teacher",
    "--policy",
    "cascade",
    "--embedder",
    "hashing:64",
    "--workers",
    "2",
]


@pytest.mark.slow
@pytest.mark.engine
def test_a_run_killed_with_its_workers_resumes_to_the_same_table(tmp_path: Path, games_cache: str) -> None:
    pytest.importorskip("alfworld")
    environment = {k: v for k, v in os.environ.items() if k != "ALFWORLD_DATA"}
    environment["AGENTCASCADE_CACHE"] = games_cache

    def bench(out: str, *more: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "agentcascade", *OPTIONS, "--out", str(tmp_path / out), *more]
        return subprocess.Popen(
            command,
            env=environment,
            text=True,
            start_new_session=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def finish(process: subprocess.Popen[str]) -> str:
        output, _ = process.communicate(timeout=120)
        assert process.returncode == 0, output
        return output

    killed = bench("killed", "--workers", "2")
    episodes, deadline = tmp_path / "killed" / "episodes.jsonl", time.monotonic() + 300
    while not (episodes.exists() and episodes.read_bytes().count(b"\n") >= 4) and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    kept = episodes.read_bytes()[: episodes.read_bytes().rfind(b"\n") + 1]
    assert 4 <= kept.count(b"\n") < 7
    assert not (tmp_path / "killed" / "results.json").exists()

    both = bench("killed", "--resume", "--workers", "1"), bench("whole", "--workers", "1")
    resumed, said = map(finish, both)
    assert episodes.read_bytes().startswith(kept)
    results, whole = (json.loads((tmp_path / f / "results.json").read_text()) for f in ("killed", "whole"))
    assert results["policies"] == whole["policies"]
    assert [p["policy"] for p in whole["policies"]] == ["teacher", "cascade"]
    assert (results["break_even_episodes"], results["run"]["models_are"]) == (whole["break_even_episodes"], "stand-in")
    for output in (resumed, said):
        assert "Neither is a language model" in " ".join(output.split())
