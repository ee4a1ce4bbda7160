"""Claude Agent SDK (Python), unmodified, before the proxy: a tool loop collected, shadowed and cascaded.

It drives the `claude` command that comes with it. It needs an interpreter that has the package, whose dependencies are
others than ours: `python -m venv V && V/bin/pip install claude-agent-sdk`, and $CLAUDE_AGENT_SDK_PYTHON=V/bin/python.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="needs the extra `server`")

from agentcascade.config.load import CascadeConfig
from agentcascade.ledger.ledger import Ledger
from agentcascade.storage import open_database
from tests import fake_anthropic
from tests.fake_anthropic import FakeAnthropic
from tests.fake_openai import FakeOpenAI, Reply, Request
from tests.proxy import serving

KEY = "sk-ant-callers-own-0123456789abcdefghij"
COMMANDS = ["echo hello > greeting.txt", "cat greeting.txt"]
AGENT = """
import asyncio, json, sys
from claude_agent_sdk import AssistantMessage, ClaudeAgentOptions, ResultMessage, ToolUseBlock, query

async def main():
    used = []
    options = ClaudeAgentOptions(allowed_tools=["Bash"], model=sys.argv[1], include_partial_messages=True, max_turns=9)
    async for message in query(prompt="greet", options=options):
        if isinstance(message, AssistantMessage):
            used += [block.input["command"] for block in message.content if isinstance(block, ToolUseBlock)]
        if isinstance(message, ResultMessage):
            print(json.dumps({"used": used, "error": message.is_error, "said": message.result}))

asyncio.run(main())
"""


@pytest.fixture(scope="module")
def interpreter() -> str:
    found = os.environ.get("CLAUDE_AGENT_SDK_PYTHON", sys.executable)
    has = subprocess.run([found, "-c", "import claude_agent_sdk"], capture_output=True, check=False)
    if has.returncode:
        pytest.skip("needs claude-agent-sdk: $CLAUDE_AGENT_SDK_PYTHON names an interpreter that has it")
    return found


def claude(request: fake_anthropic.Request) -> fake_anthropic.Reply:
    """Runs the commands; what is asked without tools is answered with a word."""
    blocks = [b for m in request.body["messages"] if isinstance(m["content"], list) for b in m["content"]]
    results = sum(block["type"] == "tool_result" for block in blocks)
    if not any(tool.get("name") == "Bash" for tool in request.body.get("tools") or ()) or results == len(COMMANDS):
        return fake_anthropic.text("all done")
    return fake_anthropic.call("Bash", {"command": COMMANDS[results]}, id=f"toolu_0{results}")


def student(request: Request) -> Reply:
    """Says the same."""
    results = sum(m["role"] == "tool" for m in request.body["messages"])
    if not request.body.get("tools") or results == len(COMMANDS):
        return Reply(texts=("all done",) * int(request.body.get("n") or 1))
    return Reply(texts=(None,), tool_calls=[("Bash", json.dumps({"command": COMMANDS[results]}))], ignore_n=True)


@pytest.mark.parametrize("mode", ["collect", "shadow", "cascade"])
def test_the_agent_sdk_does_its_work(interpreter: str, mode: str, tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    with FakeAnthropic(claude) as provider, FakeOpenAI(student) as cheap:
        model: dict[str, Any] = {"name": "openai/student", "api_base": cheap.url, "api_key": "k", "retries": 0}
        mine: dict[str, Any] = {"mode": mode, **({} if mode == "collect" else {"student": model})}
        if mode == "cascade":
            mine["teacher"] = {"name": "anthropic/claude-any", "api_base": provider.root, "api_key": KEY, "retries": 0}
        server = {"passthrough": "free", "upstreams": {"anthropic": provider.root}, "max_body_bytes": 32_000_000}
        config = CascadeConfig(
            bank={"url": f"sqlite:///{tmp_path}/c.db"},
            retrieval={"embedder": "hashing", "k": 0},
            prompt={"min_demonstrations": 0},
            cascades={"mine": mine, "free": {"mode": "collect"}} if mode == "cascade" else {"free": mine},
            server=server,
        )
        with serving(config) as proxy:
            own = {"ANTHROPIC_BASE_URL": proxy.base, "ANTHROPIC_API_KEY": KEY, "HOME": str(tmp_path),
                   "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1", "DISABLE_AUTOUPDATER": "1"}  # fmt: skip
            kept = {k: v for k, v in os.environ.items() if not k.startswith(("ANTHROPIC_", "CLAUDE", "PYTHONPATH"))}
            named = "mine" if mode == "cascade" else "claude-any"
            done = subprocess.run([interpreter, "-c", AGENT, named], cwd=work, env=kept | own, capture_output=True,
                                  text=True, timeout=110, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout.strip().splitlines()[-1])
    assert told == {"used": COMMANDS, "error": False, "said": "all done"}
    assert (work / "greeting.txt").read_text() == "hello\n"
    assert provider.refused == []
    assert all(r.headers["user-agent"].startswith("claude-cli/") for r in provider.requests if mode != "cascade")
    database = open_database(f"sqlite:///{tmp_path}/c.db")
    lines = {line.group: line for line in Ledger(database).summary("mode")}
    spending = {(s.role, s.model) for s in Ledger(database).spending()}
    database.close()
    print(mode, {k: (v.steps, v.deferred) for k, v in lines.items()}, spending)
    assert lines[mode].steps >= len(COMMANDS) + 1
    assert lines[mode].deferred == (0 if mode == "cascade" else lines[mode].steps)
    assert bool(cheap.requests) is (mode != "collect")
    assert KEY[8:].encode() not in b"".join(p.read_bytes() for p in tmp_path.glob("c.db*"))
