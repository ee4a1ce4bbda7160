"""Messages agents on the proxy: the unmodified `anthropic` SDK, and what Claude Code sends, before Claude or others."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.fake_openai import FakeOpenAI
from tests.fake_openai import Reply as Said

pytest.importorskip("fastapi", reason="needs the extra `server`")
pytest.importorskip("anthropic", reason="needs the extra `anthropic`")
import anthropic

from agentcascade.config.load import CascadeConfig
from tests import fake_anthropic
from tests.fake_anthropic import FakeAnthropic, Reply, call, text, thinking
from tests.proxy import Proxy, serving, settings

CLAUDE_CODE = json.loads((Path(__file__).parents[1] / "data" / "claude_code.json").read_text(encoding="utf-8"))
"""Requests of Claude Code 2.1.197 at a task with one call of Bash: its title, and two steps. Texts are cut."""
LOOK = {"name": "look", "description": "Look at it.", "input_schema": {"type": "object", "properties": {"at": {}}}}
ASK: list[Any] = [{"role": "user", "content": "Where is the mug?"}]
PRICE = {"input": "3", "output": "15", "cached_input": "0.3", "cache_write": "3.75", "cache_write_1h": "6"}


@contextmanager
def door(folder: Path, claude: FakeAnthropic, student: FakeOpenAI | None = None, **more: Any) -> Iterator[Proxy]:
    """A proxy with a Claude teacher; its students answer by Chat Completions."""
    with student or FakeOpenAI([Said(texts=("",))]) as fake:
        base = settings(fake, folder)
        teacher = {**base["teacher"], "name": "anthropic/claude-opus-4-8", "api_base": claude.root, "price": PRICE}
        shared = {"teacher": teacher, "actions": {"format": "tools"}, "retrieval": {"k": 0}}
        modes = {name: {"mode": name} for name in ("teacher", "collect", "shadow", "cascade")}
        with serving(CascadeConfig(**(base | shared | {"cascades": modes} | more))) as proxy:
            yield proxy


def sdk(proxy: Proxy, key: str = "none", **more: Any) -> Any:
    return anthropic.Anthropic(base_url=proxy.base, api_key=key, max_retries=0, **more)


def said(client: Any, streamed: bool, **body: Any) -> Any:
    """The SDK's message, whole or put together by its own stream helper."""
    body = {"model": "teacher", "max_tokens": 2000, "messages": ASK, **body}
    if not streamed:
        return client.messages.create(**body)
    with client.messages.stream(**body) as stream:
        return stream.get_final_message()


@pytest.mark.parametrize("streamed", [False, True])
class TestTheSdk:
    def test_a_tool_loop_with_thinking_keeps_every_block(self, tmp_path: Path, streamed: bool) -> None:
        usage = {"input_tokens": 20, "cache_creation_input_tokens": 300, "cache_read_input_tokens": 100,
                 "cache_creation": {"ephemeral_5m_input_tokens": 200, "ephemeral_1h_input_tokens": 100},
                 "output_tokens": 40, "service_tier": "standard"}  # fmt: skip
        first = Reply([thinking("the mug, hm"), {"type": "redacted_thinking", "data": "Ab"},
                       {"type": "text", "text": "Let me look."},
                       {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {"at": "desk"}},
                       thinking("and the bed"),
                       {"type": "tool_use", "id": "toolu_2", "name": "look", "input": {}}], usage=usage)  # fmt: skip
        mark = {"cache_control": {"type": "ephemeral", "ttl": "1h"}}
        system = [{"type": "text", "text": "Be brief.", **mark}]
        with FakeAnthropic([first, text("On the desk.")]) as claude, door(tmp_path, claude) as proxy:
            more = {"tools": [{**LOOK, **mark}], "system": system, "thinking": {"type": "adaptive"}}
            more |= {"tool_choice": {"type": "auto", "disable_parallel_tool_use": False}, "metadata": {"user_id": "u1"}}
            client = sdk(proxy, default_headers={"anthropic-beta": "context-1m-2025-08-07"})
            answer = said(client, streamed, **more)
            results = [{"type": "tool_result", "tool_use_id": b.id, "content": "a mug", "is_error": False}
                       for b in answer.content if b.type == "tool_use"]  # fmt: skip
            chat = [*ASK, {"role": "assistant", "content": answer.content}, {"role": "user", "content": results}]
            last = said(client, streamed, messages=chat, **more)
        assert not claude.refused
        assert [b.type for b in answer.content] == [b["type"] for b in first.content]
        assert answer.content[0].signature == first.content[0]["signature"]
        assert (answer.stop_reason, last.stop_reason) == ("tool_use", "end_turn")
        assert last.content[0].text == "On the desk."
        assert answer.usage.input_tokens == 20
        assert answer.usage.cache_read_input_tokens == 100
        assert answer.usage.cache_creation_input_tokens == 300
        assert answer.usage.output_tokens == 40
        sent, again = (r.body for r in claude.requests)
        assert sent["system"] == system
        assert sent["tools"][0]["cache_control"] == mark["cache_control"]
        assert sent["metadata"] == {"user_id": "u1"}
        assert sent["tool_choice"] == more["tool_choice"]
        assert "stream" not in sent or sent["stream"] is streamed
        assert [b["type"] for b in again["messages"][1]["content"]] == [b["type"] for b in first.content]
        assert [b["tool_use_id"] for b in again["messages"][2]["content"]] == ["toolu_1", "toolu_2"]
        assert again["messages"][2]["content"][0]["is_error"] is False
        assert claude.requests[0].headers["anthropic-beta"] == "context-1m-2025-08-07"
        if not streamed:
            assert answer.usage.cache_creation.ephemeral_1h_input_tokens == 100
            assert answer.agentcascade["answered_by"] == "teacher"
            assert answer._request_id

    def test_an_openai_compatible_student_takes_the_step(self, tmp_path: Path, streamed: bool) -> None:
        looks = Said(texts=(None,), tool_calls=[("look", '{"at": "desk"}')], ignore_n=True)
        student = FakeOpenAI([looks])
        document = {"type": "document", "title": "notes", "source": {"type": "text", "media_type": "text/plain",
                    "data": "the mug is on the desk"}, "cache_control": {"type": "ephemeral"}}  # fmt: skip
        messages = [{"role": "user", "content": [{"type": "text", "text": "Where is the mug?"}, document]}]
        with FakeAnthropic([text("On the desk.")]) as claude, door(tmp_path, claude, student) as proxy:
            client = sdk(proxy)
            more = {"tools": [LOOK], "thinking": {"type": "adaptive"}, "model": "cascade"}
            answer = said(client, streamed, messages=messages, **more)
            assert not claude.requests
            (use,) = answer.content
            assert (use.name, use.input, answer.stop_reason) == ("look", {"at": "desk"}, "tool_use")
            result = {"type": "tool_result", "tool_use_id": use.id, "content": [{"type": "text", "text": "a mug"}]}
            turns = [{"role": "assistant", "content": answer.content}, {"role": "user", "content": [result]}]
            last = said(client, streamed, messages=[*messages, *turns], **{**more, "model": "teacher"})
        assert last.content[0].text == "On the desk."
        assert not claude.refused
        asked = student.requests[0].body
        assert asked["messages"] == [{"role": "user", "content": "Where is the mug?\nnotes\nthe mug is on the desk"}]
        assert asked["tools"][0]["function"]["parameters"] == LOOK["input_schema"]
        assert not asked.keys() & {"thinking", "metadata", "cache_control"}

    def test_errors_are_those_of_the_sdk(self, tmp_path: Path, streamed: bool) -> None:
        limited = Reply(status=429, error=("rate_limit_error", "slow down"), headers={"retry-after": "3"})
        refused = Reply(status=400, error=("invalid_request_error", "max_tokens: too many"))
        with FakeAnthropic([limited, refused]) as claude, door(tmp_path, claude) as proxy:
            client = sdk(proxy)
            with pytest.raises(anthropic.RateLimitError, match="slow down") as raised:
                said(client, streamed)
            assert raised.value.response.headers["retry-after"] == "3"
            assert error_of(raised) == "rate_limit_error"
            with pytest.raises(anthropic.BadRequestError, match="too many"):
                said(client, streamed)
            with pytest.raises(anthropic.NotFoundError, match="no model 'claude-x'"):
                said(client, streamed, model="claude-x")
            with pytest.raises(anthropic.BadRequestError, match="temperature"):
                said(client, streamed, extra_body={"temperature": 1.5})
            with pytest.raises(anthropic.BadRequestError, match=r"messages\.0\.content\.0\.text"):
                said(client, streamed, messages=[{"role": "user", "content": [{"type": "text"}]}])
            big = anthropic.Anthropic(base_url=proxy.base, api_key="x", max_retries=0)
            with pytest.raises(anthropic.APIStatusError) as too_large:
                said(big, streamed, messages=[{"role": "user", "content": "x" * (proxy.config.server.max_body_bytes)}])
            assert (too_large.value.status_code, error_of(too_large)) == (413, "request_too_large")


def test_a_tool_runner_sends_whole_conversations(tmp_path: Path) -> None:
    """By itself it would have the server keep them (message threads), where no step could be decided on them."""
    seen: list[str] = []

    @anthropic.beta_tool
    def look() -> str:
        """Look around."""
        seen.append("looked")
        return "a mug on the desk"

    with FakeAnthropic([call("look", {}), text("On the desk.")]) as claude, door(tmp_path, claude) as proxy:
        runner = sdk(proxy).beta.messages.tool_runner(model="teacher", max_tokens=99, messages=ASK, tools=[look])
        last = runner.until_done()
    assert seen == ["looked"]
    assert last.content[0].text == "On the desk."
    assert [len(r.body["messages"]) for r in claude.requests] == [1, 3]
    assert not claude.refused


def test_a_stream_that_fails_in_the_middle_ends_in_an_error_event(tmp_path: Path) -> None:
    broken = text("one two three four five", error_after=6, error=("overloaded_error", "Overloaded"))
    ends_early = text("one two three four five", truncate_after=5)
    got: list[str] = []
    with FakeAnthropic([broken, ends_early]) as claude, door(tmp_path, claude) as proxy:
        client = sdk(proxy)
        with (
            pytest.raises(anthropic.APIStatusError) as raised,
            client.messages.stream(model="teacher", max_tokens=9, messages=ASK) as stream,
        ):
            got += stream.text_stream
        assert "".join(got).split() == ["one", "two", "three"]
        assert error_of(raised) == "overloaded_error"
        with pytest.raises(anthropic.APIStatusError) as raised:
            said(client, True)
        assert error_of(raised) == "api_error"


class TestClaudeCode:
    """Its recorded requests, and those of the next step with what was answered."""

    @pytest.mark.parametrize("mode", ["teacher", "collect", "shadow"])
    def test_claude_is_sent_what_it_sent(self, tmp_path: Path, mode: str) -> None:
        replies = [text('{"title": "Counting lines"}'),
                   Reply(CLAUDE_CODE[2]["body"]["messages"][2]["content"]), text("There are 3 lines.")]  # fmt: skip
        with FakeAnthropic(replies) as claude, door(tmp_path, claude) as proxy:
            answers = [self.post(proxy, recorded, model=mode) for recorded in CLAUDE_CODE[:2]]
            third = json.loads(json.dumps(CLAUDE_CODE[2]))
            third["body"]["messages"][2]["content"] = _content(answers[1])
            ids = [b["id"] for b in _content(answers[1]) if b["type"] == "tool_use"]
            third["body"]["messages"][3]["content"][0]["tool_use_id"] = ids[0]
            answers.append(self.post(proxy, third, model=mode))
        assert not claude.refused
        for recorded, request in zip(CLAUDE_CODE, claude.requests):
            expected, sent = recorded["body"], dict(request.body)
            assert sent["messages"] == _blocks(expected["messages"])
            same = expected.keys() - {"messages", "model", "tools"}
            assert {k: sent.get(k) for k in same} == {k: expected[k] for k in same}
            assert sent.get("tools", []) == expected["tools"]
            assert request.headers["anthropic-beta"] == recorded["headers"]["anthropic-beta"]
            assert request.headers["x-api-key"].startswith("sk-upstream")
        decisions = [json.loads(a[-2].partition("data: ")[2])["agentcascade"] for a in answers]
        title, first, second = (d["episode"] for d in decisions)
        assert first == second != title
        assert [d["step"] for d in decisions] == [0, 0, 1]
        assert decisions[1]["goal"] == "How many lines has notes.txt?"

    def post(self, proxy: Proxy, recorded: dict[str, Any], **body: Any) -> list[str]:
        headers = recorded["headers"] | {"x-api-key": "none"}
        response = proxy.http.post(recorded["path"], json=recorded["body"] | body, headers=headers)
        assert response.status_code == 200, response.text
        return response.text.strip().split("\n\n")


def _content(events: list[str]) -> list[dict[str, Any]]:
    content: dict[int, dict[str, Any]] = {}
    for event in events:
        data = json.loads(event.partition("data: ")[2])
        if data["type"] == "content_block_start":
            content[data["index"]] = dict(data["content_block"])
        if data["type"] == "content_block_delta":
            block, delta = content[data["index"]], data["delta"]
            for name in ("text", "thinking"):
                if name in delta:
                    block[name] += delta[name]
            block |= {k: delta[k] for k in ("signature",) if k in delta}
            if "partial_json" in delta:
                block["_"] = block.get("_", "") + delta["partial_json"]
    return [{k: v for k, v in b.items() if k != "_"} | ({"input": json.loads(b["_"])} if "_" in b else {})
            for b in content.values()]  # fmt: skip


def _blocks(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {**m, "content": [{"type": "text", "text": m["content"]}] if isinstance(m["content"], str) else m["content"]}
        for m in messages
    ]


@contextmanager
def chat_teacher(folder: Path, fake: FakeOpenAI) -> Iterator[Proxy]:
    with fake, serving(CascadeConfig(**settings(fake, folder, mode="teacher"))) as proxy:
        yield proxy


class TestOtherTeachers:
    """A Messages agent before a teacher that is asked by Chat Completions."""

    @pytest.mark.parametrize("streamed", [False, True])
    def test_its_thinking_goes_back_to_it_alone(self, tmp_path: Path, streamed: bool) -> None:
        message = {"role": "assistant", "content": "x", "reasoning_content": "hm, the mug"}
        body = {"id": "c", "object": "chat.completion", "created": 1, "model": "m",
                "choices": [{"index": 0, "finish_reason": "length", "message": message}]}  # fmt: skip
        fake = FakeOpenAI([Said(body=body), Said(texts=("y",))])
        with chat_teacher(tmp_path, fake) as proxy:
            client = sdk(proxy)
            answer = client.messages.create(model="default", max_tokens=5, messages=ASK)
            turns = [{"role": "assistant", "content": answer.content}, {"role": "user", "content": "Go on."}]
            said(
                client,
                streamed,
                model="default",
                messages=[*ASK, *turns],
                stop_sequences=["END"],
                extra_body={"top_k": 3},
            )
        assert [b.type for b in answer.content] == ["thinking", "text"]
        assert answer.stop_reason == "max_tokens"
        asked = fake.requests[1].body
        assert asked["messages"][1] == {"role": "assistant", "content": "x"}
        assert (asked["stop"], asked["max_tokens"], asked["top_k"]) == (["END"], 2000, 3)

    def test_what_it_cannot_be_asked_is_named_and_what_is_left_out_said(self, tmp_path: Path) -> None:
        fake = FakeOpenAI([Said(texts=("y",))])
        with chat_teacher(tmp_path, fake) as proxy:
            file = {"type": "document", "source": {"type": "file", "file_id": "file_1"}}
            refused: dict[str, dict[str, Any]] = {
                "tools.0.type 'web_search_20250305'": {"tools": [{"type": "web_search_20250305", "name": "w"}]},
                "mcp_servers": {"mcp_servers": [{"type": "url", "url": "https://x", "name": "n"}]},
                "a_field_of_tomorrow": {"a_field_of_tomorrow": 1},
                "speed": {"speed": "fast"},
                "whose source is a file": {"messages": [{"role": "user", "content": [file]}]},
            }
            for words, more in refused.items():
                response = post(proxy, **more)
                assert response.status_code == 400, more
                assert words in response.json()["error"]["message"]
            assert not fake.requests
            response = post(proxy, thinking={"type": "adaptive"}, context_management={"edits": []})
            assert response.status_code == 200
            assert response.headers["x-agentcascade-ignored"] == "context_management,thinking"


def error_of(raised: pytest.ExceptionInfo[Any]) -> str:
    """The type of an error in Anthropic's envelope."""
    body = raised.value.body
    assert body["type"] == "error"
    return str(body["error"]["type"])


def post(proxy: Proxy, key: str = "", headers: dict[str, str] | None = None, **body: Any) -> Any:
    sent = {"model": "default", "max_tokens": 9, "messages": ASK} | body
    own = {"x-api-key": key} if key else {}
    return proxy.http.post("/v1/messages", json=sent, headers=own | (headers or {}))


def test_tokens_are_counted_by_the_teacher_or_here(tmp_path: Path) -> None:
    folder = tmp_path / "claude"
    folder.mkdir()
    with FakeAnthropic() as claude, door(folder, claude) as proxy:
        assert sdk(proxy).messages.count_tokens(model="teacher", messages=ASK, tools=[LOOK]).input_tokens == 42
        assert claude.others[0].body["tools"] == [LOOK]
    with FakeOpenAI() as fake, serving(CascadeConfig(**settings(fake, tmp_path, mode="teacher"))) as proxy:
        few = sdk(proxy).messages.count_tokens(model="default", messages=ASK).input_tokens
        more = sdk(proxy).messages.count_tokens(model="default", messages=ASK, tools=[LOOK]).input_tokens
        assert 5 < few < more < 200
        assert not fake.requests


def test_keys_budgets_and_feedback_are_those_of_every_door(tmp_path: Path) -> None:
    usage = {"input_tokens": 1000, "output_tokens": 100}
    with FakeAnthropic([text("hello", usage=usage)]) as claude, door(tmp_path, claude) as proxy:
        rich, poor = proxy.key("rich", namespace="acme"), proxy.key("poor", budget=Decimal("0.008"))
        with pytest.raises(anthropic.AuthenticationError):
            said(sdk(proxy, "ac-wrong"), False)
        headers = {"x-agentcascade-episode": "run-1", "x-agentcascade-goal": "find%20it"}
        answer = sdk(proxy, rich).messages.create(model="collect", max_tokens=9, messages=ASK, extra_headers=headers)
        decision = answer.agentcascade
        assert (decision["namespace"], decision["episode"], decision["goal"]) == ("acme", "run-1", "find it")
        assert Decimal(decision["dollars"]) == Decimal("0.0045")
        assert proxy.feedback("run-1", key=rich).json() == {"episode": "run-1", "banked": True}
        spent = [post(proxy, poor, model="teacher").status_code for _ in range(2)]
        assert spent == [200, 200], "what each cost is more than it reserved, and is booked"
        over = post(proxy, poor, model="teacher")
        assert (over.status_code, over.json()["error"]["type"]) == (402, "billing_error")
        assert over.json()["error"]["details"] == {"error_code": "budget_exceeded", "param": "key"}
        fast = proxy.key("fast", requests_per_minute=1)
        statuses = [post(proxy, fast, model="teacher").status_code for _ in range(2)]
        assert statuses == [200, 429]
        assert "ac-" not in json.dumps([dict(r.headers) for r in claude.requests])


def test_a_page_of_another_site_is_refused_in_its_shape(tmp_path: Path) -> None:
    with FakeAnthropic() as claude, door(tmp_path, claude) as proxy:
        response = post(proxy, headers={"origin": "https://evil.example", "sec-fetch-site": "cross-site"})
    assert response.status_code == 403
    assert response.json()["type"] == "error"
    assert response.json()["error"]["type"] == "permission_error"
    assert response.headers["request-id"] == response.headers["x-request-id"]


class TestPassthrough:
    """A teacher that is the caller's own model, with the caller's own key."""

    @contextmanager
    def door(self, folder: Path, claude: FakeAnthropic) -> Iterator[Proxy]:
        with FakeOpenAI() as fake:
            own = {"server": {"passthrough": "default", "upstreams": {"anthropic": claude.root}}, "mode": "collect"}
            base = {k: v for k, v in settings(fake, folder).items() if k != "teacher"}
            with serving(CascadeConfig(**(base | {"retrieval": {"k": 0}} | own))) as proxy:
                yield proxy

    @pytest.mark.parametrize("how", [{"api_key": fake_anthropic.KEY}, {"auth_token": "sk-ant-oat01-" + "o" * 40}])
    @pytest.mark.parametrize("streamed", [False, True])
    def test_key_and_model_are_passed_on_and_kept_nowhere(
        self, tmp_path: Path, streamed: bool, how: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-of-the-server")
        (key,) = how.values()
        headers = {"anthropic-beta": "context-1m-2025-08-07"}
        with FakeAnthropic([text(f"your key is {key}")]) as claude, self.door(tmp_path, claude) as proxy:
            client = anthropic.Anthropic(base_url=proxy.base, max_retries=0, default_headers=headers, **how)
            said(client, streamed, model="claude-opus-4-8")
            assert client.messages.count_tokens(model="claude-opus-4-8", messages=ASK).input_tokens == 42
        for request in (*claude.requests, *claude.others):
            assert request.body["model"] == "claude-opus-4-8"
            assert key in (request.headers.get("x-api-key", "") + request.headers.get("authorization", ""))
            assert "of-the-server" not in json.dumps(dict(request.headers))
            assert request.headers["anthropic-beta"] == "context-1m-2025-08-07"
        for path in tmp_path.rglob("*"):
            assert path.is_dir() or key.encode() not in path.read_bytes(), path

    def test_a_tenants_key_is_not_passed_on(self, tmp_path: Path) -> None:
        with FakeAnthropic() as claude, self.door(tmp_path, claude) as proxy:
            own = proxy.key("own")
            without = post(proxy, own, model="claude-opus-4-8")
            assert (without.status_code, without.json()["error"]["type"]) == (401, "authentication_error")
            both = {"x-agentcascade-key": own, "x-api-key": fake_anthropic.KEY}
            assert post(proxy, headers=both, model="claude-opus-4-8").status_code == 200
        assert [r.headers["x-api-key"] for r in claude.requests] == [fake_anthropic.KEY]
        assert "x-agentcascade-key" not in claude.requests[0].headers


def test_calls_of_claude_behind_a_chat_agent(tmp_path: Path) -> None:
    """The other way round: Chat Completions before, Messages behind."""
    replies = [call("look", {"at": "desk"}, said="Let me look."), text("There.")]
    with FakeAnthropic(replies) as claude, door(tmp_path, claude) as proxy:
        tools = [{"type": "function", "function": {"name": "look", "parameters": LOOK["input_schema"]}}]
        first = proxy.chat("Where is it?", model="teacher", tools=tools).json()["choices"][0]
        assert first["finish_reason"] == "tool_calls"
        message = first["message"]
        result = {"role": "tool", "tool_call_id": message["tool_calls"][0]["id"], "content": "a mug"}
        asked = {"role": "user", "content": "Where is it?"}
        last = proxy.chat(model="teacher", tools=tools, messages=[asked, message, result]).json()
    assert last["choices"][0]["message"]["content"] == "There."
    assert not claude.refused
