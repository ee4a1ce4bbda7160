"""The response cache behind the proxy's doors: bought once, told as ever, shared with no other tenant."""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from agentcascade.integrations.openai import Wrapped

pytest.importorskip("fastapi", reason="needs the extra `server`")
import openai
from click.testing import CliRunner

from agentcascade.cli import main
from agentcascade.config.load import CascadeConfig
from tests.fake_openai import FakeOpenAI, Reply, Request
from tests.proxy import Proxy, serving, settings

DOORS = ("chat/completions", "messages", "responses")
TOOL = {"type": "object", "properties": {"at": {"type": "string"}}}
TOOLS: dict[str, Any] = {
    "chat/completions": {"type": "function", "function": {"name": "look", "parameters": TOOL}},
    "messages": {"name": "look", "input_schema": TOOL},
    "responses": {"type": "function", "name": "look", "parameters": TOOL, "strict": False},
}


CHAT = {"model": "teacher", "messages": [{"role": "user", "content": "hi"}]}


class Served(NamedTuple):
    proxy: Proxy
    fake: FakeOpenAI
    owner: str
    stranger: str

    def ask(self, door: str, text: str, *, stream: bool = False, key: str = "", cache: str = "", **more: Any) -> Any:
        """(the answer's JSON or last event, its decision, all of its text)."""
        said: dict[str, Any] = (
            {"input": text} if door == "responses" else {"messages": [{"role": "user", "content": text}]}
        )
        body = {"model": "teacher", "temperature": 0, "stream": stream, **said, **more}
        body |= {"max_tokens": 100} if door == "messages" else {}
        headers = {"authorization": f"Bearer {key or self.owner}"} | ({"x-agentcascade-cache": cache} if cache else {})
        response = self.proxy.http.post(f"/v1/{door}", json=body, headers=headers)
        assert response.status_code == 200, response.text
        if not stream:
            return response.json(), response.json()["agentcascade"], response.text
        events = [json.loads(line[6:]) for line in response.text.splitlines() if line.startswith("data: {")]
        last = events[-1]
        for event in events:
            for holder in (event, event.get("response") or {}):
                last = holder if isinstance(holder.get("agentcascade"), dict) else last
        return last, last["agentcascade"], response.text


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("cached")

    def answer(request: Request) -> Reply:
        call = [("look", '{"at": "bed"}')] if request.body.get("tools") else []
        usage = {"prompt_tokens": 90, "completion_tokens": 20}
        return Reply(texts=("the mug is on the desk",), tool_calls=call, usage=usage)

    with FakeOpenAI(answer) as fake:
        base = settings(fake, folder, response_cache={"enabled": True}, budgets={"per_namespace": "1"})
        named = {"teacher": {"mode": "teacher"}}
        with serving(CascadeConfig(**base, cascades=named)) as proxy:
            keys = [proxy.key(name, namespace=name) for name in ("owner", "stranger")]
            yield Served(proxy, fake, *keys)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("door", DOORS)
def test_the_second_time_nobody_is_asked(served: Served, door: str, stream: bool) -> None:
    text = f"where is the mug? {door} {stream}"
    before = len(served.fake.requests)
    _, bought, _ = served.ask(door, text, stream=stream)
    whole, hit, said = served.ask(door, text, stream=stream)
    _, again, _ = served.ask(door, text, stream=not stream)
    assert len(served.fake.requests) == before + 1
    assert [c["cached_response"] for d in (bought, hit, again) for c in d["calls"]] == [False, True, True]
    assert Decimal(bought["dollars"]) == Decimal(hit["calls"][0]["avoided_dollars"]) == Decimal("0.00013")
    assert Decimal(hit["dollars"]) == Decimal(hit["teacher_dollars"]) == 0
    assert "desk" in said
    usage = whole["usage"]
    read, written = ("prompt_tokens", "completion_tokens") if door == DOORS[0] else ("input_tokens", "output_tokens")
    assert (usage[read], usage[written]) == (90, 20)
    _, elsewhere, _ = served.ask(door, text, key=served.stranger)
    assert not elsewhere["calls"][0]["cached_response"], "another tenant's is bought"
    assert len(served.fake.requests) == before + 2


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("door", DOORS)
def test_a_call_of_a_tool_is_given_twice_under_two_ids(served: Served, door: str, stream: bool) -> None:
    text = f"look: {door} {stream}"
    found = [served.ask(door, text, stream=stream, tools=[TOOLS[door]]) for _ in range(3)]
    assert [d["calls"][0]["cached_response"] for _, d, _ in found] == [False, True, True]
    ids = [set(ids_in(said)) for _, _, said in found]
    assert [len(i) for i in ids] == [1, 1, 1]
    assert len(set.union(*ids)) == 3


def ids_in(said: str) -> list[str]:
    """Ids of tool calls in an answer of any door: those that we hand out, or the provider's."""
    import re

    return re.findall(r'"(?:call_id|id)":\s?"(call_\d|toolu_\d|[ts][0-9A-Za-z]{8})"', said)


def test_a_request_says_more_or_less(served: Served) -> None:
    warm = [
        served.ask("chat/completions", "warm", cache=use, temperature=0.7)[1] for use in ("", "use", "use", "no-cache")
    ]
    assert [d["calls"][0]["cached_response"] for d in warm] == [False, False, True, False]
    for door in DOORS:
        kept = [served.ask(door, f"secret {door}", cache=use)[1] for use in ("no-store", "", "no-store", "")]
        assert [d["calls"][0]["cached_response"] for d in kept] == [False, False, False, True]
        by_metadata = served.ask(door, f"secret {door}", metadata={"agentcascade_cache": "no-cache"})[1]
        assert not by_metadata["calls"][0]["cached_response"]
        refused = served.proxy.http.post(
            f"/v1/{door}", headers={"authorization": f"Bearer {served.owner}", "x-agentcascade-cache": "often"},
            json={"model": "teacher", "input": "hi"} if door == "responses" else {**CHAT, "max_tokens": 5},
        )  # fmt: skip
        assert refused.status_code == 400
        assert "x-agentcascade-cache is 'often'" in refused.text
    assert not any("agentcascade_cache" in str(request.body) for request in served.fake.requests)


def test_wrap_and_the_ledger(tmp_path: Path) -> None:
    from agentcascade import wrap

    url = f"sqlite:///{tmp_path}/w.db"
    with FakeOpenAI() as fake, openai.OpenAI(base_url=fake.url, api_key="none") as plain:
        client = wrap(plain, mode="teacher", bank={"url": url}, retrieval={"k": 0}, response_cache={"enabled": True},
                      teacher={"name": "teacher", "price": {"input": "1", "output": "2"}})  # fmt: skip
        ask: Any = {"model": "teacher", "messages": [{"role": "user", "content": "hi"}], "temperature": 0}
        with Wrapped.of(client):
            first = client.chat.completions.create(**ask)
            streamed = list(client.chat.completions.create(stream=True, **ask))
            named = client.chat.completions.create(**ask, extra_headers={"X-AgentCascade-Episode": "other"})
            anew = client.chat.completions.create(**ask, extra_headers={"X-AgentCascade-Cache": "no-store"})
            one = client.responses.create(model="teacher", input="hi", temperature=0)
            two = client.responses.create(model="teacher", input="hi", temperature=0)
        assert len(fake.requests) == 3
    decisions = [first.agentcascade, streamed[-1].agentcascade, named.agentcascade, anew.agentcascade]
    assert [d.calls[0].cached_response for d in decisions] == [False, True, True, False]
    assert (one.output_text, two.output_text) == ("hello", "hello")
    assert streamed[-1].usage.completion_tokens == 2
    shown = CliRunner().invoke(main, ["ledger", "--url", url])
    assert "response cache: 3 calls answered for nothing; 36 tokens were not bought" in " ".join(shown.output.split())
    cleared = CliRunner().invoke(main, ["db", "clear-cache", "--url", url, "--namespace", "default"])
    assert cleared.output.strip() == "removed 2 cached answers"
