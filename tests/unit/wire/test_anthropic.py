"""Anthropic's Messages as chat messages and back: nothing of a request or an answer is lost on the way."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentcascade.errors import InvalidRequest
from agentcascade.messages import text_of
from agentcascade.models.deltas import DeltaAssembler
from agentcascade.models.usage import usage_from
from agentcascade.types import Message, Usage
from agentcascade.wire.anthropic_answer import read_answer, write_answer, write_content
from agentcascade.wire.anthropic_blocks import DETAILS, is_said
from agentcascade.wire.anthropic_events import EventWriter
from agentcascade.wire.anthropic_messages import read_assistant, read_messages, write_assistant, write_messages
from agentcascade.wire.anthropic_request import read_request, write_request
from agentcascade.wire.anthropic_stream import ChunkReader
from agentcascade.wire.chat_only import as_chat, tools_as_chat
from tests import fake_anthropic

WORDS = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=12).filter(str.strip)
NAMES = st.from_regex(r"[a-zA-Z_]{1,8}", fullmatch=True)
MARKS: st.SearchStrategy[dict[str, Any]] = st.one_of(
    st.just({}),
    st.just({"cache_control": {"type": "ephemeral"}}),
    st.just({"cache_control": {"type": "ephemeral", "ttl": "1h"}}),
)
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**60), 2**60), st.floats(allow_nan=False), WORDS),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(WORDS, inner, max_size=3)),
    max_leaves=6,
)


def block(kind: str, **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.builds(lambda mark, **given: {"type": kind, **given, **mark}, MARKS, **fields)


BASE64 = st.builds(
    lambda d: {"type": "base64", "media_type": "image/png", "data": d}, st.sampled_from(["AA==", "AAAA"])
)
SOURCES = st.one_of(
    BASE64,
    st.just({"type": "url", "url": "https://example.org/a.png"}),
    st.just({"type": "file", "file_id": "file_011"}),
)
PDF = {"type": "base64", "media_type": "application/pdf", "data": "JVBE"}
DOCUMENTS = st.sampled_from([PDF, {"type": "text", "media_type": "text/plain", "data": "words"}])
TEXT, IMAGE = block("text", text=WORDS), block("image", source=SOURCES)
USER = st.one_of(
    TEXT,
    IMAGE,
    block("document", source=DOCUMENTS, title=WORDS),
    block("search_result", source=WORDS, title=WORDS, content=st.just([{"type": "text", "text": "found"}])),
)
SAID = st.one_of(st.text(max_size=9), st.sampled_from(["", " ", "\n\n", " a", "a\n"]))
"""What models do say, and the least of it is not a word."""
CITATION = {"type": "char_location", "cited_text": " ", "document_index": 0, "start_char_index": 0, "end_char_index": 1}
CITATIONS = st.lists(st.just(CITATION), min_size=1, max_size=2)
CITED: st.SearchStrategy[dict[str, Any]] = st.one_of(st.just({}), CITATIONS.map(lambda c: {"citations": c}))
THOUGHT = st.one_of(
    st.builds(lambda t, s: {"type": "thinking", "thinking": t, "signature": s}, SAID, st.one_of(NAMES, st.just(""))),
    st.builds(lambda d: {"type": "redacted_thinking", "data": d}, NAMES),
)
SERVER = st.one_of(
    st.just({"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "x"}}),
    st.just({"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": [{"encrypted_content": "c"}]}),
)
INPUT = st.dictionaries(WORDS, JSON, max_size=3)


@st.composite
def answers(draw: st.DrawFn, marks: bool = True) -> list[dict[str, Any]]:
    """An assistant's blocks, in any order that interleaved thinking and server tools may give."""
    text = TEXT if marks else st.builds(lambda t, cited: {"type": "text", "text": t, **cited}, SAID, CITED)
    call = st.builds(lambda n, i: {"type": "tool_use", "name": n, "input": i}, NAMES, INPUT)
    blocks = draw(st.lists(st.one_of(text, THOUGHT, call, SERVER), min_size=1, max_size=6))
    for i, one in enumerate(blocks):
        if one["type"] == "tool_use":
            one["id"] = f"toolu_{draw(NAMES)}_{i}"
    return blocks


CONTENTS = st.one_of(WORDS, st.lists(st.one_of(TEXT, IMAGE), min_size=1, max_size=3))


def results_of(id: str) -> st.SearchStrategy[dict[str, Any]]:
    optional = {"content": CONTENTS, "is_error": st.booleans(), "cache_control": st.just({"type": "ephemeral"})}
    given = st.fixed_dictionaries({"type": st.just("tool_result"), "tool_use_id": st.just(id)}, optional=optional)
    return given.map(dict)


@st.composite
def conversations(draw: st.DrawFn) -> list[dict[str, Any]]:
    turns: list[dict[str, Any]] = [{"role": "user", "content": draw(st.one_of(WORDS, st.lists(USER, min_size=1)))}]
    for _ in range(draw(st.integers(0, 3))):
        if draw(st.booleans()):
            turns.append({"role": "system", "content": draw(st.lists(TEXT, min_size=1, max_size=2))})
        said = draw(answers())
        turns.append({"role": "assistant", "content": said})
        results = [draw(results_of(one["id"])) for one in said if one["type"] == "tool_use"]
        more = draw(st.lists(USER, min_size=0 if results else 1, max_size=2))
        turns.append({"role": "user", "content": [*results, *more]})
    return turns


TOOLS = st.lists(
    st.one_of(
        st.builds(
            lambda n, d, m: {"name": n, "description": d, "input_schema": {"type": "object", "properties": {}}, **m},
            NAMES,
            WORDS,
            MARKS,
        ),
        st.just({"name": "s", "input_schema": {"type": "object"}, "strict": True, "defer_loading": True}),
        st.just({"type": "bash_20250124", "name": "bash"}),
        st.just({"type": "web_search_20250305", "name": "web_search", "max_uses": 3}),
    ),
    max_size=3,
)
CHOICES = st.sampled_from(
    [
        {"type": "auto"},
        {"type": "any", "disable_parallel_tool_use": True},
        {"type": "tool", "name": "look", "disable_parallel_tool_use": False},
        {"type": "none"},
    ]
)


@st.composite
def requests(draw: st.DrawFn) -> dict[str, Any]:
    body: dict[str, Any] = {
        "model": "claude-x",
        "max_tokens": draw(st.integers(1, 9)),
        "messages": draw(conversations()),
    }
    optional = {
        "system": st.one_of(WORDS, st.lists(TEXT, min_size=1, max_size=3)),
        "temperature": st.floats(0, 1),
        "top_p": st.floats(0, 1),
        "top_k": st.integers(1, 9),
        "stop_sequences": st.lists(WORDS, min_size=1, max_size=2),
        "thinking": st.sampled_from([{"type": "adaptive"}, {"type": "enabled", "budget_tokens": 1024}]),
        "metadata": st.just({"user_id": "u"}),
        "context_management": st.just({"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]}),
        "output_config": st.just({"effort": "high"}),
        "a_field_of_tomorrow": JSON.filter(lambda v: v is not None),
    }
    body |= {name: draw(values) for name, values in optional.items() if draw(st.booleans())}
    if tools := draw(TOOLS):
        body["tools"] = tools
        if draw(st.booleans()):
            body["tool_choice"] = draw(CHOICES)
    return body


def normal(body: Mapping[str, Any]) -> dict[str, Any]:
    """The request as Anthropic understands it: contents as blocks, neighbours of one role as one turn."""
    turns: list[dict[str, Any]] = []
    for message in body["messages"]:
        content = message["content"]
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
        blocks = [_normal_result(b) if b["type"] == "tool_result" else b for b in blocks]
        if turns and turns[-1]["role"] == message["role"]:
            turns[-1] = {**turns[-1], "content": [*turns[-1]["content"], *blocks]}
        else:
            turns.append({"role": message["role"], "content": blocks})
    system = body.get("system")
    if isinstance(system, list) and len(system) == 1 and system[0].keys() == {"type", "text"}:
        system = system[0]["text"]
    return {**body, "messages": turns, **({"system": system} if system else {})}


def _normal_result(result: dict[str, Any]) -> dict[str, Any]:
    content = result.get("content")
    if isinstance(content, list) and len(content) == 1 and content[0].keys() == {"type", "text"}:
        return {**result, "content": content[0]["text"]}
    return result


def back(body: Mapping[str, Any]) -> dict[str, Any]:
    read = read_request(body)
    return write_request(read.model, read.messages, read.tools, {**read.options, "extra_body": read.details})


@given(requests())
def test_a_request_comes_back_as_it_was(body: dict[str, Any]) -> None:
    before = json.dumps(body)
    written = back(body)
    if "tools" not in body:  # stubs of the tools that were called
        written.pop("tools", None), written.pop("tool_choice", None)
    assert written == normal(body)
    assert json.dumps(body) == before, "nothing of the caller's is changed"


@given(requests())
def test_other_models_are_sent_plain_chat_messages(body: dict[str, Any]) -> None:
    read = read_request(body)
    messages = as_chat(read.messages)
    for message in messages:
        assert message.keys() <= {"role", "content", "tool_calls", "tool_call_id", "thinking_blocks"}
        for part in message["content"] if isinstance(message["content"], list) else ():
            assert part.keys() <= {"type", part["type"]}
            assert part["type"] in ("text", "image_url", "file")
            assert message["role"] != "tool" or part["type"] == "text"
    assert "cache_control" not in json.dumps([m for m in messages if m["role"] != "assistant"])
    for tool in tools_as_chat(read.tools) or ():
        assert "cache_control" not in tool
        assert DETAILS not in tool
    text = "\n".join(text_of(m) for m in messages)
    for turn in body["messages"]:
        for one in turn["content"] if isinstance(turn["content"], list) else ():
            assert one["type"] != "text" or one["text"] in text


@given(answers())
def test_an_answer_comes_back_as_it_was(blocks: list[dict[str, Any]]) -> None:
    message = read_assistant(blocks)
    assert write_assistant(message) == blocks
    renamed = {**message, "tool_calls": [{**c, "id": f"t{i}"} for i, c in enumerate(message.get("tool_calls") or ())]}
    ids = [b["id"] for b in write_assistant(renamed) if b["type"] == "tool_use"]
    assert ids == [f"t{i}" for i in range(len(ids))]


@given(answers(marks=False), st.sampled_from(["end_turn", "max_tokens", "stop_sequence", "pause_turn", "refusal"]))
def test_a_streamed_answer_says_what_the_whole_one_says(blocks: list[dict[str, Any]], stop: str) -> None:
    usage = {"input_tokens": 7, "cache_creation_input_tokens": 5, "cache_read_input_tokens": 3, "output_tokens": 9,
             "cache_creation": {"ephemeral_5m_input_tokens": 1, "ephemeral_1h_input_tokens": 4},
             "service_tier": "standard"}  # fmt: skip
    reply = fake_anthropic.Reply(blocks, stop, usage=usage)
    whole = read_answer(reply.body("claude-x"))
    reader, assembler = ChunkReader(), DeltaAssembler()
    chunks: list[dict[str, Any]] = []
    for event in fake_anthropic.events_of(reply, "claude-x"):
        chunks += reader.read(event)
    for chunk in chunks:
        assembler.add(chunk["choices"][0]["delta"])
    assert reader.done
    said, streamed = whole["choices"][0]["message"], assembler.message
    for field in ("content", "tool_calls", "reasoning_content", "citations"):
        assert _loose(streamed.get(field)) == _loose(said.get(field)), field
    if all(b["signature"] for b in [b for b in blocks if b["type"] == "thinking"][:-1]):
        assert streamed.get("thinking_blocks") == said.get("thinking_blocks")
    assert write_assistant(streamed) == write_assistant(said)
    if all(is_said(b) for b in blocks):
        assert write_assistant(said) == blocks
    assert usage_from(chunks[-1]["usage"]) == usage_from(whole["usage"])
    assert chunks[-1]["choices"][0]["finish_reason"] == whole["choices"][0]["finish_reason"]
    again = list(_events(chunks, whole["choices"][0]["finish_reason"]))
    assert _assembled(again) == write_content(said)
    assert again[-2]["delta"]["stop_reason"] == stop
    assert again[-2]["usage"]["cache_creation"] == usage["cache_creation"]
    assert again[-2]["usage"]["service_tier"] == "standard"


def _loose(value: Any) -> Any:
    if isinstance(value, list):
        return [_loose(v) for v in value]
    if isinstance(value, dict) and "function" in value:
        return {
            "id": value["id"],
            "name": value["function"]["name"],
            "input": json.loads(value["function"]["arguments"]),
        }
    return value or None


def _events(chunks: list[dict[str, Any]], finish: str) -> Any:
    writer = EventWriter("msg_1", "m")
    yield from writer.start(chunks[0])
    for chunk in chunks:
        yield from writer.read(chunk)
    yield from writer.end(finish, usage_from(chunks[-1]["usage"]) or Usage(), chunks[-1][DETAILS])


def _assembled(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The blocks, put together as Anthropic's clients do; asserts the order of events."""
    assert events[0]["type"] == "message_start"
    assert [e["type"] for e in events[-2:]] == ["message_delta", "message_stop"]
    blocks: list[dict[str, Any]] = []
    partial, is_open = "", False
    for event in events[1:-2]:
        match event["type"]:
            case "content_block_start":
                assert not is_open
                assert event["index"] == len(blocks)
                blocks.append(dict(event["content_block"]))
                partial, is_open = "", True
            case "content_block_delta":
                assert is_open
                assert event["index"] == len(blocks) - 1
                delta = dict(event["delta"])
                kind = delta.pop("type")
                ((name, value),) = delta.items()
                known = {"text_delta": "text", "thinking_delta": "thinking", "signature_delta": "thinking"}
                assert blocks[-1]["type"] == known.get(kind, blocks[-1]["type"])
                if kind == "input_json_delta":
                    partial += value
                elif kind == "citations_delta":
                    blocks[-1].setdefault("citations", []).append(value)
                elif kind == "signature_delta":
                    blocks[-1]["signature"] = value
                else:
                    blocks[-1][name] += value
            case "content_block_stop":
                is_open = False
                if partial:
                    blocks[-1]["input"] = json.loads(partial)
            case kind:
                assert kind == "ping"
    assert not is_open
    return blocks


@given(st.lists(st.tuples(st.sampled_from([0, 1, 2]), st.sampled_from(["think", "say", "call"])), max_size=12))
def test_chunks_of_any_order_become_blocks_one_after_the_other(order: list[tuple[int, str]]) -> None:
    """Servers interleave parallel calls, think between texts, and repeat themselves."""
    begun: set[int] = set()
    chunks: list[dict[str, Any]] = []
    for index, kind in order:
        if kind == "think":
            delta: dict[str, Any] = {"reasoning_content": "hm "}
        elif kind == "say":
            delta = {"content": "word "}
        elif index not in begun:
            begun.add(index)
            delta = {
                "tool_calls": [{"index": index, "id": f"c{index}", "function": {"name": "f", "arguments": '{"a"'}}]
            }
        else:
            continue
        chunks.append({"choices": [{"index": 0, "delta": delta}]})
    for index in sorted(begun):
        call = {"index": index, "function": {"arguments": ": 1}"}}
        chunks.append({"choices": [{"index": 0, "delta": {"tool_calls": [call]}}]})
    writer = EventWriter("msg_1", "m")
    events = [*writer.start({}), *(e for c in chunks for e in writer.read(c)), *writer.end("stop", Usage())]
    blocks = _assembled(events)
    whole = [b for b in blocks if b["type"] == "tool_use"]
    last = chunks and order and all(kind == "call" for _, kind in order)
    assert {b["id"] for b in whole} == {f"c{i}" for i in begun}
    assert not last or all(b["input"] == {"a": 1} for b in whole)
    assert "".join(b["text"] for b in blocks if b["type"] == "text") == "word " * sum(k == "say" for _, k in order)


class TestConversations:
    def test_claude_codes_message_of_the_system_stays_where_it_is(self) -> None:
        messages = [{"role": "user", "content": "Go."}, {"role": "system", "content": "Agents: none"}]
        read = read_messages(messages, "Be brief.")
        assert [m["role"] for m in read] == ["system", "user", "system"]
        assert write_messages(read)[1][1] == {"role": "system", "content": [{"type": "text", "text": "Agents: none"}]}

    def test_a_chat_agents_late_system_message_is_said_by_the_user(self) -> None:
        chat = [{"role": "user", "content": "Go."}, {"role": "system", "content": "Hurry."}]
        assert write_messages(chat) == (
            [],
            [{"role": "user", "content": [{"type": "text", "text": "Go."}, {"type": "text", "text": "Hurry."}]}],
        )

    @pytest.mark.parametrize("content", [None, "", " \n", [], [{"type": "text", "text": ""}]])
    def test_what_is_empty_is_not_sent(self, content: Any) -> None:
        chat = [{"role": "assistant", "content": content}, {"role": "user", "content": content}]
        system, turns = write_messages([{"role": "system", "content": content}, *chat])
        assert system == []
        assert turns == [{"role": "user", "content": [{"type": "text", "text": "."}]}]

    def test_parallel_results_are_one_turn_before_what_the_user_says(self) -> None:
        calls = [{"id": f"c{i}", "type": "function", "function": {"name": "f", "arguments": ""}} for i in range(2)]
        chat: list[Message] = [
            {"role": "user", "content": "Go."},
            {"role": "assistant", "content": None, "tool_calls": calls},
            {"role": "user", "content": "Wait!"},
            {"role": "tool", "tool_call_id": "c0", "content": "a"},
            {"role": "tool", "tool_call_id": "c1", "content": ""},
        ]
        _, turns = write_messages(chat)
        assert [b["type"] for b in turns[2]["content"]] == ["tool_result", "tool_result", "text"]
        assert "content" not in turns[2]["content"][1]
        assert [b["input"] for b in turns[1]["content"]] == [{}, {}]

    def test_ids_that_anthropic_refuses_are_replaced_alike(self) -> None:
        call = {"id": "functions.look:0", "type": "function", "function": {"name": "look", "arguments": "{}"}}
        chat: list[Message] = [
            {"role": "assistant", "content": "", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "functions.look:0", "content": "x"},
        ]
        _, turns = write_messages(chat)
        used, answered = turns[1]["content"][0]["id"], turns[2]["content"][0]["tool_use_id"]
        assert used == answered
        assert used.isascii()
        assert "." not in used

    def test_an_answer_that_was_begun_ends_without_a_space(self) -> None:
        _, turns = write_messages([{"role": "user", "content": "Go."}, {"role": "assistant", "content": "The \n"}])
        assert turns[-1]["content"][-1]["text"] == "The"

    def test_thinking_without_a_signature_comes_back_as_what_it_was(self) -> None:
        message = {"role": "assistant", "content": "x", "reasoning_content": "hm"}
        blocks = write_content(message)
        assert [b["type"] for b in blocks] == ["thinking", "text"]
        assert read_assistant(blocks) == message
        assert [b["type"] for b in write_assistant(read_assistant(blocks))] == ["text"], "never to Anthropic"

    def test_arguments_that_are_no_json_come_back_as_they_were(self) -> None:
        call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a": '}}
        message = {"role": "assistant", "content": None, "tool_calls": [call]}
        assert read_assistant(write_assistant(message)) == message

    def test_a_changed_text_wins_over_the_blocks_it_was_read_from(self) -> None:
        read = read_assistant([{"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}])
        assert write_assistant({**read, "content": "b"}) == [{"type": "text", "text": "b"}]

    def test_a_failed_call_says_so_to_any_model(self) -> None:
        result = {"type": "tool_result", "tool_use_id": "c", "content": "no such file", "is_error": True}
        read = read_messages([{"role": "user", "content": [result]}])
        assert as_chat(read) == [{"role": "tool", "tool_call_id": "c", "content": "Error: no such file"}]

    def test_images_of_results_follow_them(self) -> None:
        image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA=="}}
        results = [{"type": "tool_result", "tool_use_id": f"c{i}", "content": [image]} for i in range(2)]
        read = as_chat(read_messages([{"role": "user", "content": [*results, {"type": "text", "text": "And?"}]}]))
        assert [m["role"] for m in read] == ["tool", "tool", "user", "user"]
        assert [p["type"] for p in read[2]["content"]] == ["text", "image_url", "image_url"]

    @pytest.mark.parametrize(
        ("messages", "where"),
        [
            ([{"role": "user", "content": [{"type": "text"}]}], "messages.0.content.0.text"),
            ([{"role": "user", "content": ["x"]}], "messages.0.content.0"),
            ([{"role": "user", "content": 3}], "messages.0.content"),
            ([{"role": "user", "content": [{"type": "tool_result"}]}], "tool_use_id"),
            ([{"role": "assistant", "content": [{"type": "tool_use", "id": "x"}]}], "messages.0.content"),
        ],
    )
    def test_what_is_malformed_is_named(self, messages: Any, where: str) -> None:
        with pytest.raises(InvalidRequest, match=where):
            read_messages(messages)


FUNCTION = {"type": "function", "function": {"name": "f"}}


class TestRequests:
    def test_chat_options_by_their_names_at_anthropic(self) -> None:
        options = {
            "max_completion_tokens": 5, "temperature": 1.7, "stop": ["\n", "END"], "user": "u", "seed": 1, "top_k": 2,
            "tool_choice": {"type": "function", "function": {"name": "f"}}, "parallel_tool_calls": False,
            "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}},
        }  # fmt: skip
        body = write_request("m", [{"role": "user", "content": "Go."}], [FUNCTION], options)
        assert body == {
            "model": "m", "messages": [{"role": "user", "content": [{"type": "text", "text": "Go."}]}],
            "max_tokens": 5, "temperature": 1, "stop_sequences": ["END"], "metadata": {"user_id": "u"}, "top_k": 2,
            "output_config": {"format": {"type": "json_schema", "schema": {"type": "object"}}},
            "tools": [{"name": "f", "input_schema": {"type": "object", "properties": {}}}],
            "tool_choice": {"type": "tool", "name": "f", "disable_parallel_tool_use": True},
        }  # fmt: skip

    def test_calls_of_earlier_need_definitions(self) -> None:
        call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
        chat: list[Message] = [
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c"},
        ]
        body = write_request("m", chat, None, {})
        assert [t["name"] for t in body["tools"]] == ["f"]
        assert body["tool_choice"] == {"type": "none"}

    @pytest.mark.parametrize(
        ("tools", "options", "words"),
        [
            ([{"type": "custom", "custom": {"name": "g"}}], {}, r"tools\[0\]"),
            ([{"type": "function", "function": {"name": "f"}}], {"tool_choice": "sometimes"}, "tool_choice"),
            (
                [{"type": "function", "function": {"name": "f"}}],
                {"tool_choice": {"type": "allowed_tools"}},
                "tool_choice",
            ),
        ],
    )
    def test_what_cannot_be_said_is_named(self, tools: Any, options: Any, words: str) -> None:
        with pytest.raises(InvalidRequest, match=words):
            write_request("m", [{"role": "user", "content": "Go."}], tools, options)

    def test_audio_is_named(self) -> None:
        with pytest.raises(InvalidRequest, match="input_audio"):
            write_request("m", [{"role": "user", "content": [{"type": "input_audio"}]}], None, {})


class TestAnswers:
    @given(st.builds(Usage, **{name: st.integers(0, 10**6) for name in Usage.model_fields}))
    def test_usage_comes_back_by_class(self, usage: Usage) -> None:
        answer = write_answer({"role": "assistant", "content": "x"}, id="i", model="m", finish="stop", usage=usage)
        assert usage_from(answer["usage"]) == usage

    @pytest.mark.parametrize(
        ("finish", "reason"),
        [("stop", "end_turn"), ("length", "max_tokens"), ("tool_calls", "tool_use"), ("content_filter", "refusal")],
    )
    def test_stop_reasons(self, finish: str, reason: str) -> None:
        answer = write_answer({"content": "x"}, id="i", model="m", finish=finish, usage=Usage())
        assert (answer["stop_reason"], answer["stop_sequence"]) == (reason, None)

    def test_the_text_that_ended_an_answer_is_named(self) -> None:
        answer = write_answer({"content": "x"}, id="i", model="m", finish="stop", usage=Usage(), stop="END")
        assert (answer["stop_reason"], answer["stop_sequence"]) == ("stop_sequence", "END")

    @pytest.mark.parametrize("answer", [None, [], "<html>", 3, {"content": "text"}, {}, {"content": None}])
    def test_what_is_no_answer_is_no_completion(self, answer: Any) -> None:
        read = read_answer(answer)
        assert not isinstance(read, dict) or not read.get("choices")

    @pytest.mark.parametrize("event", [None, [], {"type": "content_block_start"}, "x"])
    def test_events_that_are_none_are_errors(self, event: Any) -> None:
        assert all("error" in chunk for chunk in ChunkReader().read(event))

    def test_an_overloaded_provider_says_its_status(self) -> None:
        (chunk,) = ChunkReader().read({"type": "error", "error": {"type": "overloaded_error", "message": "busy"}})
        assert chunk["error"] == {"message": "busy", "type": "overloaded_error", "code": 529}
