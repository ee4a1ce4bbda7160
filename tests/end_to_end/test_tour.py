"""``agentcascade tour``: its figures are those of the recorded answers, and it leaves nothing behind."""

from __future__ import annotations

import re
import sys
from decimal import Decimal
from pathlib import Path

import pytest
from click.testing import CliRunner

from agentcascade.cli import main
from agentcascade.cli.tour_play import AGREED, PLAYED, SPLIT
from agentcascade.envs.intercode_sql import shipped
from tests.terminal import Terminal, install_program


def page(text: str, number: int) -> str:
    return text.partition(f"── {number} ─")[2].partition(f"── {number + 1} ─")[0]


def test_its_figures_are_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for key in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "INTERCODE_DATA", "BFCL_DATA"):
        monkeypatch.delenv(key, raising=False)
    for extra in ("sqlglot", "faiss", "onnxruntime", "scipy", "fastapi"):  # it comes with what is always installed
        monkeypatch.setitem(sys.modules, extra, None)
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(main, ["tour"])
    assert done.exit_code == 0, done.output
    said = done.output
    assert "Nothing is asked live" in said or "nothing is asked live" in said
    rows = shipped.rows()

    def first(model: str, question: int) -> tuple[str | None, bool]:
        result = rows[question].models[model].results[0][0]
        return result.rows, result.right

    for number, question in ((2, AGREED), (3, SPLIT)):
        for model in ("text-bison", "gpt-3.5-turbo"):
            assert re.search(rf"{re.escape(model)} +{first(model, question)[0]}\n", page(said, number))
    assert "recorded verdict: right" in page(said, 2)
    assert first("gpt-4", SPLIT) == ("result 0", True)
    assert "So the teacher takes this step: result 0, recorded verdict right." in page(said, 3)
    assert "because the votes were split: 1 of 3" in page(said, 3)
    others = [question for question in range(PLAYED) if question not in (AGREED, SPLIT)]
    alone = sum(first("gpt-4", question)[1] for question in others)
    assert f"of the {len(others)}: right " in page(said, 5)
    assert f", gpt-4 alone {alone}" in page(said, 5)
    spent, teacher, saved = (Decimal(d) for d in re.findall(r"\$([\d.]+)", page(said, 5))[:3])
    assert abs(teacher - spent - saved) < Decimal("0.0002")
    tokens = [(rows[q].models["gpt-4"].input_tokens, rows[q].models["gpt-4"].results[0][1]) for q in range(PLAYED)]
    cost = sum(Decimal(30 * (read or 0) + 60 * (wrote or 0)) for read, wrote in tokens) / 10**6
    assert f"cost ${cost:.4f}" in page(said, 5)
    # None of the two nearest is the question itself.
    asked, *found = re.findall(r"'([^']*(?:common|Common)[^']*)'", page(said, 4))
    assert len(found) == 2
    assert asked not in found
    assert list(tmp_path.iterdir()) == []


def test_it_waits_for_enter_and_may_be_left(tmp_path: Path) -> None:
    environment = {**install_program(tmp_path / "bin"), "HOME": str(tmp_path)}
    with Terminal(["agentcascade", "tour"], environment, tmp_path) as shell:
        shell.wait_for("q ends")
        assert "── 2 ─" not in shell.text
        shell.type("\r")
        shell.wait_for("── 2 ─")
        shell.wait_for("q ends")
        shell.type("q\r")
        assert shell.end() == 0
    assert "── 3 ─" not in shell.text
