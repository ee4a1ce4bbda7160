"""`agentcascade bench bfcl` with live models over HTTP: calls in texts, demonstrations, a server that dies."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from agentcascade.cli import main
from agentcascade.envs.bfcl import calls, labels, tasks
from agentcascade.envs.bfcl.calls import Call
from agentcascade.envs.bfcl.text_calls import with_calls
from tests.bfcl_rows import forget
from tests.fake_openai import FakeOpenAI, Reply, Request
from tests.inline_pool import plays_here  # noqa: F401

pytestmark = pytest.mark.usefixtures("plays_here")

TOOLS: list[Any] = [{"type": "function", "function": {"name": name}} for name in ("f", "g_h")]
F, G = {"name": "f", "arguments": {"x": 1}}, {"name": "g.h", "arguments": {"y": [1, 2]}}


@pytest.mark.parametrize(
    ("text", "called"),
    [
        # as Qwen2.5-Coder-0.5B answered behind llama-cpp-python, which has no parser of its own
        (f"```json\n{json.dumps(F, indent=2)}\n```", ["f"]),
        (f"```json\n{json.dumps(F, indent=2)}\n{json.dumps(G, indent=2)}\n```", ["f", "g_h"]),
        (f"<tool_call>\n{json.dumps(F)}\n</tool_call>\n<tool_call>\n{json.dumps(G)}\n</tool_call>", ["f", "g_h"]),
        (json.dumps([F, G]), ["f", "g_h"]),
        (f"I call it:\n```\n{json.dumps(F)}\n```\nThat is all.", ["f"]),
        (json.dumps({"name": "unknown", "arguments": {}}), []),
        (f"{json.dumps(F)} {json.dumps({'name': 'unknown', 'arguments': {}})}", []),
        ('f({"x": 1})', ["f"]),  # as demonstrations show them
        ('Action: f({"x": ")"})\nAction: g.h({})', ["f", "g_h"]),
        ('I call f({"x": 1}).', []),
        ('f({"x": 1})\nand so on', []),
        ("f({" * 3000, []),
        ("No function fits.", []),
        ("```python\nprint(1)\n```", []),
        ("[" * 60_000, []),
        ("1 2 3", []),
        ("", []),
    ],
)
def test_calls_in_a_text_are_calls_where_their_tools_were_offered(text: str, called: list[str]) -> None:
    read = with_calls({"role": "assistant", "content": text}, TOOLS)
    assert [call["function"]["name"] for call in read.get("tool_calls", ())] == called
    own = {"role": "assistant", "content": text, "tool_calls": [{"id": "x"}]}
    assert with_calls(own, TOOLS) is own


def right_answer(question: str) -> Sequence[Call]:
    """Of the task whose question ends the conversation, one of its possible answers."""
    id = next(id for id, task in tasks.tasks().items() if task.messages[-1]["content"] == question)
    return labels._calls(labels.right(id, [], None, [])[0]) or ()


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A server with a teacher that calls the right tools, and a student that writes them into its text."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BFCL_DATA", raising=False)
    forget()

    def told(request: Request) -> Reply:
        texts = [m["content"] for m in request.body["messages"] if m["role"] == "user"]
        if texts == ["Say yes."]:
            return Reply(texts=("yes",))
        known = right_answer(texts[-1] if request.body["model"] == "teacher" else texts[-1].split("\n\n# Examples")[0])
        if request.body["model"] == "teacher":
            made = calls.message(tuple(known))["tool_calls"]
            return Reply(texts=(None,), tool_calls=[(c["function"]["name"], c["function"]["arguments"]) for c in made])
        usage = {"prompt_tokens": len(json.dumps(request.body)) // 3, "completion_tokens": 50 * len(known)}
        said = "\n".join(json.dumps({"name": c.name, "arguments": c.arguments}, indent=1) for c in known)
        return Reply(texts=(f"```json\n{said}\n```",), usage=usage)

    with FakeOpenAI(told) as fake:
        monkeypatch.setenv("OPENAI_BASE_URL", fake.url)
        monkeypatch.setenv("OPENAI_API_KEY", "sk-none-0123456789abcdefghijkl")
        yield fake
    forget()


PLAY = [
    *("bench", "bfcl", "--split", "test", "--episodes", "4", "--demos", "6", "--k", "2", "--embedder", "hashing:64"),
    *("--teacher", "openai/teacher", "--student", "openai/student", "--samples", "2", "--workers", "1"),
    *("--teacher-price", "10/30", "--student-price", "1/2", "--policy", "teacher", "--policy", "cascade"),
]


def run(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(main, [*arguments])
    assert result.exit_code == code, (result.output, result.exception)
    return " ".join(result.output.split())


@pytest.mark.processes
def test_a_live_student_is_shown_demonstrations_and_its_texts_are_calls(served: FakeOpenAI) -> None:
    run(*PLAY, "--log", "log.jsonl", "--log-samples", "2", "--out", "run")
    found = {row["policy"]: row for row in json.loads(Path("run/results.json").read_text())["policies"]}
    assert (found["cascade"]["deferral_share"], found["cascade"]["accuracy"]) == (0, found["teacher"]["accuracy"])
    assert found["cascade"]["accuracy"] > 0.5
    lines = [json.loads(line) for line in Path("run/episodes.jsonl").read_text().splitlines()]
    billed = [call for r in lines if r["policy"] == "cascade" for d in r["decisions"] for call in d["calls"]]
    assert all(float(c["dollars"]) == (c["usage"]["input"] + 2 * c["usage"]["output"]) / 1e6 for c in billed)
    assert {(c["role"], c["estimated"]) for c in billed} == {("student", False)}
    asked = [
        r.body["messages"]
        for r in served.requests
        if r.body["model"] == "student" and len(r.body["messages"][-1]["content"]) > 20
    ]
    played = {r["task"] for r in lines if r["policy"] == "cascade"}
    shown = [id for id, task in tasks.tasks().items() if task.messages[-1]["content"] in asked[0][-1]["content"]]
    assert len(shown) >= 3, "two demonstrations and the question"
    assert len(set(shown) & played) == 1, "of other tasks"
    steps = [json.loads(line) for line in Path("log.jsonl").read_text().splitlines()]
    assert len(steps) == 4
    (drawn,) = steps[0]["students"]
    assert [sample["action"] for sample in drawn["samples"]] == [steps[0]["gold"]] * 2
    assert (drawn["k"], len(drawn["demonstrations"]), drawn["samples"][0]["tokens"] > 9) == (2, 2, True)


def test_a_server_that_dies_on_the_way_leaves_a_run_that_goes_on(served: FakeOpenAI) -> None:
    alive, answered = served.script, 0

    def dying(request: Request) -> Reply:
        nonlocal answered
        answered += request.body["model"] == "student"
        return Reply(status=500) if request.body["model"] == "student" and answered > 3 else alive(request)  # type: ignore[operator]

    served.script = dying
    said = run(*PLAY, "--out", "run", code=1)
    assert "episodes of cascade broke: student: InternalServerError" in said
    assert "when it answers again: agentcascade bench bfcl --resume --out run" in said
    served.script = alive
    run("bench", "bfcl", "--resume", "--out", "run", "--workers", "1", "--policy", "teacher", "--policy", "cascade")
    run(*PLAY, "--out", "whole")
    results = [json.loads(Path(f"{name}/results.json").read_text())["policies"] for name in ("run", "whole")]
    assert results[0] == results[1]


def test_a_dead_server_is_told_before_anything_is_played_or_paid(served: FakeOpenAI) -> None:
    dead = ["--api-base", "http://127.0.0.1:9/v1"]
    said = run(*PLAY, *dead, "--out", "run", code=1)
    assert "the student openai/student does not answer" in said
    assert "Nothing else was asked or paid for" in said
    assert [r.body["model"] for r in served.requests] == ["teacher"]
