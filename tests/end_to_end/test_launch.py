"""`agentcascade launch` as users run it: programs as they are, told nothing, with the key that they bring.

Claude Code and Codex themselves are run where they are installed; programs of the SDKs hold the same everywhere.
"""

from __future__ import annotations

import json
import os
import pty
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from click.testing import CliRunner

from agentcascade.cli import main
from tests import fake_anthropic
from tests.fake_anthropic import FakeAnthropic
from tests.fake_openai import FakeOpenAI, Reply, Request
from tests.provider import Out, Provider, last, part

pytest.importorskip("fastapi", reason="needs the extra `server`")

KEY = "sk-callers-own-0123456789abcdefghij"
COMMANDS = ["echo hello > greeting.txt", "cat greeting.txt"]
AGENT = """
import json, subprocess, sys
import openai

client = openai.OpenAI()
parameters = {"type": "object", "properties": {"command": {"type": "string"}}, "required": ["command"]}
tools = [{"type": "function", "function": {"name": "run", "parameters": parameters}}]
messages = [{"role": "user", "content": sys.stdin.read()}]
while True:
    message = client.chat.completions.create(model="gpt-any", messages=messages, tools=tools).choices[0].message
    messages.append(message.model_dump(exclude_none=True))
    if not message.tool_calls:
        break
    for call in message.tool_calls:
        command = json.loads(call.function.arguments)["command"]
        said = subprocess.run(command, shell=True, capture_output=True, text=True).stdout
        messages.append({"role": "tool", "tool_call_id": call.id, "content": said or "(nothing)"})
print(message.content)
sys.exit(int(sys.argv[1]))
"""


def brain(request: Request) -> Reply:
    """Two commands, then a word. The student goes wrong at the second."""
    results = sum(m["role"] == "tool" for m in request.body["messages"])
    usage = {"prompt_tokens": 1000, "completion_tokens": 100}
    if results == len(COMMANDS):
        return Reply(texts=("all done",), usage=usage)
    wrong = request.body["model"] == "student" and results == 1
    command = json.dumps({"command": "ls" if wrong else COMMANDS[results]})
    return Reply(texts=(None,), tool_calls=[("run", command)], usage=usage, ignore_n=True)


@pytest.fixture
def provider() -> Iterator[FakeOpenAI]:
    with FakeOpenAI(brain) as fake:
        yield fake


def environment(folder: Path, arguments: Sequence[str] = (), **more: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("AGENTCASCADE_", "OPENAI_", "ANTHROPIC_"))}
    own = {"HOME": str(folder), "XDG_STATE_HOME": str(folder / "state"), "OPENAI_API_KEY": KEY}
    if "--student-base" in arguments:
        own["AGENTCASCADE_STUDENT__API_KEY"] = "sk-students-own-000000000000"
    own |= {"AGENTCASCADE_RETRIEVAL__EMBEDDER": "hashing", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    return {name: value for name, value in {**kept, **own, **more}.items() if value}


def launched(folder: Path, *arguments: str, stdin: str = "", **more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "agentcascade", "launch", *arguments]
    return subprocess.run(
        command,
        cwd=folder,
        env=environment(folder, arguments, **more),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=120,
    )


def agent(status: int = 0) -> list[str]:
    return ["--", sys.executable, "-c", AGENT, str(status)]


def everything(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


def test_a_program_is_collected_and_is_left_as_it_is(tmp_path: Path, provider: FakeOpenAI) -> None:
    done = launched(tmp_path, "--upstream", provider.url, *agent(status=7), stdin="greet")
    assert (done.returncode, done.stdout) == (7, "all done\n")
    assert (tmp_path / "greeting.txt").read_text() == "hello\n"
    assert [r.headers["authorization"] for r in provider.requests] == [f"Bearer {KEY}"] * 3
    assert "agentcascade (collect): 3 steps in 1 conversation" in done.stderr
    assert "teacher 127.0.0.1/gpt-any: price unknown, 3 calls, 3,000 tokens read, 300 written" in done.stderr
    assert "records: sqlite:///agentcascade.db, namespace default" in done.stderr
    drafts = sqlite3.connect(tmp_path / "agentcascade.db").execute("select count(*) from drafts").fetchone()
    assert drafts[0] >= 1
    assert b"greet" in everything(tmp_path)
    assert KEY[8:].encode() not in everything(tmp_path)
    assert not (tmp_path / "state").exists() or not list((tmp_path / "state").rglob("*.log"))  # nothing to warn of


def test_a_student_is_sampled_and_never_acts(tmp_path: Path, provider: FakeOpenAI) -> None:
    prices = json.dumps({"gpt-any": {"input": 10, "output": 0}})
    more = {"AGENTCASCADE_SERVER__PRICES": prices, "AGENTCASCADE_STUDENT__PRICE": '{"input": 1, "output": 0}'}
    student = ["--student", "openai/student", "--student-base", provider.url]
    done = launched(tmp_path, "--upstream", provider.url, *student, *agent(), stdin="greet", **more)
    assert (done.returncode, done.stdout) == (0, "all done\n"), done.stderr
    assert (tmp_path / "greeting.txt").read_text() == "hello\n"
    assert "agentcascade (shadow): 3 steps in 1 conversation" in done.stderr
    assert "teacher 127.0.0.1/gpt-any: $0.0300, 3 calls" in done.stderr
    assert "openai/student would have agreed with the teacher on 67% of 3 steps" in done.stderr
    assert "lets openai/student act where 3 samples agree: on 100% of the steps, on 33% of all" in done.stderr
    assert "it would have saved 70%: $0.0090 in place of $0.0300" in done.stderr  # three requests of a tenth each
    assert "first impression" in done.stderr


def test_a_configuration_is_taken_and_does_not_act(tmp_path: Path, provider: FakeOpenAI) -> None:
    shared = {"api_base": provider.url, "api_key": "sk-configured-000000000000", "retries": 0}
    configuration = {
        "mode": "cascade",
        "teacher": {"name": "openai/gpt-any", "price": {"input": 10, "output": 0}, **shared},
        "student": {"name": "openai/student", **shared},
        "bank": {"url": "sqlite:///mine.db", "namespace": "team"},
        "prompt": {"min_demonstrations": 0},
        "shadow": {"samples": 2},
    }
    (tmp_path / "agentcascade.yaml").write_text(json.dumps(configuration))
    done = launched(tmp_path, "--upstream", provider.url, *agent(), stdin="greet")
    assert done.returncode == 0, done.stderr
    assert "agentcascade (shadow): 3 steps" in done.stderr
    assert "teacher 127.0.0.1/gpt-any: $0.0300" in done.stderr
    assert "sqlite:///mine.db, namespace team" in done.stderr
    asked = [(r.body["model"], r.headers["authorization"]) for r in provider.requests]
    assert {a for a in asked if a[0] == "gpt-any"} == {("gpt-any", f"Bearer {KEY}")}
    assert {a for a in asked if a[0] == "student"} == {("student", "Bearer sk-configured-000000000000")}


def test_a_program_that_dies_by_a_signal_takes_us_with_it_when_all_is_said(tmp_path: Path) -> None:
    for name, expected in (("SIGTERM", -signal.SIGTERM), ("SIGKILL", 128 + signal.SIGKILL)):
        code = f"import os, signal; os.kill(os.getpid(), signal.{name})"
        done = launched(tmp_path, "--", sys.executable, "-c", code)
        assert done.returncode == expected
        assert "no request came through the proxy: nothing is recorded" in done.stderr


WAITING = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(5))
print("ready", flush=True)
time.sleep(60)
"""


def test_a_signal_to_us_is_the_programs(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "agentcascade", "launch", "--", sys.executable, "-c", WAITING]
    running = subprocess.Popen(
        command, cwd=tmp_path, env=environment(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert running.stdout is not None
    assert running.stdout.readline() == "ready\n"
    running.send_signal(signal.SIGTERM)
    _, said = running.communicate(timeout=60)
    assert running.returncode == 5
    assert "records:" in said


def test_ctrl_c_at_a_terminal_ends_the_program_once_and_the_summary_is_said(tmp_path: Path) -> None:
    """The program has the terminal: its input, its size, its Ctrl-C."""
    code = (
        "import sys, signal\nn = []\nsignal.signal(signal.SIGINT, lambda *_: n.append(1))\n"
        "print('tty', sys.stdin.isatty() and sys.stdout.isatty(), flush=True)\n"
        "while not n: signal.pause()\nimport time; time.sleep(0.3)\nprint('pressed', len(n), flush=True)\nsys.exit(9)"
    )
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(tmp_path)
        os.execve(
            sys.executable,
            [sys.executable, "-m", "agentcascade", "launch", "--", sys.executable, "-c", code],
            environment(tmp_path),
        )
    said = b""
    pressed = False
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        try:
            part = os.read(terminal, 4096)
        except OSError:
            break
        if not part:
            break
        said += part
        if b"tty True" in said and not pressed:
            os.write(terminal, b"\x03")
            pressed = True
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    assert b"pressed 1" in said, said
    assert b"records:" in said
    assert os.waitstatus_to_exitcode(status) == 9


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["cluade"], "did you mean 'claude'?"),
        (["python", "agent.py"], "agentcascade launch -- python"),
        ([], "name a program: claude, codex, or -- COMMAND"),
        (["--", "no-such-command"], "no-such-command is not installed, or not on PATH"),
        (["--student", "openai/gpt-4.1-mini", "--", "true"], "set OPENAI_API_KEY"),
        (["--student-base", "http://x/v1", "--", "true"], "--student-base is an address of --student"),
        (["claude"], "claude is not installed, or not on PATH: npm install -g @anthropic-ai/claude-code"),
        (["--upstream", "opnai=http://x/v1", "--", "true"], "did you mean 'openai'?"),
        (["--upstream", "localhost", "--", "touch", "ran"], "give a base URL"),
        (["--url", "sqlite:////no/such/folder/x.db", "--", "touch", "ran"], "/no/such/folder"),
    ],
)
def test_what_cannot_be_started_is_said_and_the_program_is_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    variables = environment(tmp_path, arguments, OPENAI_API_KEY="") | (
        {"PATH": "/nowhere"} if arguments == ["claude"] else {}
    )
    with patch.dict(os.environ, variables, clear=True):
        done = CliRunner().invoke(main, ["launch", *arguments], prog_name="agentcascade")
    assert done.exit_code in (1, 2), done.stderr
    assert words in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "ran").exists()


def test_a_port_that_is_taken_is_said(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = launched(tmp_path, "--port", str(port), "--", "touch", "ran")
    assert done.returncode == 1
    assert f"the proxy cannot have port {port} of 127.0.0.1" in done.stderr
    assert not (tmp_path / "ran").exists()


def student_brain(request: Request) -> Reply:
    """Says the same as `claude_brain` and `codex_brain` at the first step, and something else at the second."""
    names = {t["function"]["name"]: t for t in request.body.get("tools") or ()}
    name, field = ("Bash", "command") if "Bash" in names else ("exec_command", "cmd")
    results = sum(m["role"] == "tool" for m in request.body["messages"])
    if name not in names or results == len(COMMANDS):
        return Reply(texts=("all done",))
    call = json.dumps({field: "ls" if results == 1 else COMMANDS[0]})
    return Reply(texts=(None,), tool_calls=[(name, call)], ignore_n=True)


def codex_brain(body: dict[str, Any], out: Out) -> None:
    """Codex runs the commands, by Responses."""
    results = sum(item.get("type") == "function_call_output" for item in body.get("input", ()))
    message: dict[str, Any] = {"content": "all done"}
    if results < len(COMMANDS):
        function = {"name": "exec_command", "arguments": json.dumps({"cmd": COMMANDS[results]})}
        message = {"tool_calls": [{"index": 0, "id": f"call_{results}", "type": "function", "function": function}]}
    out.events([part(message), part({}, "tool_calls" if results < len(COMMANDS) else "stop"), last()])


def claude_brain(request: fake_anthropic.Request) -> fake_anthropic.Reply:
    """Claude Code runs the commands; what it asks without tools, such as a title, is answered with a word."""
    blocks = [b for m in request.body["messages"] if isinstance(m["content"], list) for b in m["content"]]
    results = sum(block["type"] == "tool_result" for block in blocks)
    if not any(tool.get("name") == "Bash" for tool in request.body.get("tools") or ()) or results == len(COMMANDS):
        return fake_anthropic.text("all done")
    return fake_anthropic.call("Bash", {"command": COMMANDS[results]}, id=f"toolu_0{results}")


def check_watched(folder: Path, mode: str, student: FakeOpenAI, done: subprocess.CompletedProcess[str]) -> None:
    """The program did its work; it was recorded, without its key; a student was asked behind it, and never acted."""
    assert done.returncode == 0, done.stderr
    assert "all done" in done.stdout
    assert (folder / "greeting.txt").read_text() == "hello\n"
    assert f"agentcascade ({mode}): " in done.stderr
    assert ("openai/student would have agreed with the teacher on" in done.stderr) is (mode == "shadow")
    assert bool(student.requests) is (mode == "shadow")
    assert KEY not in str(student.requests)
    records = "\n".join(sqlite3.connect(folder / "agentcascade.db").iterdump())
    assert "greet" in records
    assert KEY[8:] not in records


def with_student(mode: str, student: FakeOpenAI) -> list[str]:
    return ["--student", "openai/student", "--student-base", student.url] if mode == "shadow" else []


@pytest.mark.skipif(shutil.which("codex") is None, reason="needs Codex: npm install -g @openai/codex")
@pytest.mark.parametrize("mode", ["collect", "shadow"])
def test_codex_does_its_work(tmp_path: Path, mode: str) -> None:
    options = ["--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox", "-m", "gpt-any"]
    with Provider(codex_brain) as provider, FakeOpenAI(student_brain) as student:
        upstream = ["--upstream", provider.url, *with_student(mode, student)]
        done = launched(tmp_path, *upstream, "codex", "--", "exec", *options, "greet", CODEX_HOME=str(tmp_path))
    print(done.stdout, done.stderr)
    check_watched(tmp_path, mode, student, done)
    asked = [h for h, body in zip(provider.headers, provider.bodies) if body]
    assert {h["authorization"] for h in asked} == {f"Bearer {KEY}"}
    assert {h["originator"] for h in asked} == {"codex_exec"}


@pytest.mark.skipif(
    shutil.which("claude") is None, reason="needs Claude Code: npm install -g @anthropic-ai/claude-code"
)
@pytest.mark.parametrize("mode", ["collect", "shadow"])
def test_claude_code_does_its_work(tmp_path: Path, mode: str) -> None:
    """Its settings name another address, as those of many users do."""
    own = {"ANTHROPIC_API_KEY": KEY, "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1", "DISABLE_AUTOUPDATER": "1"}
    with FakeAnthropic(claude_brain) as provider, FakeOpenAI(student_brain) as student:
        (tmp_path / ".claude").mkdir()
        settings = {"env": {"ANTHROPIC_BASE_URL": provider.root}}
        (tmp_path / ".claude" / "settings.json").write_text(json.dumps(settings))
        options = ["-p", "greet", "--allowedTools", "Bash"]
        done = launched(tmp_path, *with_student(mode, student), "claude", "--", *options, **own)
    print(done.stdout, done.stderr)
    check_watched(tmp_path, mode, student, done)
    assert provider.refused == []
    assert {r.headers["x-api-key"] for r in provider.requests} == {KEY}
    assert all(r.headers["user-agent"].startswith("claude-cli/") for r in provider.requests)
    assert all("claude-code" in r.headers["anthropic-beta"] for r in provider.requests)


ANTHROPIC_AGENT = """
import subprocess, sys
import anthropic

client = anthropic.Anthropic()
schema = {"type": "object", "properties": {"command": {"type": "string"}}, "required": ["command"]}
messages = [{"role": "user", "content": "greet"}]
while True:
    with client.messages.stream(
        model="claude-any", max_tokens=500, messages=messages, tools=[{"name": "Bash", "input_schema": schema}]
    ) as stream:
        message = stream.get_final_message()
    messages.append({"role": "assistant", "content": message.content})
    results = [
        {
            "type": "tool_result",
            "tool_use_id": block.id,
            "content": subprocess.run(block.input["command"], shell=True, capture_output=True, text=True).stdout,
        }
        for block in message.content
        if block.type == "tool_use"
    ]
    if not results:
        break
    messages.append({"role": "user", "content": results})
print(message.content[0].text)
"""


@pytest.mark.parametrize("mode", ["collect", "shadow"])
def test_a_program_of_anthropics_sdk_does_its_work(tmp_path: Path, mode: str) -> None:
    pytest.importorskip("anthropic", reason="needs the anthropic SDK")
    with FakeAnthropic(claude_brain) as provider, FakeOpenAI(student_brain) as student:
        upstream = ["--upstream", f"anthropic={provider.root}", *with_student(mode, student)]
        done = launched(tmp_path, *upstream, "--", sys.executable, "-c", ANTHROPIC_AGENT, ANTHROPIC_API_KEY=KEY)
    check_watched(tmp_path, mode, student, done)
    assert provider.refused == []
    sent = [r.headers.get("x-api-key") or r.headers["authorization"] for r in provider.requests]
    assert [key.removeprefix("Bearer ") for key in sent] == [KEY] * 3  # which header it is hangs on the SDK's version
