"""ALFWorld in the real engine: games made here, the engine made fast, the planner as expert."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("alfworld")

from agentcascade.envs.alfworld import agent, games, scenes
from agentcascade.envs.alfworld.dataset import Game, load_games
from agentcascade.envs.alfworld.environment import AlfworldEnvironment
from agentcascade.envs.offline.expert import Expert
from agentcascade.errors import EnvironmentFailed

pytestmark = pytest.mark.engine

SEED = 6
COUNT = 10


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> list[Game]:
    """Ten games, with all six task types among them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("ALFWORLD_DATA", raising=False)
        return load_games("valid_unseen", COUNT, SEED, root=tmp_path_factory.mktemp("games"))


@pytest.fixture(scope="module")
def world() -> AlfworldEnvironment:
    return AlfworldEnvironment(expert=True)


def contents(paths: list[Path]) -> dict[str, bytes]:
    return {str(f.relative_to(p.parents[2])): f.read_bytes() for p in paths for f in sorted(p.parent.iterdir())}


def playing(found: list[Game], kind: str) -> str:
    return str(next(g.path for g in found if g.task_type == kind))


def test_games_have_alfworlds_layout(made: list[Game]) -> None:
    assert {g.task_type for g in made} == set(scenes.PROPORTIONS)
    for game in made:
        assert game.generated
        assert sorted(f.name for f in game.path.parent.iterdir()) == [
            "game.tw-pddl", "initial_state.pddl", "traj_data.json",
        ]  # fmt: skip
        trial = json.loads((game.path.parent / "traj_data.json").read_text())
        assert trial["task_type"] == game.task_type


def test_the_same_seed_gives_the_same_bytes_by_any_number_of_workers(made: list[Game], tmp_path: Path) -> None:
    again = games.generate_games(tmp_path, "valid_unseen", 4, SEED, workers=2)
    assert contents(again) == contents([g.path for g in made[:4]])
    other = games.generate_games(tmp_path, "valid_unseen", 1, SEED + 1)
    assert contents(other).values() != contents(again[:1]).values()


def test_unseen_floor_plans_are_never_trained_on(made: list[Game], tmp_path: Path) -> None:
    for kind in scenes.PROPORTIONS:
        unseen, train = (set(scenes.floor_plans(kind, split)) for split in ("valid_unseen", "train"))
        assert unseen
        assert train
        assert not unseen & train
    played = {json.loads((g.path.parent / "traj_data.json").read_text())["scene"]["scene_num"] for g in made}
    trained = {
        json.loads((p.parent / "traj_data.json").read_text())["scene"]["scene_num"]
        for p in games.generate_games(tmp_path, "train", 3, SEED)
    }
    assert not played & trained


def test_a_killed_generation_resumes(made: list[Game], tmp_path: Path) -> None:
    count = 4
    code = (
        "import sys, time; from pathlib import Path; from agentcascade.envs.alfworld import games\n"
        "def wait_for_death(done, total): done < total - 1 or time.sleep(600)\n"
        f"games.generate_games(Path(sys.argv[1]), 'valid_unseen', {count}, {SEED}, on_progress=wait_for_death)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)])
    first, deadline = games.game_path(tmp_path, "valid_unseen", SEED, 0), time.monotonic() + 240
    while not first.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    progress: list[tuple[int, int]] = []
    paths = games.generate_games(
        tmp_path, "valid_unseen", count, SEED, on_progress=lambda done, total: progress.append((done, total))
    )
    assert 0 < progress[0][0] < count
    assert progress[-1] == (count, count)
    assert contents(paths) == contents([g.path for g in made[:count]])


STOCK = """
import sys, json, random, textworld
from textworld.envs import PddlEnv
from alfworld.agents.environment.alfred_tw_env import AlfredDemangler
env = AlfredDemangler(PddlEnv(textworld.EnvInfos(won=True, admissible_commands=True)))
for path in sys.argv[1:]:
    env.load(path)
    state, rng = env.reset(), random.Random(7)
    seen = [state.feedback]
    for _ in range(15):
        command = rng.choice([*state["admissible_commands"], "fly away"])
        state, _, done = env.step(command)
        seen.append([command, state.feedback, state["admissible_commands"], state["won"], done])
    print(json.dumps(seen))
"""


def test_our_engine_says_what_the_stock_engine_says_word_for_word(made: list[Game], world: AlfworldEnvironment) -> None:
    paths = [playing(made, kind) for kind in ("pick_clean_then_place_in_recep", "look_at_obj_in_light")]
    output = subprocess.run([sys.executable, "-c", STOCK, *paths], capture_output=True, text=True, check=True).stdout
    stock = [json.loads(line) for line in output.splitlines() if line.startswith("[")]
    for path, expected in zip(paths, stock, strict=True):
        rng = random.Random(7)
        first = world.reset(path)
        assert expected[0].endswith(first)
        for command, feedback, admissible, won, done in expected[1:]:
            assert rng.choice([*world.admissible(), "fly away"]) == command
            assert world.step(command) == (feedback.strip(), done)
            assert world.admissible() == admissible
            assert world.success == won


async def test_the_expert_wins_every_game(made: list[Game], world: AlfworldEnvironment) -> None:
    expert = Expert(lambda text: len(text), lambda usage: None)
    expert.bind(world)

    async def complete(messages: list[Any]) -> str:
        content: str = (await expert.complete(messages)).messages[0]["content"]
        return content

    for game in made:
        result = await agent.play(world, str(game.path), complete)
        assert result.success, game.id
        assert 2 <= result.steps <= 50


def as_published(path: Path, folder: Path) -> Path:
    """The game as the official ones are: its problem declares a thing of each type that stands nowhere."""
    game = json.loads(path.read_text())
    types = re.findall(r"(\w+)Type - otype", game["pddl_problem"])
    declared = "\n".join(f"{kind} - object" for kind in types)
    game["pddl_problem"] = game["pddl_problem"].replace("agent1 - agent", f"agent1 - agent\n{declared}")
    folder.mkdir()
    (folder / "game.tw-pddl").write_text(json.dumps(game))
    return folder / "game.tw-pddl"


async def test_the_expert_wins_games_that_declare_things_which_stand_nowhere(
    made: list[Game], world: AlfworldEnvironment, tmp_path: Path
) -> None:
    async def complete(messages: list[Any]) -> str:
        return world.expert_answer()

    for game in {g.task_type: g for g in made}.values():
        result = await agent.play(world, str(as_published(game.path, tmp_path / game.task_type)), complete)
        assert result.success, game.id
        bare = await agent.play(world, str(game.path), complete)
        assert bare.trace == result.trace


OFFICIAL = Path(os.environ.get("ALFWORLD_DATA", "/nonexistent")) / "json_2.1.1" / "valid_unseen"


@pytest.mark.skipif(not OFFICIAL.is_dir(), reason="needs the official games: set ALFWORLD_DATA")
@pytest.mark.parametrize("kind", sorted(scenes.PROPORTIONS))
async def test_the_expert_wins_official_games(kind: str, world: AlfworldEnvironment) -> None:
    async def complete(messages: list[Any]) -> str:
        return world.expert_answer()

    found = [g for g in load_games("valid_unseen", 134, seed=0) if g.task_type == kind]
    assert len(found) == scenes.PROPORTIONS[kind]
    for game in found[:2]:
        assert (await agent.play(world, str(game.path), complete)).success, game.id


def test_the_first_observation_is_the_room_and_the_task(made: list[Game], world: AlfworldEnvironment) -> None:
    first = world.reset(str(made[0].path))
    assert first.startswith("You are in the middle of a room.")
    assert "\n\nYour task is to: " in first
    assert "TextWorld" not in first
    assert world.step("inventory") == ("You are not carrying anything.", False)
    assert world.step("dance on desk 1") == ("Nothing happens.", False)


def test_the_expert_finds_its_way_back_after_a_deviation(made: list[Game], world: AlfworldEnvironment) -> None:
    world.reset(playing(made, "pick_heat_then_place_in_recep"))
    rng = random.Random(1)
    for _ in range(20):
        world.step(rng.choice(world.admissible()))
    while not world.success and world._steps < 45:
        world.step(world.expert_plan()[0])
    assert world.success


def test_with_the_wrong_thing_in_hand_the_expert_puts_it_away(made: list[Game], world: AlfworldEnvironment) -> None:
    for game in {g.task_type: g for g in made}.values():
        world.reset(str(game.path))
        wanted = json.loads((game.path.parent / "traj_data.json").read_text())["pddl_params"]["object_target"].lower()
        for place in [c for c in world.admissible() if c.startswith("go to")]:
            world.step(place)
            wrong = [c for c in world.admissible() if c.startswith("take") and not c.startswith(f"take {wanted} ")]
            if wrong:
                world.step(wrong[0])
                break
        thing = wrong[0].removeprefix("take ").split(" from ")[0]
        plan = world.expert_plan()
        assert any(c.startswith(f"move {thing} to") for c in plan)
        for command in plan:
            world.step(command)
        assert world.success, game.id


def test_a_plan_is_made_once_and_followed(made: list[Game], world: AlfworldEnvironment) -> None:
    world.reset(str(made[0].path))
    plan = world.expert_plan()
    world.step(plan[0])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(world, "_planner", None)  # which would be asked
        assert world.expert_plan() == plan[1:]
    world.step("dance")
    assert world.expert_plan() == plan[1:]


def test_the_game_ends_after_the_last_step(made: list[Game]) -> None:
    short = AlfworldEnvironment(max_steps=2)
    short.reset(str(made[0].path))
    assert [short.step("look")[1], short.step("look")[1]] == [False, True]
    assert not short.success
    short.close()


@pytest.mark.parametrize(
    "text",
    ["", "not json", "[]", "{}", "null", '{"pddl_domain": "(", "grammar": "", "pddl_problem": ""}'],
)
def test_a_broken_game_says_what_to_do_and_the_next_one_plays(
    text: str, made: list[Game], world: AlfworldEnvironment, tmp_path: Path
) -> None:
    broken = tmp_path / "game.tw-pddl"
    broken.write_text(text)
    with pytest.raises(EnvironmentFailed, match="delete it to have it made again"):
        world.reset(str(broken))
    with pytest.raises(EnvironmentFailed, match="call reset first"):
        world.step("look")
    assert not world.success
    assert world.reset(str(made[0].path)).startswith("You are in the middle")


def test_a_broken_problem_is_a_broken_game(made: list[Game], world: AlfworldEnvironment, tmp_path: Path) -> None:
    game = json.loads(made[0].path.read_text())
    broken = tmp_path / "game.tw-pddl"
    for problem in (game["pddl_problem"][:3000], game["pddl_problem"].replace("agent1 - agent", "agent1 - ghost")):
        broken.write_text(json.dumps({**game, "pddl_problem": problem}))
        with pytest.raises(EnvironmentFailed, match="is not an ALFWorld game"):
            world.reset(str(broken))


def test_a_missing_game_and_a_missing_expert_are_told(tmp_path: Path, made: list[Game]) -> None:
    plain = AlfworldEnvironment()
    with pytest.raises(EnvironmentFailed, match="no game file"):
        plain.reset(str(tmp_path / "none"))
    plain.reset(str(made[0].path))
    with pytest.raises(EnvironmentFailed, match="expert=True"):
        plain.expert_plan()


def test_the_engine_leaves_the_program_as_it_was(made: list[Game]) -> None:
    """alfworld sets an environment variable, and the translator overwrites the program's arguments."""
    code = (
        "import os, sys; from agentcascade.envs.alfworld.environment import AlfworldEnvironment as E\n"
        "world = E(expert=True); world.reset(sys.argv[1]); world.expert_plan()\n"
        "assert 'ALFWORLD_DATA' not in os.environ; assert sys.argv[1:] == ['" + str(made[0].path) + "']"
    )
    environment = {k: v for k, v in os.environ.items() if k != "ALFWORLD_DATA"}
    subprocess.run([sys.executable, "-c", code, str(made[0].path)], check=True, env=environment)


def walk(paths: list[str]) -> tuple[int, list[int]]:
    """A long-lived worker: (steps taken, resident MiB after each round)."""
    world, rng, resident, steps = AlfworldEnvironment(expert=True), random.Random(0), [], 0
    for _ in range(4):
        for path in paths:
            world.reset(path)
            world.expert_plan()
            for _ in range(40):
                world.step(rng.choice(world.admissible()))
                steps += 1
        status = Path("/proc/self/status").read_text() if sys.platform == "linux" else "VmRSS: 0 kB"
        resident.append(int(status.split("VmRSS:")[1].split()[0]) // 1024)
    return steps, resident


@pytest.mark.slow
def test_workers_play_for_long_side_by_side_without_growing(made: list[Game]) -> None:
    paths = [str(g.path) for g in made[:3]]
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        for steps, resident in pool.map(walk, [paths, paths[::-1]]):
            assert steps == 4 * 3 * 40
            assert resident[-1] <= resident[0] + 20, resident
