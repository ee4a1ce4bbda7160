"""``agentcascade memory`` and ``bench locomo`` from beginning to end on a small file in LoCoMo's format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from agentcascade.cli import main

TALKS = {
    "garden": ["roses", "a fence", "the pond", "apple trees"],
    "music": ["a violin", "the choir", "an old piano", "a concert"],
    "travel": ["Lisbon", "a ferry", "the mountains", "a lost suitcase"],
    "kitchen": ["sourdough", "a new oven", "pasta", "the market"],
}


def conversation(name: str, things: list[str]) -> dict[str, Any]:
    """Two sessions of six turns; each thing is told in one of them and asked for later."""
    spoken: dict[str, Any] = {"speaker_a": "Ann", "speaker_b": "Bob"}
    asked = []
    for number in (1, 2):
        turns = []
        for i in range(6):
            mark = f"D{number}:{i + 1}"
            text = f"Nothing much happened with the {name}, it was quiet all week number {i}."
            if i in (1, 4):
                thing = things[2 * (number - 1) + (i == 4)]
                text = f"Last Saturday I spent the whole day with {thing}, and it cost me {10 * number + i} dollars."
                asked.append((f"When did somebody spend a day with {thing}?", f"{10 * number + i} dollars", mark))
            turns.append({"speaker": "Ann" if i % 2 else "Bob", "dia_id": mark, "text": text})
        spoken[f"session_{number}"] = turns
        spoken[f"session_{number}_date_time"] = f"1:56 pm on {7 + number} May, 2023"
    qa = [
        {"question": q, "answer": a, "evidence": [e], "category": 2 if i % 2 else 4}
        for i, (q, a, e) in enumerate(asked)
    ]
    qa.append({"question": "What did Ann say of the moon?", "adversarial_answer": "x", "evidence": [], "category": 5})
    return {"sample_id": name, "conversation": spoken, "qa": qa}


def run(*arguments: object, ok: bool = True) -> Result:
    result = CliRunner().invoke(main, list(map(str, arguments)), env={"COLUMNS": "200"})
    assert (result.exit_code == 0) == ok, result.output
    assert "Traceback" not in result.output
    if not ok:
        assert isinstance(result.exception, SystemExit), repr(result.exception)
    return result


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file; the working directory is empty but for it, and questions are hashed, not embedded."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AGENTCASCADE_RETRIEVAL__EMBEDDER", "hashing:32")
    path = tmp_path / "tiny.json"
    path.write_text(json.dumps([conversation(name, things) for name, things in TALKS.items()]))
    return path


def test_a_router_is_trained_on_a_sweep_and_again_from_its_log(data: Path) -> None:
    out = run("memory", "train", "--data", data, "--out", "first").output
    assert "oracle" in out
    assert "values λ=0.1" in out
    log, card = Path("first/log.npz"), json.loads(Path("first/values.json").read_text())
    assert card["questions"] == {"train": 8, "validation": 4, "test": 4}
    assert card["encoder"] == "hashing-32"
    assert set(card["test_groups"]) < set(TALKS)
    assert Path("first/frontier.png").stat().st_size > 1000
    results = json.loads(Path("first/results.json").read_text())
    assert 0 < results["oracle"] <= 1

    run("memory", "train", "--offline", log, "--out", "second")
    assert Path("second/values.safetensors").read_bytes() == Path("first/values.safetensors").read_bytes()
    assert np.load(log)["score"].shape == (16 * 243,)
    assert "log.npz" in out


def test_a_killed_sweep_goes_on_where_it_was(data: Path) -> None:
    run("memory", "train", "--data", data, "--out", "out")
    parts = sorted(Path("out/sweep").glob("*.npz"))
    assert len(parts) == len(TALKS)
    parts[0].unlink()
    kept = {path: path.stat().st_mtime_ns for path in parts[1:]}
    Path("out/log.npz").unlink()
    run("memory", "train", "--data", data, "--out", "out", "--resume")
    assert {path: path.stat().st_mtime_ns for path in parts[1:]} == kept
    assert parts[0].exists()
    assert Path("out/log.npz").exists()


def test_a_sweep_of_other_settings_is_not_gone_on_with(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run("memory", "train", "--data", data, "--out", "out")
    monkeypatch.setenv("AGENTCASCADE_MEMORY__TOKEN_BUDGET", "50")
    out = run("memory", "train", "--data", data, "--out", "out", "--resume", ok=False).output
    assert "out/sweep holds another sweep: choose another --out" in out


def test_the_policy_is_trained_in_passes_and_resumed(data: Path) -> None:
    options = ("--data", data, "--router", "policy", "--passes", 2, "--out", "out")
    out = run("memory", "train", *options).output
    assert "policy λ=0.1" in out
    card = json.loads(Path("out/policy.json").read_text())
    assert len(card["passes"]) == 2
    assert Path("out/curves.png").exists()
    first = Path("out/policy.safetensors").read_bytes()
    run("memory", "train", *options, "--resume")
    assert Path("out/policy.safetensors").read_bytes() == first, "there was nothing left to do"


def test_a_log_of_random_tiers_is_estimated_on_and_trained_from(data: Path) -> None:
    options = ("--data", data, "--collect", "random", "--rollouts", 3, "--out", "out")
    out = run("memory", "train", *options).output
    assert "agentcascade memory estimate" in out, "a log with gaps compares nothing"
    assert "oracle" not in out
    log = np.load("out/log.npz")
    assert log["score"].shape == (3 * 16,)
    assert np.allclose(log["propensity"], 3.0**-5)

    written = Path("out/log.npz").stat().st_mtime_ns
    run("memory", "train", *options, "--resume")
    assert Path("out/log.npz").stat().st_mtime_ns == written, "resumed, it plays nothing again"
    out = run("memory", "train", *options[:-3], 2, "--out", "out", "--resume", ok=False).output
    assert "out/log.npz was collected with other settings" in out

    out = run("memory", "estimate", "--offline", "out/log.npz", "--tiers", "all-low").output
    assert out.startswith("ips")
    assert "effective rows" in out
    found = run("memory", "estimate", "--offline", "out/log.npz", "--router", "out/values.safetensors", "--json")
    assert 0 <= json.loads(found.stdout)["dr"]["mean"] <= 1


def test_the_policy_learns_from_questions_played_for_it(data: Path) -> None:
    options = ("--collect", "on-policy", "--router", "policy", "--passes", 1, "--questions", 2)
    out = run("memory", "train", "--data", data, *options, "--out", "out").output
    assert "policy λ=0.9" in out
    assert "oracle" not in out, "nobody knows it without a sweep"
    assert json.loads(Path("out/results.json").read_text())["oracle"] is None
    card = json.loads(Path("out/policy.json").read_text())
    assert sum(card["questions"].values()) == 8
    assert np.load("out/log.npz")["score"].size > 8


def test_fixed_tiers_are_estimated_as_what_they_did_in_the_sweep(data: Path) -> None:
    run("memory", "train", "--data", data, "--out", "out")
    log = np.load("out/log.npz")
    truth = float(log["score"][(log["tiers"] == 0).all(axis=1)].mean())
    for named in ("low", "all-low", "low-low-low-low-low", "filter=low, summary=low"):
        found = json.loads(run("memory", "estimate", "--offline", "out/log.npz", "--tiers", named, "--json").stdout)
        assert found["snips"]["mean"] == pytest.approx(truth)
    cost = run("memory", "estimate", "--offline", "out/log.npz", "--tiers", "low", "--value", "cost").output
    truth = float(log["cost"][(log["tiers"] == 0).all(axis=1)].mean())
    assert f"snips  {truth:.4f}" in cost
