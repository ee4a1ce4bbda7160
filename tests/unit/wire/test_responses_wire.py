"""OpenAI's Responses to and from chat, both ways and back, whole and streamed; what real clients and servers send."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from agentcascade.errors import InvalidRequest
from agentcascade.models.deltas import DeltaAssembler, split_into_deltas
from agentcascade.types import Message, Usage
from agentcascade.wire import responses_answer, thoughts
from agentcascade.wire.responses_answer import read_answer
from agentcascade.wire.responses_events import EventWriter
from agentcascade.wire.responses_items import ITEMS, ItemReader, write_items
from agentcascade.wire.responses_request import read_request, write_request
from agentcascade.wire.responses_stream import EventReader
from agentcascade.wire.responses_tools import ToolBook, chat_name, input_of, read_tools

CODEX = json.loads((Path(__file__).parents[2] / "data" / "codex_0.171.0.json").read_text(encoding="utf-8"))["requests"]
EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
LOOK = {"type": "function", "name": "look", "parameters": {"type": "object", "properties": {}}, "strict": True}
PATCH = {"type": "custom", "name": "patch", "description": "Changes files.",
         "format": {"type": "grammar", "syntax": "lark", "definition": "start: /.+/"}}  # fmt: skip
CRM = {"type": "namespace", "name": "crm", "description": "Customers.", "tools": [{**LOOK, "name": "find"}, PATCH]}
BOOK = read_tools([LOOK, PATCH, CRM])
ASKED = {"model": "m", "input": "hi"}
CALL = {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "look", "arguments": "{}"}
RESULT = {"type": "function_call_output", "call_id": "c1", "output": "a bed"}
THOUGHT: Message = {
    "role": "assistant", "content": None,
    "thinking_blocks": [{"type": "thinking", "thinking": "hm", "signature": "c2ln"}],
    "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}],
}  # fmt: skip
AT_BED = {"type": "function_call", "call_id": "c1", "name": "look", "arguments": '{"at": "bed"}'}
TEXT = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "hello"}]}
USAGE = {"input_tokens": 3, "output_tokens": 2}

texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
names = st.sampled_from(["look", "patch", "crm__find", "crm__patch", "unheard_of"])


@st.composite
def calls(draw: st.DrawFn, id: str) -> dict[str, Any]:
    name = draw(names)
    arguments = json.dumps({"input": draw(texts)}, ensure_ascii=False) if "patch" in name else draw(texts)
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


@st.composite
def answers(draw: st.DrawFn, number: int = 0) -> Message:
    """What a model may say: a text, calls, a refusal."""
    message: Message = {"role": "assistant", "content": draw(st.none() | texts)}
    made = [draw(calls(f"c{number}_{i}")) for i in range(draw(st.integers(0, 3)))]
    if made:
        message["tool_calls"] = made
    if not made and message["content"] is None:
        message["refusal"] = draw(texts)
    return message


@st.composite
def conversations(draw: st.DrawFn) -> list[Message]:
    messages: list[Message] = [{"role": "system", "content": draw(texts)}] if draw(st.booleans()) else []
    for number in range(draw(st.integers(1, 4))):
        image = {"type": "image_url", "image_url": {"url": "https://example.org/a.png", "detail": "low"}}
        content = draw(texts | st.just([{"type": "text", "text": "see"}, image]))
        messages.append({"role": "user", "content": content})
        answer = draw(answers(number))
        messages.append(answer)
        messages += [
            {"role": "tool", "tool_call_id": c["id"], "content": draw(texts)} for c in answer.get("tool_calls", ())
        ]
    return messages


@given(conversations())
def test_a_conversation_is_the_same_after_both_ways(messages: list[Message]) -> None:
    items = write_items(messages, BOOK)
    assert ItemReader(BOOK).read(items) == messages
    assert write_items(ItemReader(BOOK).read(items), BOOK) == items


@given(answers())
def test_an_answer_is_the_same_after_both_ways_and_what_the_sdk_knows(message: Message) -> None:
    head = responses_answer.head(ASKED, "resp_1", 1)
    items = responses_answer.output(message, BOOK, "resp_1", "m")
    response = responses_answer.finished(head, items, "m", "stop", Usage(input=3, cached_input=4, output=5), 2)
    Response.model_validate(response, strict=True)
    completion = read_answer(response, BOOK)
    assert completion["choices"][0]["message"] == message
    assert completion["usage"]["input_tokens_details"]["cached_tokens"] == 4


def written(deltas: Iterable[dict[str, Any]], message: Message, book: ToolBook = BOOK) -> list[dict[str, Any]]:
    writer = EventWriter(responses_answer.head(ASKED, "resp_1", 1), book)
    events = [*writer.begin(), *(e for d in deltas for e in writer.delta(d)), *writer.end(message, "m")]
    response = responses_answer.finished(writer._head, writer.items, "m", "stop", Usage(input=1, output=1), 2)
    return [*events, *writer.last(response)]


def put_together(events: Iterable[Any], book: ToolBook = BOOK) -> tuple[Message, Mapping[str, Any]]:
    """(message, last chunk) of a stream of events."""
    reader, assembler, chunk = EventReader(book), DeltaAssembler(), {}
    for event in events:
        for chunk in reader.read(event):
            assembler.add(chunk["choices"][0]["delta"] if chunk["choices"] else {})
    return assembler.message, chunk


@given(answers())
def test_a_stream_is_the_same_after_both_ways_and_what_the_sdk_knows(message: Message) -> None:
    events = written(split_into_deltas(message), message)
    for number, event in enumerate(events):
        EVENT.validate_python(event)
        assert event["sequence_number"] == number
    added = [e["output_index"] for e in events if e["type"] == "response.output_item.added"]
    done = [e["output_index"] for e in events if e["type"] == "response.output_item.done"]
    assert added == sorted(done) == list(range(len(events[-1]["response"]["output"])))
    streamed, last = put_together(events)
    assert streamed == message
    assert last["choices"][0]["finish_reason"] == ("tool_calls" if "tool_calls" in message else "stop")


SAID = st.sampled_from(["", " ", "\n\n", "a", " a\n", "b"])
PARTS = st.lists(SAID, max_size=2)
CITED = {"type": "url_citation", "url": "u", "title": "t", "start_index": 0, "end_index": 1}
PART = st.one_of(
    st.builds(
        lambda t, cited: {"type": "output_text", "text": t, "annotations": cited},
        SAID,
        st.lists(st.just(CITED), max_size=1),
    ),
    st.builds(lambda t: {"type": "refusal", "refusal": t}, SAID),
)
OUTPUT = st.lists(
    st.one_of(
        st.builds(
            lambda parts, phase: {"type": "message", "role": "assistant", "content": parts, **phase},
            st.lists(PART, max_size=2),
            st.sampled_from([{}, {"phase": "commentary"}]),
        ),
        PARTS.map(lambda ts: {"type": "reasoning", "summary": [{"type": "summary_text", "text": t} for t in ts]}),
        PARTS.map(lambda ts: {"type": "reasoning", "summary": [],
                              "content": [{"type": "reasoning_text", "text": t} for t in ts]}),
        st.builds(
            lambda a: {"type": "function_call", "call_id": "c1", "name": "look", "arguments": a},
            st.sampled_from(["", " ", "{}", '{"at": " "}']),
        ),
        st.builds(lambda t: {"type": "custom_tool_call", "call_id": "c2", "name": "unheard_of", "input": t}, SAID),
        st.just({"type": "web_search_call", "status": "completed"}),
    ),
    max_size=4,
)  # fmt: skip


def openais_events(output: list[dict[str, Any]]) -> Iterable[dict[str, Any]]:
    """What OpenAI's server sends of an answer, texts letter by letter."""

    def deltas(kind: str, text: str, **place: int) -> Iterable[dict[str, Any]]:
        for letter in text:
            yield {"type": f"response.{kind}.delta", "delta": letter, **place}

    for index, item in enumerate(output):
        at = {"output_index": index}
        empty: dict[str, dict[str, Any]] = {
            "message": {"content": []}, "reasoning": {"summary": []}, "function_call": {"arguments": ""},
            "custom_tool_call": {"input": ""},
        }  # fmt: skip
        begun = empty.get(item["type"], {})
        yield {"type": "response.output_item.added", **at, "item": {**item, **begun}}
        for i, part in enumerate(item.get("summary", ())):
            yield {"type": "response.reasoning_summary_part.added", **at, "summary_index": i, "part": part}
            yield from deltas("reasoning_summary_text", part["text"], **at, summary_index=i)
        for i, part in enumerate(item.get("content", ())):
            name = part["type"]
            yield from deltas(name, part.get("refusal", part.get("text")), **at, content_index=i)
        yield from deltas("function_call_arguments", item.get("arguments", ""), **at)
        yield from deltas("custom_tool_call_input", item.get("input", ""), **at)
        yield {"type": "response.output_item.done", **at, "item": item}
    yield {"type": "response.completed", "response": {"status": "completed", "output": output, "usage": USAGE}}


@given(OUTPUT)
def test_a_streamed_answer_of_openai_says_what_the_whole_one_says(output: list[dict[str, Any]]) -> None:
    whole = read_answer({"status": "completed", "output": output, "usage": USAGE}, BOOK)["choices"][0]
    message, last = put_together(openais_events(output))
    assert {k: v for k, v in message.items() if v} == {k: v for k, v in whole["message"].items() if v}
    assert last["choices"][0]["finish_reason"] == whole["finish_reason"]


class TestThoughts:
    def test_go_back_to_the_model_that_thought_them_and_to_no_other(self) -> None:
        items = [*responses_answer.output(THOUGHT, BOOK, "resp_1", "claude"), RESULT]
        assert [i["type"] for i in items] == ["reasoning", "function_call", "function_call_output"]
        assert items[0]["summary"] == [{"type": "summary_text", "text": "hm"}]
        own = ItemReader(BOOK, {"claude"}).read(items)[0]
        assert own == THOUGHT
        assert ItemReader(BOOK, {"gpt", "qwen"}, keeps_foreign=True).read(items)[0].keys() == {
            "role", "content", "tool_calls"}  # fmt: skip

    def test_come_at_the_end_of_a_stream_and_are_read_there(self) -> None:
        events = written(split_into_deltas(THOUGHT), THOUGHT)
        items = [*events[-1]["response"]["output"], RESULT]
        assert ItemReader(BOOK, {"m"}).read(items)[0] == THOUGHT

    def test_of_openai_keep_their_place_among_the_items(self) -> None:
        first = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "gAAA"}
        output: list[dict[str, Any]] = [
            first,
            {"type": "message", "role": "assistant", "phase": "commentary", "content": [
                {"type": "output_text", "text": "I look.", "annotations": []}]},
            {"type": "function_call", "call_id": "c1", "name": "look", "arguments": "{}"},
            {**first, "id": "rs_2"},
            {"type": "function_call", "call_id": "c2", "name": "look", "arguments": "{}"},
        ]  # fmt: skip
        message = read_answer({"status": "completed", "output": output}, BOOK)["choices"][0]["message"]
        ours = responses_answer.output(message, BOOK, "resp_1", "openai/responses/m")
        results = [{**RESULT, "call_id": id} for id in ("c1", "c2")]
        read = ItemReader(BOOK, {"openai/responses/m"}).read([*ours, *results])
        for call in read[0]["tool_calls"]:
            call["id"] = "again" + call["id"]  # as a cascade renames them
        sent = write_items(read[:1], BOOK)
        assert [i["type"] for i in sent] == [i["type"] for i in output]
        assert [i.get("encrypted_content") for i in sent] == ["gAAA", None, None, "gAAA", None]
        assert [i.get("call_id") for i in sent] == [None, None, "againc1", None, "againc2"]
        assert sent[1]["phase"] == "commentary"

    def test_of_nobody_we_know_are_kept_for_a_teacher_that_speaks_responses_alone(self) -> None:
        items = [{"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "gAAA"},
                 CALL, RESULT]  # fmt: skip
        assert ITEMS not in ItemReader(BOOK).read(items)[0]
        kept = ItemReader(BOOK, keeps_foreign=True).read(items)
        assert write_items(kept, BOOK)[0]["encrypted_content"] == "gAAA"

    @pytest.mark.parametrize("packet", [
        "agentcascade.1.", "agentcascade.1.!!", "agentcascade.1." + "A" * 40, 5, None, ["x"],
        "agentcascade.1." + base64.urlsafe_b64encode(zlib.compress(b"0" * 20_000_000)).decode(),
        "agentcascade.1." + base64.urlsafe_b64encode(zlib.compress(b"[" * 1_000_000)).decode(),
    ])  # fmt: skip
    def test_that_are_forged_or_swell_are_none(self, packet: object) -> None:
        assert not thoughts.unpack(packet, {"m"})


class TestTools:
    def test_a_custom_tool_is_a_function_with_one_string_and_its_grammar_in_words(self) -> None:
        function = BOOK.tools[1]["function"]
        assert function["parameters"]["required"] == ["input"]
        assert "start: /.+/" in function["parameters"]["properties"]["input"]["description"]

    @pytest.mark.parametrize(("arguments", "text"), [
        ('{"input": "*** Begin"}', "*** Begin"), ("*** Begin", "*** Begin"), ('{"patch": "x"}', '{"patch": "x"}'),
        ('{"input": 5}', '{"input": 5}'), ("[" * 100_000, "[" * 100_000),
    ])  # fmt: skip
    def test_what_a_small_model_makes_of_it_is_taken_as_it_is(self, arguments: str, text: str) -> None:
        assert input_of(arguments) == text

    def test_long_names_in_namespaces_stay_apart(self) -> None:
        long = [chat_name(f"{'n' * 60}{i}", "s" * 20) for i in range(3)]
        assert len(set(long)) == 3
        assert all(len(name) == 64 for name in long)

    @pytest.mark.parametrize("kind", [
        "web_search", "web_search_preview_2025_03_11", "file_search", "computer_use_preview", "mcp", "local_shell",
        "code_interpreter", "image_generation", "shell", "apply_patch", "tool_search",
    ])  # fmt: skip
    def test_a_hosted_tool_is_refused_by_name_or_the_teachers(self, kind: str) -> None:
        asked = {**ASKED, "tools": [LOOK, {"type": kind}]}
        with pytest.raises(InvalidRequest, match=kind):
            read_request(asked)
        read = read_request(asked, native=True)
        assert [t["function"]["name"] for t in read.tools] == ["look"]
        assert {"type": kind} in read.options["responses"]["tools"]

    def test_allowed_tools_are_all_that_a_model_is_shown(self) -> None:
        choice = {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "look"}]}
        read = read_request({**ASKED, "tools": [LOOK, PATCH], "tool_choice": choice})
        assert [t["function"]["name"] for t in read.tools] == ["look"]
        assert read.options["tool_choice"] == "required"


class TestItems:
    @pytest.mark.parametrize("between", [
        {"type": "message", "role": "developer", "content": "Be brief."}, {"role": "user", "content": "Go on."},
    ])  # fmt: skip
    def test_results_stand_behind_their_calls_whatever_came_in_between(self, between: dict[str, Any]) -> None:
        """As Codex sends them, and chat providers refuse: deepseek-ai/awesome-deepseek-integration#740."""
        read = ItemReader(BOOK).read([{"role": "user", "content": "Go."}, CALL, between, RESULT])
        assert [m["role"] for m in read][:3] == ["user", "assistant", "tool"]
        assert len(read) == 4

    @pytest.mark.parametrize(("items", "said"), [
        ([RESULT], "no tool call with call_id 'c1'"), ([CALL], "no output for the tool call 'c1'"),
        ([CALL, RESULT, RESULT], "no tool call with call_id 'c1'"),
        ([{"type": "item_reference", "id": "msg_5"}], "nothing is kept here under the id 'msg_5'"),
        ([{"type": "local_shell_call", "call_id": "c1"}], "local_shell_call"), ([5], "an item is an object"),
        ([{"role": "user", "content": [{"type": "input_image", "file_id": "file_1"}]}], "image_url"),
        ([{"role": "user", "content": [{"type": "input_file", "file_url": "https://x"}]}], "file_data"),
    ])  # fmt: skip
    def test_what_cannot_be_used_is_named(self, items: list[Any], said: str) -> None:
        with pytest.raises(InvalidRequest, match=said):
            read_request({**ASKED, "input": items})

    def test_the_same_id_twice_is_two_calls(self) -> None:
        """Small models count from call_0 at every turn."""
        read = ItemReader(BOOK).read([CALL, RESULT, CALL, {**RESULT, "output": "a desk"}])
        assert [m.get("content") for m in read] == [None, "a bed", None, "a desk"]

    def test_what_codex_sends(self) -> None:
        first, second = (read_request(r["body"], native=True) for r in CODEX)
        assert [m["role"] for m in second.messages] == ["system", "user", "user", "assistant", "tool"]
        assert "multi_agent_v1__spawn_agent" in {t["function"]["name"] for t in first.tools}
        (call,) = second.messages[3]["tool_calls"]
        assert json.loads(call["function"]["arguments"])["cmd"].startswith("echo hi")
        sent, _ = write_request({"model": "m", **second.options, "tools": second.tools, "messages": second.messages})
        assert sent["tools"] == CODEX[1]["body"]["tools"]
        assert [i["type"] for i in sent["input"][-2:]] == ["function_call", "function_call_output"]
        with pytest.raises(InvalidRequest, match="web_search=disabled"):
            read_request(CODEX[0]["body"])


class TestServers:
    """What servers leave out of their streams."""

    @pytest.mark.parametrize("events", [
        # BerriAI/litellm#27144: the arguments come in one piece
        [{"type": "response.output_item.added", "output_index": 0, "item": {**AT_BED, "arguments": ""}},
         {"type": "response.function_call_arguments.done", "output_index": 0, "arguments": AT_BED["arguments"]},
         {"type": "response.output_item.done", "output_index": 0, "item": AT_BED}],
        [{"type": "response.output_item.done", "output_index": 0, "item": AT_BED}],
        # BerriAI/litellm#22102: nothing is announced
        [{"type": "response.function_call_arguments.delta", "output_index": 0, "delta": '{"at"'},
         {"type": "response.output_item.done", "output_index": 0, "item": AT_BED}],
    ])  # fmt: skip
    @pytest.mark.parametrize("output", [[], [AT_BED]])  # the end without the output: BerriAI/litellm#38719
    def test_a_call_is_whole_all_the_same(self, events: list[Any], output: list[Any]) -> None:
        end = {"type": "response.completed", "response": {"output": output, "usage": USAGE}}
        message, last = put_together([*events, end])
        assert message["tool_calls"][0]["function"] == {"name": "look", "arguments": '{"at": "bed"}'}
        assert (last["usage"], last["choices"][0]["finish_reason"]) == (USAGE, "tool_calls")

    @pytest.mark.parametrize("events", [
        [{"type": "response.output_text.delta", "delta": "hello"}],
        [{"type": "response.output_item.done", "output_index": 0, "item": TEXT}],
        [None, {"type": "response.some.day"}],
    ])  # fmt: skip
    def test_a_text_is_whole_all_the_same(self, events: list[Any]) -> None:
        message, _ = put_together([*events, {"type": "response.completed", "response": {"output": [TEXT]}}])
        assert message["content"] == "hello"

    @pytest.mark.parametrize(("event", "status"), [
        ({"type": "response.failed", "response": {"error": {"code": "rate_limit_exceeded", "message": "slow"}}}, 429),
        ({"type": "error", "code": "server_error", "message": "slow"}, 500),
        ({"type": "error", "error": {"message": "slow", "code": None}}, 502),
    ])  # fmt: skip
    def test_errors_are_errors(self, event: dict[str, Any], status: int) -> None:
        (chunk,) = EventReader(BOOK).read(event)
        assert chunk["error"]["code"] == status
        assert "slow" in chunk["error"]["message"]


KINDS = "message", "function_call", "reasoning", "response.output_item.done", "response.completed", "assistant"
KEYS = (
    *("type", "role", "content", "call_id", "name", "arguments", "output", "item", "text", "summary", "response"),
    *("tools", "namespace", "delta", "output_index"),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts | st.sampled_from(KINDS),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts | st.sampled_from(KEYS), inner, max_size=5),
    max_leaves=25,
)


@given(JSON, JSON, JSON)
def test_hostile_requests_are_refused_and_nothing_else(items: Any, tools: Any, choice: Any) -> None:
    given_tools = tools if isinstance(tools, list) else []
    try:
        read = read_request({**ASKED, "input": items, "tools": given_tools, "tool_choice": choice}, native=True)
    except InvalidRequest:
        return
    assert all(isinstance(m, dict) for m in read.messages)


@given(st.lists(JSON, max_size=6))
def test_hostile_answers_and_streams_break_nothing(events: list[Any]) -> None:
    reader = EventReader(BOOK)
    for event in events:
        list(reader.read(event))
    read_answer({"status": "completed", "output": events}, BOOK)
