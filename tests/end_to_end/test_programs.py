"""Programs as they are, told nothing but another base URL, against a running `agentcascade serve`.

Behind the server stands a fake provider that knows what to do next, so the programs get their work done.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from agentcascade._util.ports import free_port
from tests.fake_openai import FakeOpenAI, Reply, Request

pytest.importorskip("fastapi", reason="needs the extra `server`")

PRICE = {"input": "1", "output": "2"}
REQUIRE_NODE, REQUIRE_MINI = "TESTS_REQUIRE_NODE", "TESTS_REQUIRE_MINI"
"""Set them where these tests must not be skipped."""
SUBMIT = "echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT"
"""How a program of mini-swe-agent's says that it is done."""


GUESSES = itertools.count()


def brain(request: Request) -> Reply:
    """What a model would do next. Of anything difficult the student says something else every time."""
    messages, tools = request.body["messages"], request.body.get("tools") or ()
    names = [t["function"]["name"] for t in tools]
    asked = messages[messages_after(messages)]["content"]
    asked = asked if isinstance(asked, str) else " ".join(part.get("text", "") for part in asked)
    results = [m["content"] for m in messages[messages_after(messages) :] if m["role"] == "tool"]
    if request.body["model"] == "student" and "difficult" in asked:
        return Reply(texts=(f"guess {next(GUESSES)}",))
    if "bash" in names:
        commands = ["echo hello > greeting.txt", "cat greeting.txt", SUBMIT]
        return Reply(
            texts=("I go on.",), tool_calls=[("bash", json.dumps({"command": commands[len(results)]}))], ignore_n=True
        )
    if "weather" in names and not results:
        cities = dict.fromkeys(re.findall(r"Paris|Rome", asked))  # behind demonstrations the task is said once more
        calls = [("weather", json.dumps({"city": city})) for city in cities]
        return Reply(
            texts=(None,), tool_calls=calls, ignore_n=True, usage={"prompt_tokens": 400, "completion_tokens": 30}
        )
    if results:
        return Reply(texts=("So it is " + " and ".join(results) + ".",))
    return Reply(texts=("Hello there, dear friend.",))


def answers_one(request: Request) -> Reply:
    """As many servers of open models: `n` is taken and ignored."""
    return replace(brain(request), ignore_n=True)


def messages_after(messages: Any) -> int:
    """Where the present task begins: demonstrations may stand before it, or behind tools' results."""
    return max(
        i for i, m in enumerate(messages) if m["role"] == "user" and not str(m["content"]).startswith("# Examples\n")
    )


class Served:
    """The server's address and key, and the provider behind it."""

    def __init__(self, fake: FakeOpenAI, port: int, key: str, config: Path) -> None:
        self.fake, self.key, self.config = fake, key, config
        self.root = f"http://127.0.0.1:{port}"
        self.url = f"{self.root}/v1"

    def environment(self, **more: str) -> dict[str, str]:
        """What the user of a program sets."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("OPENAI_", "AGENTCASCADE_"))}
        return kept | {"OPENAI_BASE_URL": self.url, "OPENAI_API_KEY": self.key} | more

    def run(self, *command: str, cwd: Path, **more: str) -> str:
        done = subprocess.run(
            command, cwd=cwd, env=self.environment(**more), capture_output=True, text=True, timeout=100
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("served")
    with FakeOpenAI(answers_one) as fake:
        model = {"api_base": fake.url, "api_key": "sk-upstream", "retries": 0, "price": PRICE}
        config = {
            "teacher": {"name": "openai/teacher", **model},
            "student": {"name": "openai/student", **model},
            "bank": {"url": f"sqlite:///{folder}/cascade.db"},
            "retrieval": {"embedder": "hashing", "index": "exact"},
            "cascades": {
                "default": {"prompt": {"min_demonstrations": 0}, "retrieval": {"k": 0}},  # whatever others bank
                "collecting": {"mode": "collect"},
                "shown": {"prompt": {"min_demonstrations": 1}},
            },
        }
        path = folder / "agentcascade.yaml"
        path.write_text(yaml.safe_dump(config))
        own = [sys.executable, "-m", "agentcascade"]
        create = [*own, "keys", "create", "programs", "--config", str(path)]
        key = subprocess.run(create, check=True, capture_output=True, text=True).stdout.strip()
        port = free_port()
        with (folder / "log").open("wb") as log:
            serve = [*own, "serve", "--config", str(path), "--port", str(port)]
            process = subprocess.Popen(serve, cwd=folder, stdout=log, stderr=log)
        try:
            deadline = time.monotonic() + 180
            while not ready(f"http://127.0.0.1:{port}/readyz"):
                assert process.poll() is None, (folder / "log").read_text()
                assert time.monotonic() < deadline
                time.sleep(0.1)
            yield Served(fake, port, key, path)
        finally:
            process.terminate()
            assert process.wait(90) == 0
        assert "Traceback" not in (folder / "log").read_text()


def ready(url: str) -> bool:
    try:
        return httpx.get(url).status_code == 200
    except httpx.TransportError:
        return False


PYTHON = """
import json, openai
client = openai.OpenAI()
say = lambda text: [{"role": "user", "content": text}]
out = {"models": [m.id for m in client.models.list()]}
answer = client.chat.completions.create(model="default", messages=say("hi"))
out["answer"], out["by"] = answer.choices[0].message.content, answer.agentcascade["answered_by"]
for text in ("hi", "something difficult"):
    parts, last = [], None
    asked = dict(model="default", messages=say(text), stream=True, stream_options={"include_usage": True})
    for chunk in client.chat.completions.create(**asked):
        parts += [c.delta.content for c in chunk.choices if c.delta.content]
        last = chunk
    out[text] = ["".join(parts), len(parts), last.usage.prompt_tokens]
parameters = {"type": "object", "properties": {"city": {"type": "string"}}}
tools = [{"type": "function", "function": {"name": "weather", "parameters": parameters}}]
messages = say("How is the weather in Paris and in Rome?")
with client.chat.completions.stream(model="default", messages=messages, tools=tools) as stream:
    message = stream.get_final_completion().choices[0].message
messages.append(message)
for call in message.tool_calls:
    city = json.loads(call.function.arguments)["city"]
    messages.append({"role": "tool", "tool_call_id": call.id, "content": f"fine in {city}"})
end = client.chat.completions.create(model="default", messages=messages, tools=tools)
out["weather"] = end.choices[0].message.content
try:
    client.chat.completions.create(model="nothing", messages=say("hi"))
except openai.NotFoundError as error:
    out["error"] = error.code
print(json.dumps(out))
"""

NODE = """
import OpenAI from 'openai'
const client = new OpenAI()
const say = text => [{role: 'user', content: text}]
const out = {models: []}
for await (const model of await client.models.list()) out.models.push(model.id)
const answer = await client.chat.completions.create({model: 'default', messages: say('hi')})
out.answer = answer.choices[0].message.content
out.by = answer.agentcascade.answered_by
for (const text of ['hi', 'something difficult']) {
  const parts = []
  let last
  const asked = {model: 'default', messages: say(text), stream: true, stream_options: {include_usage: true}}
  for await (const chunk of await client.chat.completions.create(asked)) {
    for (const choice of chunk.choices) if (choice.delta.content) parts.push(choice.delta.content)
    last = chunk
  }
  out[text] = [parts.join(''), parts.length, last.usage.prompt_tokens]
}
const parameters = {type: 'object', properties: {city: {type: 'string'}}}
const tools = [{type: 'function', function: {
  name: 'weather', parameters, parse: JSON.parse, function: ({city}) => `fine in ${city}`}}]
const runner = client.chat.completions.runTools(
  {model: 'default', messages: say('How is the weather in Paris and in Rome?'), tools, stream: true})
out.weather = await runner.finalContent()
try {
  await client.chat.completions.create({model: 'nothing', messages: say('hi')})
} catch (error) {
  if (!(error instanceof OpenAI.NotFoundError)) throw error
  out.error = error.code
}
console.log(JSON.stringify(out))
"""


def check(out: dict[str, Any]) -> None:
    """What both SDKs are to see."""
    assert sorted(out["models"]) == ["collecting", "default", "shown"]
    assert (out["answer"], out["by"]) == ("Hello there, dear friend.", "student")
    assert out["hi"] == ["Hello there, dear friend.", 1, 30], "one chunk, the bill of three samples"
    text, parts, prompt = out["something difficult"]
    assert (text, prompt) == ("Hello there, dear friend.", 10)
    assert parts == 4, "live from the teacher, word for word"
    assert out["weather"] == "So it is fine in Paris and fine in Rome."
    assert out["error"] == "model_not_found"


def test_the_openai_sdk_for_python(served: Served, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PYTHON)
    check(json.loads(served.run(sys.executable, "program.py", cwd=tmp_path)))


@pytest.mark.slow
def test_the_openai_sdk_for_node(served: Served, tmp_path: Path) -> None:
    node, npm = shutil.which("node"), shutil.which("npm")
    if not node or not npm:
        unavailable(REQUIRE_NODE, "needs node and npm")
    assert node
    assert npm
    install = [npm, "install", "--no-audit", "--no-fund", "--fetch-retries=1", "--fetch-timeout=20000", "openai"]
    done = subprocess.run(install, cwd=tmp_path, capture_output=True, text=True)
    if done.returncode:
        unavailable(REQUIRE_NODE, f"npm cannot install openai: {done.stderr[-300:]}")
    (tmp_path / "program.mjs").write_text(NODE)
    check(json.loads(served.run(node, "program.mjs", cwd=tmp_path)))
    print("openai for node", json.loads((tmp_path / "node_modules/openai/package.json").read_text())["version"])


def unavailable(required: str, reason: str) -> None:
    if os.environ.get(required):
        pytest.fail(reason)
    pytest.skip(f"{reason} (set {required} where this must not be skipped)")


@pytest.mark.skipif(not shutil.which("curl"), reason="needs curl")
def test_curl(served: Served, tmp_path: Path) -> None:
    def curl(path: str, body: dict[str, Any] | None = None, *more: str, key: str = "") -> str:
        data = ["-d", json.dumps(body)] if body else []
        headers = ["-H", f"authorization: Bearer {key or served.key}", "-H", "content-type: application/json"]
        return served.run("curl", "-sS", "-N", served.root + path, *headers, *data, *more, cwd=tmp_path)

    asked: dict[str, Any] = {"model": "collecting", "messages": [{"role": "user", "content": "hi from curl"}]}
    answer = json.loads(curl("/v1/chat/completions", asked))
    assert answer["choices"][0]["message"]["content"] == "Hello there, dear friend."
    episode = answer["agentcascade"]["episode"]
    assert json.loads(curl(f"/v1/episodes/{episode}/feedback", {"success": True}))["banked"] is True

    stream = curl("/v1/chat/completions", asked | {"stream": True})
    lines = [line for line in stream.splitlines() if line]
    assert lines[-1] == "data: [DONE]"
    assert json.loads(lines[0].removeprefix("data: "))["choices"][0]["delta"]["role"] == "assistant"

    status = curl("/v1/chat/completions", asked, "-o", "/dev/null", "-w", "%{http_code}", key="wrong")
    assert status == "401"
    assert json.loads(curl("/healthz"))["status"] == "ok"


def weather(city: str) -> str:
    """How the weather is in a city."""
    return f"fine in {city}"


def react(model: Any) -> Any:
    prebuilt = pytest.importorskip("langgraph.prebuilt", reason="needs langgraph")
    return prebuilt.create_react_agent(model, [weather])


QUESTION = {"messages": [{"role": "user", "content": "How is the weather in Paris and in Rome?"}]}


@pytest.mark.filterwarnings("ignore:create_react_agent has been moved")
@pytest.mark.parametrize("question", ["", " That is difficult."], ids=["accepted", "deferred"])
@pytest.mark.parametrize("streaming", [False, True])
def test_a_langgraph_agent_through_chat_openai(served: Served, question: str, streaming: bool) -> None:
    openai = pytest.importorskip("langchain_openai", reason="needs langchain-openai")
    model = openai.ChatOpenAI(
        base_url=served.url, api_key=served.key, model="default", streaming=streaming, stream_usage=streaming
    )
    asked = {"messages": [{"role": "user", "content": QUESTION["messages"][0]["content"] + question}]}
    state = react(model).invoke(asked)
    assert [m.type for m in state["messages"]] == ["human", "ai", "tool", "tool", "ai"]
    assert state["messages"][-1].content == "So it is fine in Paris and fine in Rome."
    assert state["messages"][1].usage_metadata["input_tokens"] == (400 if question else 1200)


@pytest.mark.filterwarnings("ignore:create_react_agent has been moved")
async def test_a_langgraph_agent_on_the_chat_model_itself(tmp_path: Path) -> None:
    from agentcascade import build

    pytest.importorskip("langchain_core", reason="needs the extra `langchain`")
    from agentcascade.integrations.langchain import ChatAgentCascade

    with FakeOpenAI(answers_one) as fake:
        model = {"api_base": fake.url, "api_key": "x", "retries": 0, "price": PRICE}
        teacher: Any = {"name": "openai/teacher", **model}
        student: Any = {"name": "openai/student", **model}
        async with build(
            teacher=teacher,
            student=student,
            bank={"url": f"sqlite:///{tmp_path}/cascade.db"},
            retrieval={"embedder": "hashing", "index": "exact"},
            prompt={"min_demonstrations": 0},
        ) as cascade:
            agent = react(ChatAgentCascade(cascade=cascade))
            run = {"metadata": {"agentcascade_episode": "run-1"}}
            state = await agent.ainvoke(QUESTION, run)
            tokens = [part async for part, _ in agent.astream(QUESTION, run, stream_mode="messages")]
    said = [m.response_metadata["agentcascade"] for m in state["messages"] if m.type == "ai"]
    assert state["messages"][-1].content == "So it is fine in Paris and fine in Rome."
    assert [(s["answered_by"], s["episode"], s["step"]) for s in said] == [
        ("student", "run-1", 0),
        ("student", "run-1", 1),
    ]
    text = "".join(t.content for t in tokens if t.type == "AIMessageChunk")
    assert text == "So it is fine in Paris and fine in Rome."


@pytest.fixture(scope="module")
def mini(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """mini-swe-agent from PyPI, beside the packages that are there already; what to set to run it."""
    folder = tmp_path_factory.mktemp("mini")
    hasty = ["--retries", "1", "--timeout", "20", "--disable-pip-version-check"]
    install = [sys.executable, "-m", "pip", "install", "-q", *hasty, "--no-deps", "--target", str(folder)]
    done = subprocess.run([*install, "mini-swe-agent"], capture_output=True, text=True)
    if done.returncode:
        unavailable(REQUIRE_MINI, f"pip cannot install mini-swe-agent: {done.stderr[-300:]}")
    settings = {
        "PYTHONPATH": str(folder),
        "MSWEA_GLOBAL_CONFIG_DIR": str(folder / "settings"),
        "MSWEA_CONFIGURED": "true",
        "MSWEA_SILENT_STARTUP": "1",
        "MSWEA_COST_TRACKING": "ignore_errors",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    }
    found = subprocess.run(
        [sys.executable, "-c", "import minisweagent.run.mini"],
        env=os.environ | settings,
        capture_output=True,
        text=True,
    )
    if found.returncode:
        unavailable(REQUIRE_MINI, f"mini-swe-agent lacks a package: {found.stderr[-300:]}")
    return settings


@pytest.mark.slow
def test_mini_swe_agent_collects_then_runs_on_the_student(served: Served, tmp_path: Path, mini: dict[str, str]) -> None:
    def solve(model: str) -> list[dict[str, Any]]:
        """Run the agent in a folder of its own; what the server said about each step."""
        folder = tmp_path / model
        folder.mkdir()
        options = ["-t", "Write hello into greeting.txt", "-y", "--exit-immediately", "-o", "out.json"]
        # litellm's own way round a package that it wants for any tool and does not install
        quiet = ["-c", "mini.yaml", "-c", "model.model_kwargs._skip_mcp_handler=true"]
        command = [sys.executable, "-m", "minisweagent.run.mini", "-m", f"openai/{model}"]
        before = len(served.fake.requests)
        served.run(*command, *options, *quiet, cwd=folder, **mini)
        assert (folder / "greeting.txt").read_text() == "hello\n"
        out = json.loads((folder / "out.json").read_text())
        assert out["info"]["exit_status"] == "Submitted"
        assert out["info"]["model_stats"]["api_calls"] == 3
        print("mini-swe-agent", out["info"]["mini_version"])
        return [dict(r.body) for r in served.fake.requests[before:]]

    taught = solve("collecting")
    assert [body["model"] for body in taught] == ["teacher"] * 3
    ledger = [sys.executable, "-m", "agentcascade", "ledger", "--by", "episode", "--json", "--config"]
    deadline = time.monotonic() + 120
    while True:
        lines = json.loads(served.run(*ledger, str(served.config), cwd=tmp_path))
        if episodes := [line["group"] for line in lines["groups"] if line["steps"] == 3]:
            break
        assert time.monotonic() < deadline, lines
    (episode,) = episodes
    headers = {"authorization": f"Bearer {served.key}"}
    told = httpx.post(f"{served.url}/episodes/{episode}/feedback", json={"success": True}, headers=headers)
    assert told.json()["banked"] is True

    acted = solve("shown")
    assert {body["model"] for body in acted} == {"student"}, "it does by itself what it was shown"
    assert all("echo hello > greeting.txt" in json.dumps(body["messages"]) for body in acted[:3]), (
        "before its first step"
    )
