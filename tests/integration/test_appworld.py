"""AppWorld itself, in its own virtual environment: generated worlds, their judge, servers that die, the benchmark."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from agentcascade.cli import main
from agentcascade.envs.appworld import environment, installation
from agentcascade.envs.appworld.environment import AppWorldEnvironment
from agentcascade.envs.appworld.server import AppWorldServer
from agentcascade.errors import EnvironmentFailed
from agentcascade.types import Action

SCENARIOS = {"train": 8, "dev": 1, "test_normal": 1, "test_challenge": 3}
"""One of each kind to learn from, and one of each kind to be challenged by"""


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """AppWorld, installed where it is not yet."""
    with pytest.MonkeyPatch.context() as patch:
        folder = Path(os.environ.get("AGENTCASCADE_CACHE") or tmp_path_factory.mktemp("cache"))
        patch.setenv("AGENTCASCADE_CACHE", str(folder))
        try:
            installation.install_package()
        except EnvironmentFailed as error:
            pytest.skip(f"AppWorld cannot be installed here: {error}")
        yield folder


@pytest.fixture(scope="module")
def root(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with small worlds, which are generated again where the programs that make them have changed."""
    numbers = "-".join(map(str, SCENARIOS.values()))
    kept = installation.install_folder() / f"{installation.generated_root().name}-of-tests-{numbers}"
    if not kept.is_dir():
        installation.generate_worlds(kept, 7, SCENARIOS)
    made = tmp_path_factory.mktemp("worlds")
    (made / "data").symlink_to(kept / "data")  # outputs are written beside it
    return made


@pytest.fixture(scope="module")
def server(root: Path) -> Iterator[AppWorldServer]:
    made = AppWorldServer(root)
    yield made
    made.stop()


@pytest.fixture
def world(server: AppWorldServer) -> AppWorldEnvironment:
    return AppWorldEnvironment(server=server, seconds=60, expert=True)


def play(world: AppWorldEnvironment, task: str, *, but: int | None = None) -> bool:
    """Play the known solution, or all of it but one step; whether the judge is content."""
    world.reset(task)
    return go_on(world, but=but)


def go_on(world: AppWorldEnvironment, *, but: int | None = None) -> bool:
    """The same in the world as it is."""
    steps = world.expert_steps()
    for i, (_, code) in enumerate(steps):
        if i != (None if but is None else but % len(steps)):
            world.step(code)
    return world.success


def every(root: Path) -> list[str]:
    return [task for split in SCENARIOS for task in installation.task_ids(root, split)]


def about(root: Path, task: str) -> dict[str, Any]:
    truth = root / "data" / "tasks" / task / "ground_truth"
    found: dict[str, Any] = json.loads((truth / "metadata.json").read_text())
    return found | {"answer": json.loads((truth / "answer.json").read_text())}


def test_every_generated_task_is_solved_by_its_solution_and_by_nothing_less(
    world: AppWorldEnvironment, root: Path
) -> None:
    tasks = every(root)
    assert len(tasks) == len(set(tasks)) == 3 * sum(SCENARIOS.values())
    assert len({about(root, t)["template"] for t in tasks}) == 11
    instructions = [json.loads((root / "data" / "tasks" / t / "specs.json").read_text()) for t in tasks]
    assert len({(i["instruction"], i["supervisor"]["email"]) for i in instructions}) == len(tasks)
    for task in {about(root, t)["template"]: t for t in tasks[::3]}.values():  # one of each kind
        world.reset(task)
        nothing = world.verdict
        assert not nothing["success"]
        assert [p["label"] for p in nothing["passes"]] == ["no_op_pass"]
        assert {f["label"] for f in nothing["failures"]} == {"no_op_fail"}
        assert go_on(world), "the judge has left the world as it was"
        assert world.step("print(1)")[1]


def test_the_judge_sees_what_was_left_undone_and_what_was_done_too_much(world: AppWorldEnvironment, root: Path) -> None:
    by_kind = {about(root, t)["template"]: t for t in every(root)}
    assert not play(world, by_kind["like_playlist"], but=-1)
    assert not play(world, by_kind["like_playlist"], but=-2)
    assert world.step("print(1)")[1]
    assert not world.success
    for kind, more in (
        ("complete_chores", "apis.todoist.create_project(name='New', access_token=todoist_token)"),
        (
            "silence_alarms",
            "apis.phone.update_alarm(alarm_id=alarms[0]['alarm_id'], label='x', access_token=phone_token)",
        ),
        (
            "text_contacts",
            "person = people[0]\n"
            "apis.phone.send_text_message(phone_number=person['phone_number'], message='x', access_token=phone_token)",
        ),
        ("library_question", "apis.supervisor.complete_task(answer='Another Song')"),
        ("note_total", "apis.supervisor.complete_task(answer=total + 1)"),
        ("delete_files", "apis.file_system.create_file(file_path='~/x.txt', access_token=file_system_token)"),
    ):
        assert play(world, by_kind[kind]), kind
        assert not world.step(more)[0].startswith("Execution failed"), kind
        assert not world.success, kind


def test_loops_floods_and_deaths_do_not_end_an_episode(
    world: AppWorldEnvironment, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(world, "seconds", 3)
    world.reset(installation.task_ids(root, "train")[0])
    starts = world.server.starts
    steps = [code for _, code in world.expert_steps()]
    world.step(steps[0])
    assert "timed out after 3 seconds" in world.step("while True: pass")[0]
    flooded, _ = world.step("print('a' * 10_000_000)")
    assert len(flooded) < 25_000
    assert "more characters" in flooded
    assert "MemoryError" in world.step("x = [0] * 10 ** 10")[0]
    assert world.step("print('\\ud800x')")[0] == "?x"
    assert "not allowed" in world.step("import os\nos._exit(1)")[0]
    assert world.server.starts == starts
    world.step(steps[1])
    assert world.server.pid is not None
    os.kill(world.server.pid, signal.SIGKILL)
    for code in steps[2:]:
        _, done = world.step(code)
    assert done
    monkeypatch.setattr(world, "seconds", 60)
    assert world.success
    assert world.server.starts == starts + 1


def test_code_that_no_clock_stops_is_killed(
    world: AppWorldEnvironment, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(world, "seconds", 3)
    world.reset(installation.task_ids(root, "train")[0])
    starts = world.server.starts
    world.step("kept = 5")
    with monkeypatch.context() as hasty:
        hasty.setattr(environment, "GRACE", 1)
        block = world._execute("sum(range(10 ** 13))")
    world._blocks.append(block)
    assert "timed out" in block.output
    assert world.step("print(kept)")[0] == "5"
    assert world.server.starts == starts + 1


def test_dry_runs_leave_the_world_as_it_is(
    world: AppWorldEnvironment, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.reset(installation.task_ids(root, "train")[0])

    def tried(code: str) -> str | None:
        return world.dry_run(Action(key=code, text=code))

    assert (
        tried("x = 5\nprint(apis.supervisor.show_profile()['email'])")
        == world.step("print(apis.supervisor.show_profile()['email'])")[0] + "\n"
    )
    assert tried("print(apis.supervisor.complete_task())") is None
    assert tried("x = 5") == tried("x = 2 + 3  # the same") != tried("x = 6")
    assert tried("x = 5") == tried("y = 5")
    log_in = "print(apis.spotify.login(username=me['email'], password=passwords['spotify']))"
    world.step("passwords = {a['account_name']: a['password'] for a in apis.supervisor.show_account_passwords()}")
    world.step("me = apis.supervisor.show_profile()")
    assert tried(log_in) == tried(log_in) == world.step(log_in)[0] + "\n", "a fork has its world's luck"
    assert tried("pass") is None
    assert tried("print(x)") is None
    assert tried("1 / 0") is None
    with monkeypatch.context() as hasty:
        hasty.setattr(world, "seconds", 2)
        assert tried("while True: pass") is None
    assert "NameError" in world.step("print(x)")[0]
    assert world.step("print(6)") == ("6", False)
    assert not world.success


def test_appworlds_own_command_line_gives_the_same_verdicts(root: Path) -> None:
    world = AppWorldEnvironment(
        seconds=60, experiment="ours", expert=True, server=AppWorldServer(root, keep_outputs=True)
    )
    split = "dev"
    ours = {}
    for i, task in enumerate(installation.task_ids(root, split)):
        ours[task] = play(world, task, but=-2 if i % 4 == 1 else None)
    world.close()
    assert sorted(set(ours.values())) == [False, True]
    command = [str(installation.interpreter()), "-m", "appworld.cli", "evaluate", "ours", split, "--root", str(root)]
    subprocess.run(command, check=True, env=installation.child_variables(root), capture_output=True)
    said = json.loads((root / "experiments" / "outputs" / "ours" / "evaluations" / f"{split}.json").read_text())
    assert {task: verdict["success"] for task, verdict in said["individual"].items()} == ours
    scenarios = {task.partition("_")[0] for task in ours}
    whole = [all(won for task, won in ours.items() if task.startswith(name)) for name in scenarios]
    assert said["aggregate"]["task_goal_completion"] == pytest.approx(100 * sum(ours.values()) / len(ours), abs=0.06)
    assert said["aggregate"]["scenario_goal_completion"] == pytest.approx(100 * sum(whole) / len(whole), abs=0.06)


def test_the_benchmark_plays_and_resumes(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = installation.install_folder()
    monkeypatch.setenv("AGENTCASCADE_CACHE", str(tmp_path / "cache"))  # which the workers see, too
    installation.install_folder().mkdir(parents=True)
    for name in ("venv", "installed", "cache"):
        (installation.install_folder() / name).symlink_to(installed / name)
    installation.generated_root().symlink_to(root)
    monkeypatch.delenv("APPWORLD_ROOT", raising=False)
    out = str(tmp_path / "run")
    options = [
        "--demos",
        "3",
        "--policy",
        "teacher",
        "--policy",
        "cascade",
        "--dry-run",
        "--workers",
        "1",
        "--out",
        out,
    ]
    first = CliRunner().invoke(main, ["bench", "appworld", "--episodes", "3", *options])
    assert first.exit_code == 0, first.output
    assert "tasks were generated in small worlds" in " ".join(first.output.split())
    assert "scenarios solved whole: teacher 1.000" in first.output
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["run"]["tasks"] == "generated"
    before = (tmp_path / "run" / "results.csv").read_text()
    again = CliRunner().invoke(main, ["bench", "appworld", "--episodes", "3", *options, "--resume"])
    assert again.exit_code == 0, again.output
    assert (tmp_path / "run" / "results.csv").read_text() == before
    listed = CliRunner().invoke(main, ["env", "list"])
    assert "generated worlds" in listed.output
    assert "train 24" in listed.output
