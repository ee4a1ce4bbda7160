from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from agentcascade._util.files import cache_folder
from agentcascade.envs.alfworld import dataset, games, scenes
from agentcascade.errors import EnvironmentFailed


def official(root: Path, name: str, *, solvable: object = True, kind: str = "pick_and_place_simple") -> None:
    folder = root / "json_2.1.1" / "valid_unseen" / name / "trial_T1"
    folder.mkdir(parents=True)
    (folder / "traj_data.json").write_text(json.dumps({"task_type": kind}))
    game = {"pddl_domain": "", "pddl_problem": "", "grammar": ""}
    (folder / "game.tw-pddl").write_text(json.dumps(game if solvable is None else {**game, "solvable": solvable}))


def test_134_games_have_alfworlds_proportions_and_any_run_is_a_fair_mix() -> None:
    kinds = [games.task_type(i, seed=3) for i in range(268)]
    assert Counter(kinds[:134]) == Counter(kinds[134:]) == scenes.PROPORTIONS
    assert set(kinds[:30]) == set(scenes.PROPORTIONS)
    assert kinds != [games.task_type(i, seed=4) for i in range(268)]


def test_official_games_are_used_where_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for i in range(5):
        official(tmp_path, f"pick_and_place_simple-Mug-None-Desk-{i}")
    official(tmp_path, "pick_two_obj_and_place-Pen-None-Desk-9", kind="pick_two_obj_and_place")
    official(tmp_path, "pick_and_place_simple-Pan-None-Desk-10", solvable=False)
    official(tmp_path, "pick_and_place_simple-Pot-None-Desk-11", solvable=None)
    official(tmp_path, "pick_and_place_simple-AppleSliced-None-Desk-12")
    official(tmp_path, "pick_and_place_with_movable_recep-Pen-Mug-Desk-13")
    monkeypatch.setenv("ALFWORLD_DATA", str(tmp_path))
    found = dataset.load_games("valid_unseen", 100, seed=1)
    assert len(found) == 6
    assert not any(g.generated for g in found)
    assert Counter(g.task_type for g in found) == {"pick_and_place_simple": 5, "pick_two_obj_and_place": 1}
    assert dataset.load_games("valid_unseen", 3, seed=1) == found[:3]
    assert dataset.load_games("valid_unseen", 100, seed=2) != found


def test_official_data_without_a_game_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    official(tmp_path, "pick_and_place_simple-Pan-None-Desk-10", solvable=False)
    monkeypatch.setenv("ALFWORLD_DATA", str(tmp_path))
    with pytest.raises(EnvironmentFailed, match="run alfworld-generate, or unset ALFWORLD_DATA"):
        dataset.load_games("valid_unseen", 1, seed=0)


@pytest.mark.parametrize("data", ["", "json_2.1.1", "gone"])
def test_a_folder_without_official_games_is_no_reason_to_play_others(
    data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Generated games would have been played, and demonstrations of the one kind banked for the other."""
    official(tmp_path, "pick_and_place_simple-Pan-None-Desk-10")
    monkeypatch.setenv("ALFWORLD_DATA", str(tmp_path / data))
    with pytest.raises(EnvironmentFailed, match=r"ALFWORLD_DATA is .*there is no folder .*json_2\.1\.1.*train"):
        dataset.load_games("train", 1, seed=0)


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("traj_data.json", None),
        ("traj_data.json", "{"),
        ("traj_data.json", "{}"),
        ("traj_data.json", "[]"),
        ("game.tw-pddl", ""),
        ("game.tw-pddl", "[1]"),
        ("game.tw-pddl", "null"),
    ],
)
def test_a_broken_official_game_is_named(
    file: str, text: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i in range(3):
        official(tmp_path, f"pick_and_place_simple-Mug-None-Desk-{i}")
    broken = tmp_path / "json_2.1.1" / "valid_unseen" / "pick_and_place_simple-Mug-None-Desk-1" / "trial_T1" / file
    broken.unlink() if text is None else broken.write_text(text)
    monkeypatch.setenv("ALFWORLD_DATA", str(tmp_path))
    with pytest.raises(EnvironmentFailed, match=r"Mug-None-Desk-1.* is no ALFWorld game \("):
        dataset.load_games("valid_unseen", 3, seed=0)


def test_an_unknown_split_names_the_nearest() -> None:
    with pytest.raises(EnvironmentFailed, match="did you mean 'valid_unseen'"):
        dataset.load_games("valid_unsen", 1, seed=0)


def test_the_cache_is_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    monkeypatch.delenv("AGENTCASCADE_CACHE", raising=False)
    assert cache_folder("alfworld") == Path("/x/agentcascade/alfworld")
    monkeypatch.setenv("AGENTCASCADE_CACHE", "/y")
    assert cache_folder("alfworld") == Path("/y/alfworld")


def test_the_folder_that_importing_alfworld_names_is_nobodys_choice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("ALFWORLD_DATA", str(tmp_path / ".cache" / "alfworld"))
    monkeypatch.setattr(games, "generate_games", lambda *args, **options: [])
    assert dataset.load_games("train", 3, seed=0) == []
    monkeypatch.setenv("ALFWORLD_DATA", str(tmp_path / "elsewhere"))
    with pytest.raises(EnvironmentFailed, match="alfworld-download"):
        dataset.load_games("train", 3, seed=0)
