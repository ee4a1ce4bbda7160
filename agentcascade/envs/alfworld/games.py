"""Generate ALFWorld games: drawn from a seed, proven winnable by the planner, cached on disk."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from pathlib import Path

from agentcascade.envs.alfworld import scenes
from agentcascade.envs.alfworld.planner import Planner
from agentcascade.errors import EnvironmentFailed

RECIPE = 1
"""Raise when the same seed makes other games than before."""

CYCLE = sum(scenes.PROPORTIONS.values())
MAX_TRIES = 200


def task_type(index: int, seed: int) -> str:
    """Task type of game `index`: every 134 games have ALFWorld's proportions, in a shuffled order."""
    rng = random.Random(f"schedule {seed} {index // CYCLE}")
    schedule = [kind for kind, count in scenes.PROPORTIONS.items() for _ in range(count)]
    rng.shuffle(schedule)
    return schedule[index % CYCLE]


def game_path(root: Path, split: str, seed: int, index: int) -> Path:
    """Path of a game, in ALFWorld's layout of one folder per game."""
    kind = task_type(index, seed)
    return root / f"recipe-{RECIPE}" / split / f"{kind}-{seed}-{index:05d}" / "trial_generated" / "game.tw-pddl"


def generate_games(
    root: Path,
    split: str,
    count: int,
    seed: int,
    *,
    workers: int = 1,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Path]:
    """Generate the missing games 0 … `count` − 1 of (split, seed). The same arguments give the same bytes."""
    paths = [game_path(root, split, seed, i) for i in range(count)]
    missing = [i for i, path in enumerate(paths) if not path.exists()]
    done = count - len(missing)
    on_progress(done, count)
    for _ in _each(partial(make_game, root, split, seed), missing, workers):
        done += 1
        on_progress(done, count)
    return paths


def _each(work: Callable[[int], None], items: list[int], workers: int) -> Iterator[None]:
    if workers == 1 or len(items) < 4:
        yield from map(work, items)
        return
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(work, items, chunksize=4)


def make_game(root: Path, split: str, seed: int, index: int) -> None:
    """Make one game and write it, whole or not at all."""
    rng = random.Random(f"game {RECIPE} {split} {seed} {index}")
    kind = task_type(index, seed)
    plans = scenes.floor_plans(kind, split)
    for _ in range(MAX_TRIES):
        scene = scenes.furnish(rng.choice(plans), rng)
        task = scenes.choose_task(kind, scene, rng)
        if task is not None:
            placed = scenes.place_objects(scene, task, rng)
            words = scenes.goal_text(task, rng)
            if is_winnable(scene, task, placed):
                problem = scenes.pddl_problem(scene, task, placed, f"{split}_{seed}_{index}")
                _write(game_path(root, split, seed, index), scene, task, problem, words)
                return
    raise EnvironmentFailed(f"no winnable '{kind}' game in {MAX_TRIES} tries for seed {seed}: choose another seed")


def is_winnable(scene: scenes.Scene, task: scenes.HouseholdTask, placed: list[tuple[str, str, str]]) -> bool:
    """Whether the planner reaches the goal, and needs at least one step to.

    Planned with the task's own things alone: other objects only add actions (see `planner`).
    """
    concerned = [p for p in placed if p[1] in (task.thing, task.lamp)]
    try:
        return bool(_planner().plan(_domain(), scenes.pddl_problem(scene, task, concerned, "check")))
    except EnvironmentFailed:
        return False


@cache
def _planner() -> Planner:
    return Planner()


@cache
def _domain() -> str:
    _, _, folder = scenes.alfred_modules()
    domain: Path = folder / "data" / "alfred.pddl"
    return domain.read_text(encoding="utf-8")


def _write(path: Path, scene: scenes.Scene, task: scenes.HouseholdTask, problem: str, words: str) -> None:
    _, _, folder = scenes.alfred_modules()
    grammar = (folder / "data" / "alfred.twl2").read_text(encoding="utf-8").replace("UNKNOWN GOAL", words)
    trial = {
        "task_id": path.parent.parent.name,
        "task_type": task.kind,
        "scene": {"floor_plan": f"FloorPlan{scene.number}", "scene_num": scene.number, "synthetic": True},
        "pddl_params": {
            "object_target": task.thing,
            "parent_target": task.place,
            "toggle_target": task.lamp,
            "mrecep_target": "",
            "object_sliced": False,
        },
        "turk_annotations": {"anns": []},
    }
    game = {
        "pddl_domain": _domain(),
        "grammar": grammar,
        "pddl_problem": problem,
        "solvable": True,
        "walkthrough": None,
    }
    path.parent.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent.parent) as temporary:
        trial_folder = Path(temporary) / "trial"
        trial_folder.mkdir()
        (trial_folder / "initial_state.pddl").write_text(problem)
        (trial_folder / "traj_data.json").write_text(json.dumps(trial, indent=1))
        (trial_folder / "game.tw-pddl").write_text(json.dumps(game))
        try:
            os.rename(trial_folder, path.parent)
        except OSError:
            if not path.exists():  # another process made the same game meanwhile
                raise
