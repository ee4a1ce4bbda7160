"""Load the games of a run: ALFWorld's own where they are on disk, else generated ones."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from agentcascade._util.files import cache_folder
from agentcascade.envs.alfworld import games
from agentcascade.errors import EnvironmentFailed, describe, did_you_mean

SPLITS = ("train", "valid_seen", "valid_unseen")


@dataclass(frozen=True)
class Game:
    """Game file with its task type and split."""

    id: str
    path: Path
    task_type: str
    split: str
    generated: bool


def load_games(
    split: str,
    count: int,
    seed: int,
    *,
    root: Path | None = None,
    workers: int = 1,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Game]:
    """Load `count` games of a split, the same for the same seed.

    Official games where $ALFWORLD_DATA is set, from its ``json_2.1.1/<split>`` (at most as many as there are, in an
    order drawn from `seed`; the whole split for count ≥ its size), else generated ones under `root` (default: the
    cache). Raises `EnvironmentFailed` for a folder without games, and for one that cannot be read.
    """
    if split not in SPLITS:
        raise EnvironmentFailed(f"there is no split '{split}': {did_you_mean(split, SPLITS)}")
    official = _named_folder()
    if official:
        folder = official / "json_2.1.1" / split
        if not folder.is_dir():
            raise EnvironmentFailed(
                f"ALFWORLD_DATA is {official}, and there is no folder {folder}: run alfworld-download, name the folder "
                "that holds json_2.1.1, or unset ALFWORLD_DATA to play generated games"
            )
        return _official(folder, split, count, seed)
    paths = games.generate_games(
        root or cache_folder("alfworld"), split, count, seed, workers=workers, on_progress=on_progress
    )
    return [
        Game(f"{split}/{path.parent.parent.name}", path, games.task_type(i, seed), split, True)
        for i, path in enumerate(paths)
    ]


def _named_folder() -> Path | None:
    """$ALFWORLD_DATA. Importing alfworld sets it to a folder in the user's cache: an empty one is nobody's choice."""
    named = Path(os.environ.get("ALFWORLD_DATA") or "").expanduser()
    if named == Path() or (named == Path("~/.cache/alfworld").expanduser() and not (named / "json_2.1.1").exists()):
        return None
    return named


def _official(folder: Path, split: str, count: int, seed: int) -> list[Game]:
    """Solvable text games of the official data, without the types that ALFWorld itself leaves out."""
    games_found = []
    for path in sorted(folder.rglob("game.tw-pddl")):
        name = str(path.parent.relative_to(folder))
        if "movable" in name or "Sliced" in name:
            continue
        try:
            trial = json.loads((path.parent / "traj_data.json").read_text(encoding="utf-8"))
            solvable, kind = json.loads(path.read_text(encoding="utf-8")).get("solvable"), str(trial["task_type"])
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise EnvironmentFailed(
                f"{path.parent} is no ALFWorld game ({describe(error)}): it needs game.tw-pddl and traj_data.json, as "
                "alfworld-download writes them; delete the folder to play without it"
            ) from error
        if solvable:
            games_found.append(Game(f"{split}/{name}", path, kind, split, False))
    if not games_found:
        raise EnvironmentFailed(f"{folder} holds no solvable games: run alfworld-generate, or unset ALFWORLD_DATA")
    random.Random(seed).shuffle(games_found)
    return games_found[:count]
