"""`POST /v1/responses` as OpenAI's own client meets it: input of all kinds, tools, streams, what is stored, errors."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import openai
import pytest
from pydantic import BaseModel

from tests.fake_openai import FakeOpenAI, Reply, Request

pytest.importorskip("fastapi", reason="needs the extra `server`")
from sqlalchemy import select

from agentcascade.config.load import CascadeConfig
from agentcascade.storage import open_database, tables
from tests.proxy import Proxy, serving, settings

LOOK: Any = {"type": "function", "name": "look", "strict": False,
             "parameters": {"type": "object", "properties": {"at": {"type": "string"}}}}  # fmt: skip
PATCH: Any = {"type": "custom", "name": "patch", "description": "Changes files."}
CODEX = json.loads((Path(__file__).parents[1] / "data" / "codex_0.171.0.json").read_text(encoding="utf-8"))["requests"]


class Mug(BaseModel):
    room: str


@contextmanager
def door(folder: Path, script: Any = None, **more: Any) -> Iterator[tuple[openai.OpenAI, FakeOpenAI, Proxy]]:
    with ExitStack() as stack:
        fake = stack.enter_context(FakeOpenAI(script) if script else FakeOpenAI())
        proxy = stack.enter_context(serving(CascadeConfig(**settings(fake, folder, **{"mode": "teacher"} | more))))
        client = openai.OpenAI(base_url=f"{proxy.base}/v1", api_key="none", max_retries=0)
        yield stack.enter_context(client), fake, proxy


def asked(fake: FakeOpenAI) -> list[tuple[str, Any]]:
    """Messages of the last request to the provider."""
    return [(m["role"], m.get("content")) for m in fake.requests[-1].body["messages"]]


class TestAnswers:
    def test_a_text_is_answered(self, tmp_path: Path) -> None:
        with door(tmp_path) as (client, fake, _):
            response = client.responses.create(
                model="default", instructions="Be brief.", input="hi", max_output_tokens=50, temperature=0.5,
                metadata={"agentcascade_episode": "mine"}, reasoning={"effort": "low"}, user="u",
            )  # fmt: skip
        assert (response.output_text, response.status, response.object) == ("hello", "completed", "response")
        assert response.usage is not None
        assert (response.usage.input_tokens, response.usage.output_tokens) == (10, 2)
        assert response.agentcascade["episode"] == "mine"  # type: ignore[attr-defined]
        assert asked(fake) == [("system", "Be brief."), ("user", "hi")]
        body = fake.requests[0].body
        assert (body["max_completion_tokens"], body["temperature"], body["reasoning_effort"]) == (50, 0.5, "low")
        assert "metadata" not in body

    def test_a_type_is_parsed(self, tmp_path: Path) -> None:
        with door(tmp_path, [Reply(texts=['{"room": "kitchen"}'])]) as (client, fake, _):
            parsed = client.responses.parse(model="default", input="Where is it?", text_format=Mug)
            assert parsed.output_parsed == Mug(room="kitchen")
            with client.responses.stream(model="default", input="Where is it?", text_format=Mug) as stream:
                assert stream.get_final_response().output_parsed == Mug(room="kitchen")
        assert fake.requests[0].body["response_format"]["json_schema"]["strict"] is True

    @pytest.mark.parametrize("stream", [False, True])
    def test_a_tool_loop(self, tmp_path: Path, stream: bool) -> None:
        script = [
            Reply(texts=["I look."], tool_calls=[("look", '{"at": "bed"}'), ("patch", '{"input": "*** Begin"}')]),
            Reply(texts=["It is on the bed."]),
        ]
        with door(tmp_path, script) as (client, fake, _):
            turn: Any = {"model": "default", "tools": [LOOK, PATCH], "parallel_tool_calls": True, "store": False}
            items: list[Any] = [{"role": "user", "content": "Where is the mug?"}]
            first = _answer(client, stream, input=items, **turn)
            assert [i.type for i in first.output] == ["message", "function_call", "custom_tool_call"]
            _, look, patch = first.output
            assert (json.loads(look.arguments), patch.input) == ({"at": "bed"}, "*** Begin")
            assert look.id != look.call_id
            items += [i.model_dump(exclude_none=True) for i in first.output]
            items.append({"type": "custom_tool_call_output", "call_id": patch.call_id, "output": "done"})
            items.append({"type": "function_call_output", "call_id": look.call_id, "output": "a mug"})
            second = _answer(client, stream, input=items, **turn)
            assert second.output_text == "It is on the bed."
        sent = fake.requests[1].body["messages"]
        assert [m["role"] for m in sent] == ["user", "assistant", "tool", "tool"]
        assert [c["function"]["name"] for c in sent[1]["tool_calls"]] == ["look", "patch"]
        assert {m["content"] for m in sent[2:]} == {"done", "a mug"}

    def test_a_limit_reached_is_incomplete(self, tmp_path: Path) -> None:
        with door(tmp_path, [Reply(texts=["hel"], finish="length")]) as (client, _, _):
            for stream in (False, True):
                response = _answer(client, stream, model="default", input="hi")
                assert (response.status, response.incomplete_details.reason) == ("incomplete", "max_output_tokens")

    def test_a_student_answers_and_the_teacher_too(self, tmp_path: Path) -> None:
        replies = {"student": Reply(texts=["look"]), "teacher": Reply(texts=["take"])}
        shown = {"retrieval": {"k": 0}, "mode": "cascade"}
        with door(tmp_path, lambda r: replies[r.body["model"]], **shown) as (client, _, _):
            response = client.responses.create(model="default", input="hi")
        assert (response.output_text, response.agentcascade["answered_by"]) == ("look", "student")  # type: ignore[attr-defined]


def _answer(client: openai.OpenAI, stream: bool, **request: Any) -> Any:
    if not stream:
        return client.responses.create(**request)
    events = list(client.responses.create(stream=True, **request))
    assert [e.sequence_number for e in events] == list(range(len(events)))
    assert [e.type for e in events[:2]] == ["response.created", "response.in_progress"]
    done = [e.item for e in events if e.type == "response.output_item.done"]
    assert [i.id for i in done] == [i.id for i in events[-1].response.output]
    return events[-1].response


class TestStored:
    def test_a_conversation_goes_on_by_its_last_response(self, tmp_path: Path) -> None:
        script = [Reply(texts=[None], tool_calls=[("look", "{}")]), Reply(texts=["on the bed"]), Reply(texts=["a mug"])]
        with door(tmp_path, script) as (client, fake, _):
            first = client.responses.create(model="default", input="Where is it?", tools=[LOOK], instructions="One.")
            call = first.output[0]
            assert call.type == "function_call"
            result: Any = [{"type": "function_call_output", "call_id": call.call_id, "output": "a bed"}]
            second = client.responses.create(model="default", input=result, tools=[LOOK], previous_response_id=first.id)
            third = client.responses.create(model="default", input="What?", previous_response_id=second.id)
            assert third.output_text == "a mug"
            assert third.previous_response_id == second.id
            assert {r.agentcascade["episode"] for r in (first, second, third)} == {first.agentcascade["episode"]}  # type: ignore[attr-defined]
            assert [role for role, _ in asked(fake)] == ["user", "assistant", "tool", "assistant", "user"]
            reference: Any = [
                {"type": "item_reference", "id": second.output[0].id},
                {"role": "user", "content": "And?"},
            ]
            client.responses.create(model="default", input=reference)
            assert asked(fake) == [("assistant", "on the bed"), ("user", "And?")]
            again = client.responses.retrieve(second.id)
            assert again.output_text == "on the bed"
            items = client.responses.input_items.list(second.id).data
            assert [i.type for i in items] == ["function_call_output"]
            client.responses.delete(second.id)
            with pytest.raises(openai.NotFoundError):
                client.responses.retrieve(second.id)
            with pytest.raises(openai.BadRequestError, match="not found") as caught:
                client.responses.create(model="default", input="What?", previous_response_id=third.id)
            assert (caught.value.code, caught.value.param) == ("previous_response_not_found", "previous_response_id")

    def test_what_is_not_to_be_stored_is_not(self, tmp_path: Path) -> None:
        with door(tmp_path) as (client, _, _):
            response = client.responses.create(model="default", input="hi", store=False)
            with pytest.raises(openai.NotFoundError):
                client.responses.retrieve(response.id)
        with door(tmp_path, server={"store_responses": False}) as (client, _, _):
            response = client.responses.create(model="default", input="hi")
            assert response.store is False  # type: ignore[attr-defined]
            with pytest.raises(openai.BadRequestError, match="store_responses"):
                client.responses.create(model="default", input="hi", previous_response_id=response.id)

    def test_the_database_alone_tells_nothing_of_it(self, tmp_path: Path) -> None:
        with door(tmp_path, [Reply(texts=["ada@example.com"])]) as (client, _, proxy):
            response = client.responses.create(model="default", input="Who is it? bob@example.com")
            database = open_database(proxy.config.bank.url)
            with database.begin() as connection:
                (row,) = connection.execute(select(tables.responses)).all()
            database.close()
        assert row.key not in response.id
        assert response.id.partition("_")[2].encode() not in row.body
        written = b"".join(p.read_bytes() for p in tmp_path.iterdir() if p.is_file())
        for secret in (b"ada@example.com", b"bob@example.com", response.id.encode()):
            assert secret not in written

    def test_another_tenant_has_none_of_it(self, tmp_path: Path) -> None:
        with door(tmp_path) as (client, _, proxy):
            mine, theirs = (client.with_options(api_key=proxy.key(n, namespace=n)) for n in ("mine", "theirs"))
            response = mine.responses.create(model="default", input="hi")
            assert mine.responses.retrieve(response.id).id == response.id
            for forbidden in (
                lambda: theirs.responses.retrieve(response.id), lambda: theirs.responses.delete(response.id),
                lambda: theirs.responses.input_items.list(response.id),
            ):  # fmt: skip
                with pytest.raises(openai.NotFoundError):
                    forbidden()
            with pytest.raises(openai.BadRequestError):
                theirs.responses.create(model="default", input="x", previous_response_id=response.id)
            referred: Any = [{"type": "item_reference", "id": response.output[0].id}]
            with pytest.raises(openai.BadRequestError, match="nothing is kept"):
                theirs.responses.create(model="default", input=referred)
            with pytest.raises(openai.AuthenticationError):
                client.responses.retrieve(response.id)


@pytest.fixture(scope="module")
def door_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[openai.OpenAI]:
    with door(tmp_path_factory.mktemp("door")) as (client, _, _):
        yield client


class TestErrors:
    @pytest.mark.parametrize(("request_", "param"), [
        ({"tools": [{"type": "web_search"}]}, "tools"), ({"background": True}, "background"),
        ({"conversation": "conv_1"}, "conversation"), ({"prompt": {"id": "pmpt_1"}}, "prompt"),
        ({"truncation": "auto"}, "truncation"), ({"tool_choice": {"type": "file_search"}}, "tool_choice"),
        ({"text": {"format": {"type": "grammar"}}}, "text.format"), ({"include": ["weather"]}, "include"),
        ({"extra_body": {"colour": "red"}}, "colour"),
        ({"input": [{"role": "nobody", "content": ""}]}, "input[0].role"),
        ({"max_output_tokens": 0}, "max_output_tokens"), ({"previous_response_id": ""}, "previous_response_id"),
    ])  # fmt: skip
    def test_what_cannot_be_had_is_named(self, door_once: openai.OpenAI, request_: Any, param: str) -> None:
        with pytest.raises(openai.BadRequestError) as caught:
            door_once.responses.create(**{"model": "default", "input": "hi", **request_})
        assert caught.value.param == param
        assert caught.value.type == "invalid_request_error"

    def test_a_stream_that_breaks_ends_in_a_failed_response(self, tmp_path: Path) -> None:
        with door(tmp_path, [Reply(texts=["one two three four"], truncate_after=3)]) as (client, _, _):
            events: Any = list(client.responses.create(model="default", input="hi", stream=True))
        assert events[-1].type == "response.failed"
        assert events[-1].response.status == "failed"
        assert events[-1].response.error.code == "server_error"
        assert events[-1].response.output[0].type == "message"

    def test_an_error_before_the_first_event_is_a_status(self, tmp_path: Path) -> None:
        error = {"message": "maximum context length", "code": "context_length_exceeded"}
        with door(tmp_path, [Reply(status=400, body={"error": error})]) as (client, _, _):
            with pytest.raises(openai.BadRequestError) as caught:
                client.responses.create(model="default", input="hi", stream=True)
            assert caught.value.code == "context_length_exceeded"
            with pytest.raises(openai.NotFoundError, match="model"):
                client.responses.create(model="nobody", input="hi")
            assert client.models.retrieve("default").id == "default"
            with pytest.raises(openai.NotFoundError):
                client.models.retrieve("nobody")


class TestMoney:
    """A key's budget: 10 tokens in and 2 out, at 1 and 2 dollars a million."""

    def test_is_reserved_settled_and_in_the_end_refused(self, tmp_path: Path) -> None:
        with door(tmp_path) as (client, _, proxy):
            mine = client.with_options(api_key=proxy.key("mine", budget=Decimal("0.000050")))
            for stream in (False, True):
                _answer(mine, stream, model="default", input="hi", max_output_tokens=2)
            with pytest.raises(openai.APIStatusError) as caught:
                mine.responses.create(model="default", input="hi", max_output_tokens=100)
            assert (caught.value.status_code, caught.value.code) == (402, "budget_exceeded")
            with pytest.raises(openai.BadRequestError, match="within a budget"):
                mine.responses.create(
                    model="default",
                    input=[
                        {
                            "role": "user",
                            "content": [
                                {
                                    "type": "input_file",
                                    "filename": "a.pdf",
                                    "file_data": "data:application/pdf;base64,AA==",
                                }
                            ],
                        }
                    ],
                )
            assert _spent(proxy) == Decimal("0.000028")

    def test_of_a_stream_that_its_client_abandons_is_booked(self, tmp_path: Path) -> None:
        with door(tmp_path, [Reply(texts=["word " * 60], chunk_delay=0.05)]) as (client, fake, proxy):
            mine = client.with_options(api_key=proxy.key("mine", budget=Decimal("1")))
            with mine.responses.create(model="default", input="hi", stream=True) as stream:
                for event in stream:
                    if event.type == "response.output_text.delta":
                        break
            assert fake.disconnected.wait(60)
            deadline = time.monotonic() + 60
            while not _spent(proxy):
                assert time.monotonic() < deadline
                time.sleep(0.05)
            assert Decimal(0) < _spent(proxy) < Decimal("0.0002")


def _spent(proxy: Proxy) -> Decimal:
    database = open_database(proxy.config.bank.url)
    try:
        with database.begin() as connection:
            return Decimal(connection.execute(select(tables.accounts.c.spent)).scalar() or 0)
    finally:
        database.close()


class TestCodex:
    def test_its_requests_as_they_were_recorded(self, tmp_path: Path) -> None:
        call = Reply(texts=[None], tool_calls=[("exec_command", '{"cmd": "ls"}')])
        spawn = Reply(texts=[None], tool_calls=[("multi_agent_v1__spawn_agent", "{}")])
        with door(tmp_path, [call, spawn, Reply()]) as (_, fake, proxy):
            refused = proxy.http.post("/v1/responses", json={**CODEX[0]["body"], "model": "default"})
            assert refused.status_code == 400
            assert "web_search=disabled" in refused.json()["error"]["message"]
            episodes, calls = set(), []
            for recorded in CODEX:
                body = {**recorded["body"], "model": "default", "tools": recorded["body"]["tools"][:-1]}
                answer = proxy.http.post("/v1/responses", json=body, headers=recorded["headers"])
                assert answer.headers["content-type"].startswith("text/event-stream"), answer.text
                *_, last = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: ")]
                episodes.add(last["response"]["agentcascade"]["episode"])
                calls.append({k: last["response"]["output"][0].get(k) for k in ("name", "namespace")})
        assert calls == [{"name": "exec_command", "namespace": None},
                         {"name": "spawn_agent", "namespace": "multi_agent_v1"}]  # fmt: skip
        assert episodes == {f"codex:{CODEX[0]['headers']['thread-id']}"}
        assert [m["role"] for m in fake.requests[-1].body["messages"]] == [
            "system",
            "user",
            "user",
            "assistant",
            "tool",
        ]
        database = open_database(proxy.config.bank.url)
        with database.begin() as connection:
            goals = set(connection.execute(select(tables.decisions.c.goal)).scalars())
        database.close()
        assert goals == {"Make made.txt"}, "and not what Codex says of its surroundings"


def test_claude_gets_its_signed_thinking_back_and_the_chat_student_none_of_it(tmp_path: Path) -> None:
    thinking = {"type": "thinking", "thinking": "hm", "signature": "c2ln"}
    use = {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {}}
    turns = iter([([thinking, use], "tool_use"), ([{"type": "text", "text": "a mug"}], "end_turn")])
    usage = {"input_tokens": 10, "output_tokens": 2}

    def script(request: Request) -> Reply:
        if request.body["model"] == "student":
            return Reply(texts=("a", "b", "c"))
        content, reason = next(turns)
        head = {"id": "msg_1", "type": "message", "role": "assistant", "model": "c"}
        return Reply(body={**head, "content": content, "stop_reason": reason, "usage": usage})

    with FakeOpenAI(script) as fake:
        config = settings(fake, tmp_path, mode="cascade", retrieval={"k": 0})
        config["teacher"] |= {"name": "anthropic/claude-sonnet-4-5", "api_base": fake.root}
        with serving(CascadeConfig(**config)) as proxy, openai.OpenAI(
            base_url=f"{proxy.base}/v1", api_key="none", max_retries=0
        ) as client:  # fmt: skip
            items: list[Any] = [{"role": "user", "content": "Where is it?"}]
            first = client.responses.create(model="default", input=items, tools=[LOOK], store=False)
            call = next(i for i in first.output if i.type == "function_call")
            items += [i.model_dump(exclude_none=True) for i in first.output]
            items.append({"type": "function_call_output", "call_id": call.call_id, "output": "a bed"})
            second = client.responses.create(model="default", input=items, tools=[LOOK], store=False)
    assert second.output_text == "a mug"
    claude = [r.body for r in fake.requests if r.body["model"] != "student"]
    assert claude[1]["messages"][1]["content"] == [thinking, use]
    students = [r.body for r in fake.requests if r.body["model"] == "student"]
    assert "hm" not in json.dumps(students[-1]["messages"])
