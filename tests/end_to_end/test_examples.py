"""The examples run as a reader would run them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(name: str, folder: Path) -> str:
    done = subprocess.run([sys.executable, str(EXAMPLES / name)], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not list(folder.iterdir()), "an example leaves nothing behind where it was started"
    return done.stdout


def test_a_wrapped_loop_solves_its_task_and_banks_it(tmp_path: Path) -> None:
    assert "solved in" in (out := run("01_wrap_your_loop.py", tmp_path))
    assert "banked: True" in out


def test_the_cascade_defers_less_than_always_and_the_ledger_adds_up(tmp_path: Path) -> None:
    out = run("02_collect_then_cascade.py", tmp_path)
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


def test_an_agent_on_the_openai_sdk_is_rolled_out_without_being_rewritten(tmp_path: Path) -> None:
    out = run("03_wrap_a_client.py", tmp_path)
    assert "collect: 20 of 20 solved, 100% of" in out
    assert "shadow: 5 of 5 solved, 100% of" in out
    (solved, share) = re.findall(r"cascade: (\d+) of 10 solved, (\d+)% of", out)[0]
    assert int(solved) >= 8
    assert int(share) < 60


def test_a_served_cascade_is_called_with_the_openai_sdk(tmp_path: Path) -> None:
    pytest.importorskip("fastapi", reason="needs the extra `server`")
    out = run("04_serve_and_call.py", tmp_path)
    assert "warehouse-collect: 20 of 20 solved, 100% of" in out
    (solved, share) = re.findall(r"warehouse: (\d+) of 10 solved, (\d+)% of", out)[0]
    assert int(solved) >= 8
    assert int(share) < 60


def test_an_assistant_remembers_what_was_said_months_ago(tmp_path: Path) -> None:
    pytest.importorskip("bm25s", reason="needs the extra `memory`")
    out = run("05_memory_of_months.py", tmp_path)
    assert "365 turns from 06 January to 04 July 2025" in out
    _, alone, agent, _ = out.split("\n\n")
    assert "allergic to penicillin" in alone
    for known in ("allergic to penicillin", "my neighbour Tom", "moved to Lisbon last week"):
        assert known in agent
    spent, whole = map(float, re.findall(r"\$([\d.]+) (?:with memory|for the input)", out))
    assert 0 < spent < whole / 10


def test_a_rule_is_certified_on_shadows_used_and_watched(tmp_path: Path) -> None:
    out = run("06_tune_with_a_guarantee.py", tmp_path)
    assert "shadow: 140 of 140 solved, the teacher took 100% of" in out
    assert "With probability at least 0.95 over logs like this one, the risk is at most 0.1" in out
    (solved, share) = re.findall(r"cascade: (\d+) of 20 solved, the teacher took (\d+)% of", out)[0]
    assert int(solved) >= 18
    assert int(share) < 60
    assert re.search(r"audits: \d+, of which \d+ differ; alarm: False", out)
