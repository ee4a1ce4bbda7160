"""AppWorld's environment against a server that dies, hangs and lies; what is asked of an installation."""

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
from click.testing import CliRunner

from agentcascade.cli import main
from agentcascade.envs.appworld import agent, installation
from agentcascade.envs.appworld import environment as module
from agentcascade.envs.appworld.environment import AppWorldEnvironment, visible_output
from agentcascade.envs.appworld.server import AppWorldServer, ServerGone
from agentcascade.errors import EnvironmentFailed
from agentcascade.types import Action, Message

FAKE = Path(__file__).parents[2] / "fake_appworld.py"
TASK = "hello_1"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    truth = tmp_path / "data" / "tasks" / TASK / "ground_truth"
    truth.mkdir(parents=True)
    (truth.parent / "specs.json").write_text("{}")
    steps = [{"thought": "I greet.", "code": "say('hello')"}, {"thought": "I end.", "code": "say('done')"}]
    (truth / "solution.json").write_text(json.dumps(steps))
    (tmp_path / "data" / "datasets").mkdir()
    (tmp_path / "data" / "datasets" / "train.txt").write_text("hello_1\nhello_2:hard\n\n")
    return tmp_path


@pytest.fixture
def world(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AppWorldEnvironment]:
    monkeypatch.setattr(module, "GRACE", 1)
    server = AppWorldServer(root, command=[sys.executable, str(FAKE)])
    made = AppWorldEnvironment(server=server, seconds=1, expert=True, max_steps=20)
    yield made
    made.close()


def executed(root: Path) -> list[str]:
    return (root / "executed").read_text().splitlines()


def test_an_episode_ends_when_the_task_is_completed_and_is_judged(world: AppWorldEnvironment) -> None:
    first = world.reset(TASK)
    assert first.endswith("Your task is to: Say hello.")
    assert "Ann Lee" in first
    assert world.step("say hello") == ("hello", False)
    assert not world.success
    assert world.step("say done") == ("hello done", True)
    assert world.success
    world.reset(TASK)
    assert not world.success


def test_it_ends_after_so_many_steps(world: AppWorldEnvironment) -> None:
    world.max_steps = 2
    world.reset(TASK)
    assert [world.step(f"say {i}")[1] for i in range(2)] == [False, True]


def test_an_unknown_task_is_named_with_its_neighbour(world: AppWorldEnvironment) -> None:
    for name in ("hello_2", "../tasks", ""):
        with pytest.raises(EnvironmentFailed, match="there is no AppWorld task"):
            world.reset(name)
    with pytest.raises(EnvironmentFailed, match="did you mean 'hello_1'"):
        world.reset("hello_3")
    assert world.server.starts == 0


def test_without_a_task_nothing_can_be_done(world: AppWorldEnvironment) -> None:
    with pytest.raises(EnvironmentFailed, match="call reset first"):
        world.step("say hello")
    with pytest.raises(EnvironmentFailed, match="call reset first"):
        world.success  # noqa: B018


def test_a_server_that_is_killed_between_steps_is_replaced_and_its_world_brought_back(
    world: AppWorldEnvironment, root: Path
) -> None:
    world.reset(TASK)
    world.step("say hello")
    assert world.server.pid is not None
    os.kill(world.server.pid, signal.SIGKILL)
    assert world.step("say done") == ("hello done", True)
    assert world.success
    assert world.server.starts == 2
    assert executed(root) == ["say hello", "say hello", "say done"]


def test_code_whose_server_dies_once_is_run_again_in_the_world_before_it(
    world: AppWorldEnvironment, root: Path
) -> None:
    world.reset(TASK)
    world.step("say hello")
    assert world.step("die-once now") == ("hello now", False)
    assert executed(root) == ["say hello", "die-once now", "say hello", "die-once now"]


def test_code_that_kills_its_server_is_answered_as_failed_and_never_run_again(
    world: AppWorldEnvironment, root: Path
) -> None:
    world.reset(TASK)
    world.step("say hello")
    observation, done = world.step("die")
    assert observation.startswith("Execution failed.")
    assert "The process ended" in observation
    assert not done
    assert world.step("say done") == ("hello done", True)
    assert world.success
    assert executed(root).count("die") == 2


def test_code_that_hangs_is_killed_and_answered_as_timed_out(world: AppWorldEnvironment, root: Path) -> None:
    world.reset(TASK)
    started = time.monotonic()
    observation, _ = world.step("hang")
    assert "Execution timed out after 1 seconds" in observation
    assert time.monotonic() - started < 60
    assert world.step("say hello") == ("hello", False)
    assert executed(root).count("hang") == 1


def test_a_failure_of_appworlds_own_is_part_of_the_world_that_is_brought_back(
    world: AppWorldEnvironment, root: Path
) -> None:
    world.reset(TASK)
    assert world.step("fail")[0].startswith("Execution failed.")
    os.kill(world.server.pid or 0, signal.SIGKILL)
    world.step("say hello")
    assert executed(root) == ["fail", "fail", "say hello"]


def test_a_world_that_comes_out_otherwise_ends_the_episode(world: AppWorldEnvironment) -> None:
    world.reset(TASK)
    world.step("clock")
    os.kill(world.server.pid or 0, signal.SIGKILL)
    with pytest.raises(EnvironmentFailed, match="cannot be brought back"):
        world.step("say hello")
    world.reset(TASK)
    assert world.step("say hello") == ("hello", False)


def test_addresses_in_memory_do_not_make_another_world(world: AppWorldEnvironment, root: Path) -> None:
    assert module.is_same_output("<function at 0x7f00>", "<function at 0x7fff>")
    assert not module.is_same_output("0x7f00 a", "0x7f00 b")


def test_a_server_that_cannot_start_says_why(world: AppWorldEnvironment, root: Path) -> None:
    (root / "broken").touch()
    with pytest.raises(EnvironmentFailed, match="did not start: ModuleNotFoundError: no module named appworld"):
        world.reset(TASK)
    (root / "broken").unlink()
    assert world.reset(TASK)


def test_what_the_server_refuses_is_told(world: AppWorldEnvironment) -> None:
    world.reset(TASK)
    with pytest.raises(EnvironmentFailed, match="AppWorld refused fly"):
        world.server.call("fly", {}, 5)


def test_dry_runs_join_only_what_reads_and_says_something(world: AppWorldEnvironment) -> None:
    world.reset(TASK)

    def tried(code: str) -> str | None:
        return world.dry_run(Action(key=code, text=code))

    assert tried("look") == "look"
    assert tried("say hello") is None
    assert tried("Execution successful.") is None
    assert tried("Execution successful. = b2") == "b2"
    assert tried("look = b2") == "look"
    assert tried("Execution failed. Traceback") is None
    assert tried("hang") is None
    assert tried("die") is None
    assert world.step("say hello") == ("hello", False)


def test_a_dry_run_after_a_death_is_one_in_the_world_that_was(world: AppWorldEnvironment, root: Path) -> None:
    world.reset(TASK)
    world.step("say hello")
    os.kill(world.server.pid or 0, signal.SIGKILL)
    assert world.dry_run(Action(key="look", text="look")) == "look"
    assert executed(root) == ["say hello", "say hello"]
    assert world.step("say done") == ("hello done", True)
    assert world.success


def test_half_a_character_is_sent_as_a_question_mark(world: AppWorldEnvironment) -> None:
    world.reset(TASK)
    assert world.step("say \ud800x") == ("?x", False)
    assert world.dry_run(Action(key="k", text="\ud800")) == "?"


def test_the_expert_goes_on_with_what_is_not_done(root: Path) -> None:
    made = AppWorldEnvironment(server=AppWorldServer(root, command=[sys.executable, str(FAKE)]), expert=True)
    made.reset(TASK)
    assert made.expert_outline() == "1. I greet.\n2. I end."
    assert made.expert_answer() == "Thought: I greet.\nAction:\n```python\nsay('hello')\n```"
    made._blocks.append(module.ExecutedBlock('say("hello")  # as it was written by another', "hello"))
    assert "I end." in made.expert_answer()
    made._blocks.append(module.ExecutedBlock("say('done')", "Execution failed. Traceback"))
    assert "I end." in made.expert_answer()
    made._blocks.append(module.ExecutedBlock("say('done')", "done"))
    assert "I end." in made.expert_answer()
    made.close()
    plain = AppWorldEnvironment(server=AppWorldServer(root))
    with pytest.raises(EnvironmentFailed, match="generated worlds alone"):
        plain.expert_steps()


def test_long_outputs_are_cut_for_the_agent_alone() -> None:
    assert visible_output("x" * module.MAX_CHARACTERS) == "x" * module.MAX_CHARACTERS
    assert visible_output("x" * (module.MAX_CHARACTERS + 1000)).endswith("[1,000 more characters are not shown]")


def test_what_a_server_writes_is_gone_with_it(world: AppWorldEnvironment) -> None:
    world.reset(TASK)
    scratch = world.server._scratch
    assert scratch is not None
    assert (scratch / "data" / "tasks" / TASK).is_dir()
    world.close()
    assert not scratch.exists()
    assert (world.server.root / "data" / "tasks" / TASK).is_dir()


def test_calls_after_a_silence_get_a_new_server(world: AppWorldEnvironment) -> None:
    world.reset(TASK)
    with pytest.raises(ServerGone) as caught:
        world.server.call("execute", {"task_id": TASK, "code": "hang"}, 0.5)
    assert caught.value.hung
    assert world.server.pid is None


async def test_the_agent_runs_what_it_answers_until_the_task_is_done(world: AppWorldEnvironment) -> None:
    answers = iter(
        ["Thought: a\nAction:\n```python\nprint('hello')\n```", "Action: say hello (", "```\nsay = done\n```"]
    )
    seen: list[int] = []

    async def complete(messages: list[Message]) -> str:
        seen.append(len(messages))
        return next(answers)

    world.max_steps = 3
    played = await agent.play(world, TASK, complete)
    assert [code for code, _ in played.trace] == ["print('hello')", "say hello (", "say = done"]
    assert seen == [2, 4, 6]
    assert played.steps == 3
    assert not played.success


def test_the_goal_is_read_off_the_first_message() -> None:
    first = "My name is Ann.\nYour task is to: Say hello.\nTwice."
    assert agent.goal([{"role": "system", "content": ""}, {"role": "user", "content": first}]) == "Say hello.\nTwice."


def test_splits_are_read_without_tags_and_unknown_ones_are_named(root: Path) -> None:
    assert installation.task_ids(root, "train") == ("hello_1", "hello_2")
    with pytest.raises(EnvironmentFailed, match="no split 'trian': did you mean 'train'"):
        installation.task_ids(root, "trian")


def test_what_is_not_installed_says_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTCASCADE_CACHE", str(tmp_path))
    monkeypatch.delenv("APPWORLD_ROOT", raising=False)
    for ask in (installation.interpreter, installation.appworld_root):
        with pytest.raises(EnvironmentFailed, match="agentcascade env install appworld"):
            ask()


def test_a_root_without_data_is_refused(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APPWORLD_ROOT", str(root))
    assert installation.official_root() == installation.appworld_root() == root
    monkeypatch.setenv("APPWORLD_ROOT", str(tmp_path / "elsewhere"))
    with pytest.raises(EnvironmentFailed, match="holds no data/tasks"):
        installation.official_root()


def test_an_installation_that_fails_tells_the_last_line_and_is_not_taken_for_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENTCASCADE_CACHE", str(tmp_path))
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho first >&2\necho No space left on device >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(broken))
    with pytest.raises(EnvironmentFailed, match="making a virtual environment failed: No space left on device"):
        installation.install_appworld()
    with pytest.raises(EnvironmentFailed, match="is not installed"):
        installation.interpreter()


def test_worlds_that_fail_half_way_are_not_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "python"
    broken.write_text('#!/bin/sh\necho \'{"made": 1, "of": 2}\'\necho not json\necho sqlite is broken >&2\nexit 1\n')
    broken.chmod(0o755)
    monkeypatch.setattr(installation, "interpreter", lambda: broken)
    told: list[tuple[str, int, int]] = []
    with pytest.raises(EnvironmentFailed, match="worlds could not be generated: sqlite is broken"):
        installation.generate_worlds(tmp_path / "made" / "worlds", 0, {"train": 2}, lambda *said: told.append(said))
    assert told == [("generating worlds", 0, 2), ("generating worlds", 1, 2)]
    assert list((tmp_path / "made").iterdir()) == []


def test_a_server_ends_with_the_process_that_started_it(root: Path) -> None:
    program = (
        "import sys, time\nfrom pathlib import Path\nfrom agentcascade.envs.appworld.server import AppWorldServer\n"
        f"server = AppWorldServer(Path({str(root)!r}), command=[sys.executable, {str(FAKE)!r}])\n"
        "server.call('initialize', {'task_id': 'hello_1'}, 60)\nprint(server.pid, flush=True)\ntime.sleep(600)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 60
    while Path(f"/proc/{child}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(f"/proc/{child}").exists()


def test_the_command_line_lists_and_installs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    monkeypatch.setenv("AGENTCASCADE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("APPWORLD_ROOT", "")
    missing = CliRunner().invoke(main, ["env", "list"])
    assert "not installed here: run `agentcascade env install appworld`" in missing.output
    wrong = CliRunner().invoke(main, ["env", "install", "appwold"])
    assert wrong.exit_code == 2
    bench = CliRunner().invoke(main, ["bench", "appworld", "--out", str(tmp_path / "run")])
    assert bench.exit_code != 0
    assert "agentcascade env install appworld" in bench.output
    assert not (tmp_path / "run").exists()

    def made(on_progress: installation.OnProgress) -> None:
        on_progress("installing", 1, 2)
        installation.install_folder().mkdir(parents=True)
        (installation.install_folder() / "installed").touch()

    monkeypatch.setattr(installation, "install_appworld", made)
    monkeypatch.setattr(installation, "generated_root", lambda: root)
    done = CliRunner().invoke(main, ["env", "install", "appworld"])
    assert done.exit_code == 0, done.output
    assert "agentcascade bench appworld" in done.output
    assert "generated worlds" in CliRunner().invoke(main, ["env", "list"]).output
    again = CliRunner().invoke(main, ["env", "install", "appworld", "--fresh"])
    assert again.exit_code == 0, "what was there is removed first"
