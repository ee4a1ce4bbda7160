"""The examples run as a reader would run them."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[[str], str]:
    """Runs an example as `python NAME` does, in this process, which has imported everything; what it prints."""

    def play(name: str) -> str:
        folder = tmp_path / "started here"
        folder.mkdir()
        monkeypatch.chdir(folder)
        monkeypatch.syspath_prepend(EXAMPLES)
        monkeypatch.setattr(sys, "argv", [name])
        helpers = {path.stem for path in EXAMPLES.glob("*.py")}
        try:
            runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        finally:
            for helper in helpers & sys.modules.keys():
                del sys.modules[helper]
        assert not list(folder.iterdir()), "an example leaves nothing behind where it was started"
        return capsys.readouterr().out

    return play


def test_a_wrapped_loop_solves_its_task_and_banks_it(tmp_path: Path) -> None:
    command = [sys.executable, str(EXAMPLES / "01_wrap_your_loop.py")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not list(tmp_path.iterdir()), "an example leaves nothing behind where it was started"
    assert "solved in" in done.stdout
    assert "banked: True" in done.stdout


def test_the_cascade_defers_less_than_always_and_the_ledger_adds_up(run: Callable[[str], str]) -> None:
    out = run("02_collect_then_cascade.py")
    assert "collect: 20 of 20 solved" in out
    lines = dict(re.findall(r"^(collect|cascade): (\d+ steps.*)$", out, re.MULTILINE))
    share, cost, alone = {}, {}, {}
    for mode, line in lines.items():
        share[mode], cost[mode], alone[mode] = map(
            float, re.findall(r"took (\d+)%, cost \$([\d.]+), .* \$([\d.]+)", line)[0]
        )
    assert share["collect"] == 100
    assert 0 < share["cascade"] < 60
    assert cost["collect"] == alone["collect"] > 0
    assert cost["cascade"] < alone["cascade"]


def test_an_agent_on_the_openai_sdk_is_rolled_out_without_being_rewritten(run: Callable[[str], str]) -> None:
    out = run("03_wrap_a_client.py")
    assert "collect: 20 of 20 solved, 100% of" in out
    assert "shadow: 5 of 5 solved, 100% of" in out
    (solved, share) = re.findall(r"cascade: (\d+) of 10 solved, (\d+)% of", out)[0]
    assert int(solved) >= 8
    assert int(share) < 60


def test_a_served_cascade_is_called_with_the_openai_sdk(run: Callable[[str], str]) -> None:
    pytest.importorskip("fastapi", reason="needs the extra `server`")
    out = run("04_serve_and_call.py")
    assert "warehouse-collect: 20 of 20 solved, 100% of" in out
    (solved, share) = re.findall(r"warehouse: (\d+) of 10 solved, (\d+)% of", out)[0]
    assert int(solved) >= 8
    assert int(share) < 60


def test_an_assistant_remembers_what_was_said_months_ago(run: Callable[[str], str]) -> None:
    pytest.importorskip("bm25s", reason="needs the extra `memory`")
    out = run("05_memory_of_months.py")
    assert "365 turns from 06 January to 04 July 2025" in out
    _, alone, agent, _ = out.split("\n\n")
    assert "allergic to penicillin" in alone
    for known in ("allergic to penicillin", "my neighbour Tom", "moved to Lisbon last week"):
        assert known in agent
    spent, whole = map(float, re.findall(r"\$([\d.]+) (?:with memory|for the input)", out))
    assert 0 < spent < whole / 10


def test_a_rule_is_certified_on_shadows_used_and_watched(run: Callable[[str], str]) -> None:
    out = run("06_tune_with_a_guarantee.py")
    assert "shadow: 140 of 140 solved, the teacher took 100% of" in out
    assert "With probability at least 0.95 over logs like this one, the risk is at most 0.1" in out
    (solved, share) = re.findall(r"cascade: (\d+) of 20 solved, the teacher took (\d+)% of", out)[0]
    assert int(solved) >= 18
    assert int(share) < 60
    assert re.search(r"audits: \d+, of which \d+ differ; alarm: False", out)
