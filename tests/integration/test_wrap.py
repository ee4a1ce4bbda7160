"""`agentcascade.wrap` as programs on the OpenAI SDK meet it: the SDK's own client over HTTP to a fake provider."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from enum import Enum
from pathlib import Path
from typing import Any
from unittest.mock import patch

import httpx
import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types.chat import ChatCompletion, ChatCompletionChunk, ChatCompletionMessage
from pydantic import BaseModel
from sqlalchemy import select

import agentcascade
from agentcascade._util import known_secrets
from agentcascade.episodes import stateless
from agentcascade.episodes.responses import CascadeCompletion
from agentcascade.errors import ConfigError, InvalidRequest, UnknownEpisode
from agentcascade.integrations.openai import AsyncCascadeStream, CascadeStream, Wrapped
from agentcascade.storage import open_database, tables
from agentcascade.types import Decision
from tests.fake_openai import FakeOpenAI, Reply, Request

ASK: list[Any] = [{"role": "user", "content": "hi"}]
PRICE = {"input": "1", "output": "2"}
LOOK: Any = {
    "type": "function",
    "function": {"name": "look", "parameters": {"type": "object", "properties": {"at": {"type": "string"}}}},
}
AGREED, TORN = Reply(texts=("student says",)), Reply(texts=("a", "b", "c"))
Wrap = Callable[..., tuple[Any, FakeOpenAI]]


def by_model(student: Reply = AGREED, teacher: Reply | None = None) -> Callable[[Request], Reply]:
    other = teacher or Reply(texts=("teacher says so",))
    return lambda request: student if request.body.get("model") == "student" else other


@pytest.fixture
def wrap(tmp_path: Path) -> Iterator[Wrap]:
    """A wrapped client and the provider behind it."""
    with ExitStack() as stack:

        def start(script: Any = None, *, client: Any = OpenAI, client_options: Any = None, **more: Any) -> Any:
            fake = stack.enter_context(FakeOpenAI(script or by_model()))
            options = {
                "student": "client/student",
                "bank": {"url": f"sqlite:///{tmp_path}/cascade.db"},
                "retrieval": {"embedder": "hashing", "index": "exact"},
                "prompt": {"min_demonstrations": 0},
                "actions": {"format": "auto"},
            } | more
            own = {"base_url": fake.url, "api_key": "sk-own", "max_retries": 0} | (client_options or {})
            wrapped = agentcascade.wrap(client(**own), **options)
            stack.callback(wrapped.agentcascade.close)
            return wrapped, fake

        yield start


def asked(fake: FakeOpenAI, model: str) -> list[dict[str, Any]]:
    return [dict(r.body) for r in fake.requests if r.body.get("model") == model]


def decided(client: OpenAI, model: str) -> Decision:
    """What a wrapped client decided at one call."""
    answer = client.chat.completions.create(model=model, messages=ASK)
    assert isinstance(answer, CascadeCompletion)
    return answer.agentcascade


def words(chunks: list[Any]) -> str:
    return "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)


def test_the_wrapped_client_is_the_same_client(wrap: Wrap) -> None:
    client, _ = wrap(client_options={"timeout": 7, "default_headers": {"x-mine": "1"}})
    assert isinstance(client, OpenAI)
    assert type(client).__name__ == "OpenAI"
    assert (client.api_key, client.timeout, client.max_retries) == ("sk-own", 7, 0)
    asynchronous, _ = wrap(client=AsyncOpenAI)
    assert isinstance(asynchronous, AsyncOpenAI)


def test_an_answer_is_the_sdks_own_object_and_says_what_was_done(wrap: Wrap) -> None:
    client, fake = wrap()
    answer = client.chat.completions.create(model="gpt-teacher", messages=ASK, max_tokens=9, user="u")
    assert isinstance(answer, ChatCompletion)
    assert isinstance(answer, CascadeCompletion)
    assert isinstance(answer.choices[0].message, ChatCompletionMessage)
    assert answer.choices[0].message.content == "student says"
    assert (answer.choices[0].finish_reason, answer.object) == ("stop", "chat.completion")
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == 10
    assert answer.agentcascade.answered_by == "student"
    assert answer.agentcascade.agreement == 1.0
    assert answer.agentcascade.overhead_ms > 0
    assert json.loads(answer.model_dump_json())["agentcascade"]["episode"]
    assert [r.body["model"] for r in fake.requests] == ["student"]
    assert fake.requests[0].headers["authorization"] == "Bearer sk-own"
    assert (asked(fake, "student")[0]["max_tokens"], asked(fake, "student")[0]["n"]) == (9, 3)


def test_the_teacher_is_the_model_that_the_program_names_with_all_it_asks_for(wrap: Wrap) -> None:
    client, fake = wrap(mode="teacher")
    answer = client.chat.completions.create(
        model="gpt-teacher", messages=ASK, temperature=0.3, seed=5, logit_bias={"1": 2}, service_tier="flex",
        extra_headers={"x-mine": "1"}, extra_query={"v": "2"}, extra_body={"more": True}, timeout=5,
    )  # fmt: skip
    assert answer.choices[0].message.content == "teacher says so"
    assert answer.agentcascade.answered_by == "teacher"
    body = asked(fake, "gpt-teacher")[0]
    assert body == {
        "model": "gpt-teacher", "messages": ASK, "temperature": 0.3, "seed": 5, "logit_bias": {"1": 2},
        "service_tier": "flex", "more": True,
    }  # fmt: skip
    assert fake.requests[0].headers["x-mine"] == "1"
    assert fake.requests[0].path.endswith("?v=2")


def test_calls_of_one_client_each_go_out_with_what_they_ask_for(wrap: Wrap) -> None:
    """The teacher of a call is kept for others that ask in the same way, and only for those."""
    client, fake = wrap(mode="teacher")
    half: dict[str, float] = {"temperature": 0.5}
    whole: dict[str, float] = {"temperature": 1}
    asks: list[dict[str, float]] = [{}, half, {}, half, whole, {"temperature": 1.0}, {"seed": 1}]
    for arguments in asks:
        client.chat.completions.create(model="gpt-teacher", messages=ASK, **arguments)
    assert [{k: r.body[k] for k in ("temperature", "seed") if k in r.body} for r in fake.requests] == asks
    assert [type(r.body["temperature"]) for r in fake.requests[4:6]] == [int, float]
    client.api_key = "sk-another"
    client.chat.completions.create(model="gpt-other", messages=ASK, extra_headers={"x-mine": "1"})
    client.with_options(timeout=3).chat.completions.create(model="gpt-other", messages=ASK)
    assert [r.headers["authorization"] for r in fake.requests[-2:]] == ["Bearer sk-another"] * 2
    assert [r.headers.get("x-mine") for r in fake.requests[-2:]] == ["1", None]


class Models(str, Enum):  # noqa: UP042  a StrEnum is written as its values anyway
    TEACHER = "gpt-teacher"


def test_a_model_named_by_a_programs_enum_is_billed_under_its_own_name(wrap: Wrap) -> None:
    """Also where the same name is a plain text in the next call, for which the teacher was kept."""
    client, fake = wrap(mode="teacher", teacher={"name": "client/gpt-teacher", "price": PRICE})
    for model in (Models.TEACHER, "gpt-teacher"):
        for answer in (
            client.chat.completions.create(model=model, messages=ASK),
            client.responses.create(model=model, input="hi"),
        ):
            assert answer.agentcascade.calls[-1].model.endswith("/gpt-teacher")
            assert answer.agentcascade.dollars is not None
    assert [r.body["model"] for r in fake.requests] == ["gpt-teacher"] * 4


def test_a_clients_key_is_hidden_however_many_others_came_since_its_teacher_was_made(wrap: Wrap) -> None:
    key = "sk-own-0123456789"
    client, _ = wrap(mode="teacher", client_options={"api_key": key})
    for _ in range(2):
        client.chat.completions.create(model="gpt-teacher", messages=ASK)
        assert known_secrets.hide(f"no such key: {key}") == f"no such key: {known_secrets.PLACEHOLDER}"
        known_secrets.register(*(f"sk-another-{i:010}" for i in range(2 * known_secrets.MOST)))


def test_what_only_the_teachers_provider_may_see_is_not_given_to_the_student(wrap: Wrap) -> None:
    client, fake = wrap(by_model(TORN))
    client.chat.completions.create(
        model="gpt-teacher", messages=ASK, extra_headers={"x-mine": "1"}, extra_body={"more": True},
        metadata={"customer": "7"}, top_p=0.5,
    )  # fmt: skip
    student, teacher = fake.requests
    assert (student.body["model"], teacher.body["model"]) == ("student", "gpt-teacher")
    assert "x-mine" not in student.headers
    assert student.body.keys() & {"more", "metadata"} == set()
    assert (student.body["top_p"], teacher.body["top_p"]) == (0.5, 0.5)
    assert teacher.body["metadata"] == {"customer": "7"}


def test_a_student_that_disagrees_with_itself_is_not_heard(wrap: Wrap) -> None:
    client, _ = wrap(by_model(TORN))
    answer = client.chat.completions.create(model="gpt-teacher", messages=ASK)
    assert answer.choices[0].message.content == "teacher says so"
    assert answer.agentcascade.answered_by == "teacher"
    assert answer.agentcascade.samples > 1


@pytest.mark.parametrize("student", [AGREED, TORN], ids=["accepted", "deferred"])
def test_a_stream_is_the_sdks_own_with_usage_and_decision_at_its_end(wrap: Wrap, student: Reply) -> None:
    client, _ = wrap(by_model(student))
    with client.chat.completions.create(
        model="gpt-teacher", messages=ASK, stream=True, stream_options={"include_usage": True}
    ) as stream:
        assert isinstance(stream, openai.Stream)
        assert isinstance(stream, CascadeStream)
        chunks = list(stream)
    assert all(isinstance(chunk, ChatCompletionChunk) for chunk in chunks)
    assert words(chunks) == ("student says" if student is AGREED else "teacher says so")
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert (chunks[-1].choices, chunks[-1].usage.prompt_tokens) == ([], 10)
    assert chunks[-1].agentcascade == stream.agentcascade
    assert stream.agentcascade is not None
    assert stream.agentcascade.answered_by == ("student" if student is AGREED else "teacher")
    assert len({chunk.id for chunk in chunks}) == 1


async def test_an_asynchronous_stream_reads_the_same(wrap: Wrap) -> None:
    client, _ = wrap(by_model(TORN), client=AsyncOpenAI)
    stream = await client.chat.completions.create(model="gpt-teacher", messages=ASK, stream=True)
    assert isinstance(stream, openai.AsyncStream)
    assert isinstance(stream, AsyncCascadeStream)
    assert words([chunk async for chunk in stream]) == "teacher says so"
    assert stream.agentcascade is not None
    assert stream.agentcascade.answered_by == "teacher"


@pytest.mark.parametrize("student", [AGREED, TORN], ids=["accepted", "deferred"])
def test_the_sdks_stream_helper_puts_the_answer_together(wrap: Wrap, student: Reply) -> None:
    client, _ = wrap(by_model(student))
    with client.chat.completions.stream(model="gpt-teacher", messages=ASK) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_completion()
    assert "content.delta" in kinds
    assert kinds[-1] == "content.done"
    assert final.choices[0].message.content == ("student says" if student is AGREED else "teacher says so")


async def test_the_asynchronous_stream_helper_too(wrap: Wrap) -> None:
    client, _ = wrap(client=AsyncOpenAI)
    async with client.chat.completions.stream(model="gpt-teacher", messages=ASK) as stream:
        async for _ in stream:
            pass
        final = await stream.get_final_completion()
    assert final.choices[0].message.content == "student says"


@pytest.mark.parametrize("stream", [False, True])
def test_tool_calls_come_as_the_sdk_gives_them_and_their_results_go_back(wrap: Wrap, stream: bool) -> None:
    calls = (("look", '{"at": "desk"}'), ("look", '{"at": "bed"}'))

    def script(request: Request) -> Reply:
        if request.body["messages"][-1]["role"] == "tool":
            return Reply(texts=("a mug and a cup",))
        if request.body["model"] == "student":
            return TORN
        return Reply(texts=(None,), tool_calls=calls)

    client, fake = wrap(script)
    choice = {"type": "function", "function": {"name": "look"}}
    if stream:
        with client.chat.completions.stream(
            model="gpt-teacher", messages=ASK, tools=[LOOK], tool_choice=choice
        ) as chunks:
            chunks.until_done()
            message = chunks.get_final_completion().choices[0].message
    else:
        answer = client.chat.completions.create(model="gpt-teacher", messages=ASK, tools=[LOOK], tool_choice=choice)
        assert answer.choices[0].finish_reason == "tool_calls"
        message = answer.choices[0].message
    made = [(c.function.name, c.function.arguments) for c in message.tool_calls]
    assert made == list(calls)
    assert len({c.id for c in message.tool_calls}) == 2
    assert all(r.body["tool_choice"] == choice and r.body["tools"] == [LOOK] for r in fake.requests)

    results = [{"role": "tool", "tool_call_id": c.id, "content": "a mug"} for c in message.tool_calls]
    end = client.chat.completions.create(model="gpt-teacher", messages=[*ASK, message, *results], tools=[LOOK])
    assert end.choices[0].message.content == "a mug and a cup"
    sent = fake.requests[-1].body["messages"]
    assert [c["id"] for c in sent[-3]["tool_calls"]] == [m["tool_call_id"] for m in sent[-2:]]


class Place(BaseModel):
    room: str
    shelf: int


def test_parse_gives_the_programs_own_type(wrap: Wrap) -> None:
    client, fake = wrap(by_model(TORN, Reply(texts=('{"room": "hall"}',))))
    with pytest.raises(ValueError, match="Field required"):  # as without us
        client.chat.completions.parse(model="gpt-teacher", messages=ASK, response_format=Place)
    client, fake = wrap(by_model(Reply(texts=('{"room": "hall", "shelf": 3}',))))
    answer = client.chat.completions.parse(model="gpt-teacher", messages=ASK, response_format=Place)
    assert answer.choices[0].message.parsed == Place(room="hall", shelf=3)
    assert answer.agentcascade.answered_by == "student"
    assert asked(fake, "student")[0]["response_format"]["json_schema"]["name"] == "Place"


async def test_parse_with_tools_gives_parsed_arguments(wrap: Wrap) -> None:
    reply = Reply(texts=(None,), tool_calls=(("Place", '{"room": "hall", "shelf": 3}'),))
    client, _ = wrap(lambda _: reply, client=AsyncOpenAI, mode="teacher")
    answer = await client.chat.completions.parse(
        model="gpt-teacher", messages=ASK, tools=[openai.pydantic_function_tool(Place)]
    )
    assert answer.choices[0].message.tool_calls[0].function.parsed_arguments == Place(room="hall", shelf=3)


def test_answers_in_a_json_format_agree_by_value(wrap: Wrap) -> None:
    same = Reply(texts=('{"a": 1, "b": 2}', '{"b":2,"a":1}', '{"a":1,"b":2}'))
    client, _ = wrap(by_model(same))
    answer = client.chat.completions.create(model="gpt-teacher", messages=ASK, response_format={"type": "json_object"})
    assert answer.agentcascade.answered_by == "student"
    assert answer.agentcascade.agreement == 1.0


@pytest.mark.parametrize("stream", [False, True])
def test_several_choices_are_the_teachers(wrap: Wrap, stream: bool) -> None:
    client, fake = wrap(by_model(teacher=Reply(texts=("one", "two"))))
    answer = client.chat.completions.create(model="gpt-teacher", messages=ASK, n=2, stream=stream)
    if stream:
        found: dict[int, str] = {}
        for chunk in answer:
            for choice in chunk.choices:
                found[choice.index] = found.get(choice.index, "") + (choice.delta.content or "")
        assert found == {0: "one", 1: "two"}
    else:
        assert [c.message.content for c in answer.choices] == ["one", "two"]
        assert [c.index for c in answer.choices] == [0, 1]
    assert [r.body["n"] for r in fake.requests] == [2]


def test_with_options_keeps_the_cascade_and_takes_the_options(wrap: Wrap) -> None:
    client, fake = wrap(mode="teacher")
    other = client.with_options(api_key="sk-other", default_headers={"x-mine": "1"})
    answer = other.chat.completions.create(model="gpt-teacher", messages=ASK)
    assert answer.agentcascade.answered_by == "teacher"
    assert other.agentcascade is client.agentcascade
    assert fake.requests[0].headers["authorization"] == "Bearer sk-other"
    assert fake.requests[0].headers["x-mine"] == "1"


def test_raw_responses_are_the_providers_and_bypass_the_cascade(wrap: Wrap) -> None:
    client, fake = wrap()
    raw = client.chat.completions.with_raw_response.create(model="gpt-teacher", messages=ASK)
    assert raw.http_response.status_code == 200
    assert raw.parse().choices[0].message.content == "teacher says so"
    with client.chat.completions.with_streaming_response.create(model="gpt-teacher", messages=ASK) as response:
        assert response.parse().choices[0].message.content == "teacher says so"
    assert [r.body["model"] for r in fake.requests] == ["gpt-teacher"] * 2


def test_everything_else_of_the_client_is_untouched(wrap: Wrap) -> None:
    body = {"object": "list", "data": [{"object": "embedding", "index": 0, "embedding": [0.5]}], "model": "e",
            "usage": {"prompt_tokens": 1, "total_tokens": 1}}  # fmt: skip
    client, fake = wrap([Reply(body=body)])
    assert client.embeddings.create(model="e", input="x", encoding_format="float").data[0].embedding == [0.5]
    assert fake.requests[0].path == "/v1/embeddings"
    with pytest.raises(openai.APIStatusError):
        client.models.list()  # this provider has none


def test_the_original_client_is_left_as_it_was(wrap: Wrap, fake_openai: Any) -> None:
    fake = fake_openai([Reply(texts=("plain",))])
    own = OpenAI(base_url=fake.url, api_key="x")
    wrapped = agentcascade.wrap(own, mode="teacher", retrieval={"k": 0}, bank={"url": "sqlite://"})
    with Wrapped.of(wrapped):
        wrapped.chat.completions.create(model="m", messages=ASK)
    assert type(own) is OpenAI
    assert not hasattr(own.chat.completions.create(model="m", messages=ASK), "agentcascade")


def test_what_an_episode_did_is_banked_and_shown_to_the_student(wrap: Wrap, tmp_path: Path) -> None:
    client, fake = wrap(mode="collect")
    messages = [*ASK]
    with client.agentcascade.episode("run-1", goal="greet the guest") as running:
        for reply in ("more?", "thanks"):
            answer = client.chat.completions.create(model="gpt-teacher", messages=messages)
            messages += [answer.choices[0].message, {"role": "user", "content": reply}]
    assert answer.agentcascade.episode == running.id
    assert answer.agentcascade.step == 1
    assert client.agentcascade.finish(running, success=True) is True
    with pytest.raises(InvalidRequest, match="finish needs an episode"):
        client.agentcascade.finish({"id": running.id}, success=True)
    with patch.object(stateless, "PATIENCE", (0.1,)), pytest.raises(UnknownEpisode):
        client.agentcascade.finish("ep_never_seen", success=True)

    cascade, fake = wrap(prompt={"min_demonstrations": 1})
    answer = cascade.chat.completions.create(model="gpt-teacher", messages=ASK)
    assert answer.agentcascade.answered_by == "student"
    assert len(answer.agentcascade.demonstrations) >= 1
    assert "greet the guest" in json.dumps(fake.requests[0].body["messages"])


async def test_an_asynchronous_episode_is_finished_without_blocking(wrap: Wrap) -> None:
    client, _ = wrap(client=AsyncOpenAI, mode="collect")
    with client.agentcascade.episode(id="run-1", goal="greet") as running:
        await client.chat.completions.create(model="gpt-teacher", messages=ASK)
    assert await client.agentcascade.afinish(running.id, success=True) is True


@pytest.mark.parametrize(
    "given",
    [
        {"metadata": {"agentcascade_episode": "run-7", "agentcascade_goal": "greet", "customer": "7"}},
        {"extra_headers": {"X-AgentCascade-Episode": "run-7", "X-AgentCascade-Goal": "greet"}},
    ],
    ids=["metadata", "headers"],
)
def test_metadata_or_headers_say_which_episode_it_is(wrap: Wrap, given: Any) -> None:
    client, fake = wrap(mode="teacher")
    answer = client.chat.completions.create(model="gpt-teacher", messages=ASK, **given)
    assert (answer.agentcascade.episode, answer.agentcascade.goal) == ("run-7", "greet")
    assert "agentcascade" not in json.dumps(fake.requests[0].body), "our own keys are nobody else's business"
    assert fake.requests[0].body.get("metadata") == ({"customer": "7"} if "metadata" in given else None)


def test_a_bad_episode_id_is_refused_before_anything_is_spent(wrap: Wrap) -> None:
    client, fake = wrap()
    with pytest.raises(InvalidRequest, match="episode id"):
        client.chat.completions.create(
            model="gpt-teacher", messages=ASK, extra_headers={"x-agentcascade-episode": "a\nb"}
        )
    assert not fake.requests


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, openai.BadRequestError),
        (401, openai.AuthenticationError),
        (404, openai.NotFoundError),
        (429, openai.RateLimitError),
        (500, openai.InternalServerError),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_the_teachers_errors_are_the_sdks_own(wrap: Wrap, status: int, error: type[Exception], stream: bool) -> None:
    client, _ = wrap(by_model(Reply(status=500), Reply(status=status)))
    with pytest.raises(error):
        client.chat.completions.create(model="gpt-teacher", messages=ASK, stream=stream)


def test_a_timeout_is_the_sdks_own(wrap: Wrap) -> None:
    client, _ = wrap([Reply(delay=2)], mode="teacher", client_options={"timeout": 0.2})
    with pytest.raises(openai.APITimeoutError):
        client.chat.completions.create(model="gpt-teacher", messages=ASK)


def test_a_student_that_fails_is_only_a_deferral(wrap: Wrap) -> None:
    client, _ = wrap(by_model(Reply(status=500)))
    answer = client.chat.completions.create(model="gpt-teacher", messages=ASK)
    assert answer.agentcascade.answered_by == "teacher"
    assert "InternalServerError" in answer.agentcascade.failures[0]


def test_a_stream_that_breaks_off_says_so(wrap: Wrap) -> None:
    client, _ = wrap([Reply(texts=("one two three",), truncate_after=2)], mode="teacher")
    with pytest.raises((openai.APIError, ConnectionError)):
        list(client.chat.completions.create(model="gpt-teacher", messages=ASK, stream=True))


def test_a_stream_that_is_closed_early_is_closed_upstream(wrap: Wrap) -> None:
    client, fake = wrap([Reply(texts=("word " * 100,), chunk_delay=0.05)], mode="teacher")
    with client.chat.completions.create(model="gpt-teacher", messages=ASK, stream=True) as stream:
        next(stream)
    assert fake.disconnected.wait(60)


async def test_a_cancelled_asynchronous_stream_is_closed_upstream(wrap: Wrap) -> None:
    client, fake = wrap([Reply(texts=("word " * 100,), chunk_delay=0.05)], client=AsyncOpenAI, mode="teacher")

    begun = asyncio.Event()

    async def read() -> None:
        async for _ in await client.chat.completions.create(model="gpt-teacher", messages=ASK, stream=True):
            begun.set()

    reading = asyncio.create_task(read())
    await asyncio.wait_for(begun.wait(), 60)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert await asyncio.to_thread(fake.disconnected.wait, 60)


def test_threads_share_a_client_and_keep_their_episodes(wrap: Wrap) -> None:
    client, _ = wrap()

    def run(number: int) -> tuple[str | None, set[str]]:
        with client.agentcascade.episode(goal=f"task {number}") as running:
            answers = [
                client.chat.completions.create(model="gpt-teacher", messages=[{"role": "user", "content": f"{number}"}])
                for _ in range(3)
            ]
        return running.id, {a.agentcascade.episode for a in answers}

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(run, range(16)))
    assert all(seen == {id} for id, seen in found)
    assert len({id for id, _ in found}) == 16


async def test_many_calls_at_once_in_one_event_loop(wrap: Wrap) -> None:
    client, _ = wrap(client=AsyncOpenAI)
    answers = await asyncio.gather(
        *(
            client.chat.completions.create(model="gpt-teacher", messages=[{"role": "user", "content": str(i)}])
            for i in range(20)
        )
    )
    assert len({a.agentcascade.episode for a in answers}) == 20


class Rerouted(httpx.HTTPTransport):
    """Sends what was meant for OpenAI to the fake."""

    def __init__(self, root: str) -> None:
        super().__init__()
        self._root = httpx.URL(root)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        request.url = request.url.copy_with(scheme="http", host=self._root.host, port=self._root.port)
        return super().handle_request(request)


def test_openais_prices_hold_at_openai_only(wrap: Wrap, tmp_path: Path) -> None:
    client, fake = wrap([Reply(usage={"prompt_tokens": 1000, "completion_tokens": 100})], mode="teacher")
    elsewhere = client.chat.completions.create(model="gpt-4o", messages=ASK).agentcascade
    assert elsewhere.dollars is None
    with httpx.Client(transport=Rerouted(fake.root)) as http:
        real = agentcascade.wrap(
            OpenAI(api_key="x", http_client=http), mode="teacher", bank={"url": f"sqlite:///{tmp_path}/b.db"},
            retrieval={"k": 0},
        )  # fmt: skip
        with Wrapped.of(real):
            said = decided(real, "gpt-4o")
    assert said.calls[0].model == "openai/gpt-4o"
    assert said.dollars is not None
    assert float(said.dollars) == pytest.approx(1000 * 2.5e-6 + 100 * 10e-6)


def test_a_price_can_be_given_for_another_server(fake_openai: Any, tmp_path: Path) -> None:
    fake = fake_openai([Reply(usage={"prompt_tokens": 1000, "completion_tokens": 100})])
    (tmp_path / "agentcascade.yaml").write_text(
        "mode: teacher\n"
        "teacher: {name: 127.0.0.1/big, price: {input: 3, output: 15}}\n"
        f"bank: {{url: 'sqlite:///{tmp_path}/a.db'}}\n"
        "retrieval: {embedder: hashing}\n"
    )
    client = agentcascade.wrap(OpenAI(base_url=fake.url, api_key="x"), tmp_path / "agentcascade.yaml")
    with Wrapped.of(client):
        said, other = decided(client, "big"), decided(client, "small")
    assert said.dollars is not None
    assert float(said.dollars) == pytest.approx((1000 * 3 + 100 * 15) / 1e6)
    assert other.dollars is None


def test_after_close_the_records_are_there_and_the_client_lives_on(wrap: Wrap, tmp_path: Path) -> None:
    client, _ = wrap()
    client.chat.completions.create(model="gpt-teacher", messages=ASK)
    client.agentcascade.close()
    database = open_database(f"sqlite:///{tmp_path}/cascade.db")
    with database.begin() as connection:
        rows = connection.execute(select(tables.decisions.c.answered_by)).scalars().all()
    database.close()
    assert rows == ["student"]
    assert client.chat.completions.with_raw_response.create(model="gpt-teacher", messages=ASK)


def test_prices_hold_for_students_and_teachers_behind_the_client(wrap: Wrap) -> None:
    priced = {role: {"name": f"client/{role}", "price": PRICE} for role in ("student", "teacher")}
    client, _ = wrap(**priced, router={"options": {"n": 1}})
    taken = client.chat.completions.create(model="teacher", messages=ASK).agentcascade
    assert (taken.answered_by, taken.dollars is None, taken.teacher_dollars is None) == ("student", False, False)
    client, _ = wrap(by_model(TORN), **priced)
    deferred = client.chat.completions.create(model="teacher", messages=ASK).agentcascade
    assert (deferred.answered_by, deferred.dollars is None) == ("teacher", False)
    with pytest.raises(ConfigError, match="api_base"):
        wrap(student={"name": "client/student", "api_base": "http://elsewhere"})


def test_an_audit_of_a_wrapped_client_asks_the_teacher_that_the_call_named(wrap: Wrap) -> None:
    client, fake = wrap(audit={"rate": 1.0, "risk": 0.1}, router={"options": {"n": 1}})
    client.chat.completions.create(model="my-teacher", messages=ASK)
    for _ in range(1200):
        if len(fake.requests) > 1:
            break
        time.sleep(0.05)
    assert [r.body["model"] for r in fake.requests] == ["student", "my-teacher"]


def test_a_goal_of_the_program_is_never_decoded(wrap: Wrap) -> None:
    client, _ = wrap()
    with client.agentcascade.episode(goal="raise by 5%ad spend"):
        decision = client.chat.completions.create(model="t", messages=ASK).agentcascade
    assert decision.goal == "raise by 5%ad spend"
