"""The page *Start*, and snippets of other pages, as a reader runs them: in turn, before a local provider."""

from __future__ import annotations

import ast
import itertools
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import agentcascade
from agentcascade.cli import main
from tests.fake_openai import FakeOpenAI, Reply, Request
from tests.plugins import install_here

DOCS = Path(__file__).parents[2] / "docs"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
LABELS = {"charged": "billing", "invoice": "billing", "export": "bug", "crashes": "bug", "crashed": "bug"}
PRICES = '{"gpt-4.1": {"input": 2, "output": 8}, "gpt-4.1-mini": {"input": 0.4, "output": 1.6}}'


def blocks(page: str) -> list[tuple[str, str]]:
    """(language, text) of a page's blocks of code that are to be run."""
    text = (DOCS / page).read_text(encoding="utf-8")
    return [(kind, block) for kind, block in BLOCK.findall(text) if kind in ("python", "bash")]


def sorter() -> Callable[[Request], Reply]:
    """A teacher that sorts tickets; a student that does, too, but wavers where two labels fit."""
    wavering = itertools.cycle(["billing", "bug", "billing"])

    def answer(request: Request) -> Reply:
        ticket = str(request.body["messages"][-1]["content"])
        student = request.body["model"] == "gpt-4.1-mini"
        n = request.body.get("n") or 1
        if "when the page crashed" in ticket and student:
            return Reply(texts=[next(wavering) for _ in range(n)])
        if student:  # it reads what the teacher did with the like: without demonstrations it knows nothing
            return Reply(texts=["billing" if "charged twice in March" in str(request.body["messages"]) else "?"])
        return Reply(texts=[next((label for word, label in LABELS.items() if word in ticket), "question")])

    return answer


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeOpenAI]:
    """A folder of the reader's own, and a provider behind the SDK's own variables."""
    with FakeOpenAI(sorter()) as fake:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("OPENAI_BASE_URL", fake.url)
        monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-reader-0123456789")
        monkeypatch.setenv("AGENTCASCADE_SERVER__PRICES", PRICES)
        monkeypatch.delenv("AGENTCASCADE_CONFIG", raising=False)
        yield fake


def run(kind: str, block: str, names: dict[str, Any]) -> str:
    if kind == "python":
        exec(compile(block, "<page>", "exec"), names)
        return ""
    script = block.replace("agentcascade ", f"{sys.executable} -m agentcascade ")
    done = subprocess.run(["bash", "-euc", script], capture_output=True, text=True, env=os.environ | {"NO_COLOR": "1"})
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_snippet_of_start_does_what_it_says(reader: FakeOpenAI, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {}
    said, compared = [], 0
    for kind, block in blocks("start.md"):
        said.append(run(kind, block, names) or capsys.readouterr().out)
        for printed, comment in zip(said[-1].splitlines(), re.findall(r"^print\(.*?\)(?:  # (.*))?$", block, re.M)):
            assert comment in ("", printed), (block, printed)
            compared += bool(comment)
    assert compared >= 5
    assert "6" in said[2], "the bank's list"
    assert re.search(r"cascade +2 +50\.0%", said[-1])
    for page in ("how-to/ledger.md", "how-to/debug-a-deferral.md"):
        for kind, block in blocks(page):
            if kind == "python":
                run(kind, block, names)
    told = capsys.readouterr().out
    assert re.search(r"^cascade 2 50% ", told, re.MULTILINE)
    assert "teacher · agreement 2/3" in told


def test_a_memory_is_made_as_its_page_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("bm25s", reason="needs the extra `memory`")
    monkeypatch.chdir(tmp_path)
    run("bash", "agentcascade init", {})
    ((_, block),) = [b for b in blocks("how-to/memory.md") if b[0] == "python"]
    names: dict[str, Any] = {"agentcascade": agentcascade, "day": datetime(2023, 5, 8, tzinfo=UTC)}
    run("python", block, names)
    assert names["recall"].text == re.findall(r'recall\.text  # "(.*)"', block)[0]


@pytest.mark.parametrize("page", sorted(str(p.relative_to(DOCS)) for p in DOCS.rglob("*.md")))
def test_python_on_every_page_can_be_parsed(page: str) -> None:
    for kind, block in blocks(page):
        if kind == "python":
            ast.parse(block)


def test_snippets_of_extend_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A router as the page writes it takes part in a cascade's own registry, and a scripted model answers."""
    from agentcascade import Situation, Tally, Verdict

    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for kind, block in blocks("how-to/extend.md"):
        run(kind, block, names)
    router = names["NearAndUnanimous"](similarity=0.7)
    alike = {"counts": {"look": 3}, "total": 3}
    here = Situation(goal="leave")
    assert router.samples(here) == 3
    assert router.judge(here, Tally(**alike, similarity=0.9), 0) is Verdict.ACCEPT
    assert router.judge(here, Tally(**alike, similarity=0.2), 0) is Verdict.DEFER
    assert router.judge(here, Tally(counts={"look": 2, "go": 1}, total=3, similarity=0.9), 0) is Verdict.DEFER


WALKERS = """

class Walker(agentcascade.ScriptedModel):
    def __init__(self):
        price = agentcascade.models.pricing.Price(input=1, output=1)
        super().__init__(lambda messages, sample: "walk", price=price)
"""


def test_the_environment_of_extend_is_a_benchmark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (block,) = [block for kind, block in blocks("how-to/extend.md") if kind == "python" and "CorridorSuite" in block]
    source = f"import agentcascade\nimport agentcascade.models.pricing\n{block}{WALKERS}"
    points = {"suites": {"corridor": "corridor:CorridorSuite"}}
    install_here(monkeypatch, tmp_path / "site", "corridor", source, points)
    monkeypatch.chdir(tmp_path)
    models = ("--teacher", "corridor:Walker", "--student", "corridor:Walker", "--longest", "3", "--workers", "1")
    small = ("--policy", "teacher", "--policy", "cascade", "--episodes", "3", "--demos", "2", "--embedder", "hashing")
    played = CliRunner().invoke(main, ["bench", "corridor", "--out", "run", *models, *small])
    assert played.exit_code == 0, (played.output, played.exception)
    assert "corridors are made up" in played.output
    episodes = [json.loads(line) for line in (tmp_path / "run/episodes.jsonl").read_text().splitlines()]
    assert [episode["error"] for episode in episodes] == [None] * (2 + 2 * 3)
    assert all(episode["success"] for episode in episodes)
