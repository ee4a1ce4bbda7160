"""The response cache: what makes two calls equal, what is kept, for how long, for whom, and how a hit is booked."""

from __future__ import annotations

import asyncio
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select

from agentcascade import build
from agentcascade.billing import response_cache
from agentcascade.billing.cache_key import cache_key
from agentcascade.billing.door import Door, Tab
from agentcascade.billing.response_cache import FRESH_SECONDS, ResponseCache, is_keepable
from agentcascade.config.effort import Effort
from agentcascade.config.sections import ResponseCacheConfig
from agentcascade.envs.bfcl.text_calls import TextCalls
from agentcascade.errors import BudgetExceeded, InvalidRequest
from agentcascade.ledger.ledger import Ledger
from agentcascade.models.callers import CallersModel
from agentcascade.models.effort import at_effort
from agentcascade.models.litellm import LiteLLMModel
from agentcascade.models.openai import OpenAIModel
from agentcascade.models.pricing import Price, PriceTable, with_price
from agentcascade.models.responses import ResponsesModel
from agentcascade.models.scripted import ScriptedModel
from agentcascade.models.tool_call_ids import make_id
from agentcascade.storage import Database, cached_responses, open_database, tables
from agentcascade.storage.budgets import DatabaseBudgets
from agentcascade.storage.cached_responses import CachedResponses, Limits, Sealed
from agentcascade.storage.retention import RetentionPolicy, prune
from agentcascade.types import Account, Completion, Usage
from tests.fake_openai import FakeOpenAI, Reply

ASK: Any = [{"role": "user", "content": "hi"}]
LOOK: Any = {"type": "function", "function": {"name": "look", "parameters": {"properties": {"a": {}, "b": {}}}}}
TURNED: Any = {"type": "function", "function": {"name": "look", "parameters": {"properties": {"b": {}, "a": {}}}}}
PRICES = {"openai/m": {"input": "1", "output": "2"}}
COLD = {"temperature": 0.0}


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a busy machine's first look into a database."""
    monkeypatch.setattr(response_cache, "FIND_SECONDS", 30.0)


def model(url: str = "http://127.0.0.1:9/v1", name: str = "openai/m", **more: Any) -> OpenAIModel:
    return OpenAIModel(name, api_base=url, api_key="none", retries=0, prices=PriceTable(PRICES), **more)


def key(
    messages: Any = ASK, asked: Any = None, space: str = "mine", use: Any = "auto", **options: Any
) -> Sealed | None:
    return cache_key(space, asked or model(), messages, COLD | options, use)


def called(id: str, result: str = "a mug") -> list[Any]:
    call = {"id": id, "type": "function", "function": {"name": "look", "arguments": '{"id": "call_1"}'}}
    return [*ASK, {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": id, "content": result}]  # fmt: skip


OTHERS: dict[str, Any] = {
    "another tenant": {"space": "theirs"},
    "another model": {"asked": model(name="openai/n")},
    "another address": {"asked": model("http://127.0.0.1:10/v1")},
    "another adapter": {"asked": ResponsesModel("openai/m", api_base="http://127.0.0.1:9/v1", api_key="none")},
    "an option of the model": {"asked": model(options={"top_p": 0.25})},
    "a limit of the model": {"asked": model(max_tokens=6)},
    "one whose text is read for calls": {"asked": TextCalls(model())},
    "an effort": {"asked": at_effort(model(), Effort("high"))},
    "an effort of one whose text is read for calls": {"asked": at_effort(TextCalls(model()), Effort("high"))},
    "one whose text is read for calls, at a price": {"asked": with_price(TextCalls(model()), Price(input=1, output=2))},
    "one at a price": {"asked": with_price(model(), Price(input=1, output=2))},
    "another effort": {"asked": at_effort(model(), Effort("low"))},
    "a word": {"messages": [{"role": "user", "content": "hi "}]},
    "another role": {"messages": [{"role": "system", "content": "hi"}]},
    "a name": {"messages": [{"role": "user", "content": "hi", "name": "Ann"}]},
    "an image": {"messages": [{"role": "user", "content": [
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]}]},
    "another image": {"messages": [{"role": "user", "content": [
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAB"}}]}]},
    "a thought": {"messages": [*ASK, {"role": "assistant", "content": "x", "reasoning_content": "so"}]},
    "no thought": {"messages": [*ASK, {"role": "assistant", "content": "x"}]},
    "a result": {"messages": called("call_1")},
    "another result": {"messages": called("call_1", "no mug")},
    "tools": {"tools": [LOOK]},
    "tools whose schema has another order": {"tools": [TURNED]},
    **{f"{name}={value}": {name: value} for name, value in [
        ("tool_choice", "required"), ("response_format", {"type": "json_object"}), ("stop", ["."]), ("seed", 1),
        ("seed", 2), ("max_tokens", 5), ("max_completion_tokens", 5), ("top_p", 0.5), ("n", 2), ("n", 3),
        ("user", "ann"), ("user", "bob"), ("safety_identifier", "ann"), ("logprobs", True), ("logit_bias", {"5": 1}),
        ("parallel_tool_calls", False), ("presence_penalty", 1), ("frequency_penalty", 1), ("reasoning_effort", "low"),
        ("verbosity", "low"), ("extra_body", {"top_k": 1}), ("extra_body", {"top_k": 2}), ("guided_json", {}),
        ("extra_headers", {"Authorization": "Bearer a"}), ("extra_headers", {"Authorization": "Bearer b"}),
        ("extra_headers", {"anthropic-beta": "context-1m"}), ("prediction", {"type": "content", "content": "x"}),
    ]},
}  # fmt: skip


def test_all_that_changes_an_answer_makes_another_key() -> None:
    keys = [key(), *(key(**other) for other in OTHERS.values())]
    assert None not in keys
    assert len({k.row for k in keys if k}) == len({k.key for k in keys if k}) == len(keys)
    assert all(k.row != k.key.hex() for k in keys if k)


def marked(messages: Any) -> Any:
    part = {"type": "text", "text": "hi", "cache_control": {"type": "ephemeral"}}
    return [{"role": "user", "content": [part], "cache_control": {"type": "ephemeral"}}, *messages]


def test_what_labels_a_request_does_not() -> None:
    labels: list[dict[str, Any]] = [
        {"metadata": {"run": "2"}}, {"timeout": 5.0}, {"prompt_cache_key": "p"}, {"service_tier": "flex"},
        {"stop": None},
        {"extra_body": {"metadata": {"user_id": "session-2"}, "cache_control": {"type": "ephemeral"}}},
        {"extra_headers": {"X-AgentCascade-Episode": "two", "traceparent": "00-1", "X-Request-Id": "r"}},
    ]  # fmt: skip
    for label in labels:
        assert key(**label) == key(), label
    assert key(asked=model(max_tokens=5)) == key(max_tokens=5), "it does not matter who says so"
    assert key(marked(ASK)) == key([{"role": "user", "content": [{"type": "text", "text": "hi"}]}, *ASK])
    tool = {**LOOK, "cache_control": {"type": "ephemeral"}}
    assert key(tools=[tool]) == key(tools=[LOOK])
    assert key(called("call_1")) == key(called(make_id("student", "x", 0))), "ids only say what belongs together"
    swapped = [*called("a"), *called("b")[1:]]
    assert key(swapped) == key([*called("b"), *called("a")[1:]])
    assert key(swapped) != key([*called("a"), *called("a")[1:]])
    orphan = {"role": "tool", "content": "a mug"}
    odd = [key([*called("a")[:-1], {**orphan, "tool_call_id": id}]) for id in ("a", "b", "call 0", "call 1", "other b")]
    assert len(set(odd)) == len(odd), "a result of no call is no result of the first, whatever it calls itself"
    data = {"type": "function", "function": {"name": "f", "parameters": {"properties": {"cache_control": {}}}}}
    assert key(tools=[data]) != key(
        tools=[{"type": "function", "function": {"name": "f", "parameters": {"properties": {}}}}]
    )


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda s: st.lists(s) | st.dictionaries(st.text(), s),
        max_leaves=8,
    )
)
def test_any_content_has_one_key_that_survives_the_wire(content: Any) -> None:
    messages = [{"role": "user", "content": content}]
    sent = json.loads(json.dumps(messages))
    assert key(messages, use="use") == key(sent, use="use")


ANSWERED_ANEW: dict[str, Any] = {
    "no temperature": {"temperature": None},
    "another temperature": {"temperature": 0.1},
    "a temperature that the body sets": {"extra_body": {"temperature": 1}},
    "a model of one's own": {"asked": ScriptedModel(["x"])},
    "a caller's model": {"asked": CallersModel(model(), {"Authorization": "Bearer k"})},
    "stored by the provider": {"store": True},
    "the provider's conversation": {"extra_body": {"previous_response_id": "resp_1"}},
    "search": {"web_search_options": {}} | {"web_search_options": {"search_context_size": "low"}},
    "a hosted tool": {"tools": [{"type": "web_search"}]},
    "a hosted tool without a type": {"tools": [LOOK, {"googleSearch": {}}]},
    "tools that are none": {"tools": 5},
    "modalities that are none": {"modalities": 5},
    "a hosted tool in the body": {"responses": {"tools": [{"type": "file_search"}]}},
    "speech": {"extra_body": {"modalities": ["text", "audio"]}},
    "an image at an address": {"messages": [{"role": "user", "content": [
        {"type": "image_url", "image_url": {"url": "https://example.com/now.png"}}]}]},
    "a file by its id": {"messages": [{"role": "user", "content": [
        {"type": "document", "source": {"type": "file", "file_id": "f"}}]}]},
    "what is no JSON": {"logit_bias": object()},
    "no-store": {"use": "no-store"},
}  # fmt: skip


@pytest.mark.parametrize("what", ANSWERED_ANEW)
def test_is_asked_anew(what: str) -> None:
    assert key(**ANSWERED_ANEW[what]) is None


def test_by_request_any_temperature_will_do_and_is_in_the_key() -> None:
    warm = [key(use="use", temperature=t) for t in (None, 0.0, 0.7, 1)]
    assert None not in warm
    assert len(set(warm)) == 4
    assert key(asked=model(temperature=0.0), temperature=None) == key(), "the model's own temperature counts"
    assert key(asked=LiteLLMModel("openai/m", options={"temperature": 0}), temperature=None) is not None


def said(text: str = "hello", finish: str = "stop", **more: Any) -> Completion:
    message = {"role": "assistant", "content": text}
    fields = {
        "model": "openai/m",
        "messages": (message,),
        "finish_reasons": (finish,),
        "usage": Usage(input=9, output=3),
    }
    return Completion(**fields | more)


@pytest.mark.parametrize(
    ("completion", "kept"),
    [
        (said(), True), (said(finish="tool_calls"), True), (said(finish="length"), True),
        (said(finish="content_filter"), False), (said(finish="refusal"), False), (said(finish="pause_turn"), False),
        (said(finish_reasons=()), False), (said(estimated=True), False), (said(lost=1), False),
        (said(messages=()), False), (said(cached_response=True), False),
        (said(messages=({"role": "assistant", "content": None, "refusal": "no"},)), False),
        (said(""), False), (said(messages=({"role": "assistant", "content": None, "reasoning_content": "x"},)), False),
    ],
)  # fmt: skip
def test_only_answers_that_are_whole_and_surely_billed_are_kept(completion: Completion, kept: bool) -> None:
    assert is_keepable(completion, 1) is kept
    assert not is_keepable(completion, 2)


def digests(number: int, space: str = "mine") -> Sealed:
    made = key([{"role": "user", "content": f"{number}"}], space=space)
    assert made is not None
    return made


def test_the_database_keeps_answers_sealed_bounded_and_no_longer_than_told(database: Database) -> None:
    secret = b'{"answer": "ada@example.com"}'
    store = CachedResponses(database, Limits(3600, 3, 10_000))
    for number in range(5):
        store.save("mine", digests(number), secret)
        store.close()
    store.save("theirs", digests(0, "theirs"), b"another answer")
    store.save("theirs", digests(0, "theirs"), secret)
    store.close()
    others = CachedResponses(database, Limits(3600, 3, 10_000))
    found = [others.find(digests(n), 1000) for n in range(5)]
    assert [f and f[0] for f in found] == [None, None, secret, secret, secret], "the oldest go first"
    assert others.find(digests(0, "theirs"), 1000) is not None, "of their own namespace alone"
    assert cached_responses.kept(database).keys() == {"mine", "theirs"}
    with database.begin() as connection:
        rows = connection.execute(select(tables.cached_responses)).all()
    assert len(rows) == 4
    assert not any(b"ada" in row.body or digests(4).key in row.body for row in rows)
    wrong = Sealed(digests(4).row, digests(3).key)
    assert others.find(wrong, 1000) is None, "the row alone opens nothing"
    assert others.find(digests(4), 10) is None, "a larger answer than is allowed"
    assert CachedResponses(database, Limits(1e-9, 3, 10_000)).find(digests(4), 1000) is None, (
        "a shorter life, set since"
    )
    cached_responses.trim(database, "mine", Limits(3600, 3, rows[0].bytes))
    assert cached_responses.kept(database)["mine"][0] == 1
    assert cached_responses.clear(database, "mine") == 1
    assert others.find(digests(4), 1000) is None
    CachedResponses(database, Limits(1e-9, 3, 10_000)).save("mine", digests(1), secret)
    store.close()
    for _ in range(200):
        if "mine" in cached_responses.kept(database):
            break
    prune(database, RetentionPolicy())
    assert cached_responses.kept(database).keys() == {"theirs"}


def cache(folder: Path, **more: Any) -> tuple[Database, ResponseCache]:
    opened = open_database(f"sqlite:///{folder}/c.db")
    settings = ResponseCacheConfig(enabled=True, **more)
    limits = Limits(settings.ttl_seconds, settings.max_entries, settings.max_bytes)
    return opened, ResponseCache(CachedResponses(opened, limits), settings)


async def ask(door: Door, asked: Any, tab: Tab | None = None, space: str | None = "mine", **more: Any) -> Completion:
    options = COLD | more.pop("options", {})
    given_: dict[str, Any] = {"role": "student", "purpose": "sample", "bill": tab or Tab(), "namespace": space} | more
    return await door.call(asked, ASK, options, **given_)


def test_a_hit_is_the_same_answer_for_nothing(tmp_path: Path) -> None:
    opened, kept = cache(tmp_path)
    budgets, tab = DatabaseBudgets(opened), Tab()
    account = Account(scope="namespace", name="mine", limit=Decimal("0.01"))
    reply = Reply(
        texts=("one", "two", "three"), usage={"prompt_tokens": 1000, "completion_tokens": 9}, logprobs=(-0.5,)
    )
    with FakeOpenAI([reply]) as fake:
        door, asked = Door(budgets=budgets, cache=kept), model(fake.url)
        wave: dict[str, Any] = {"options": {"n": 3, "max_tokens": 10, "logprobs": True}, "accounts": [account]}

        async def twice() -> list[Completion]:
            return [await ask(door, asked, tab, **wave), await ask(door, asked, tab, **wave)]

        bought, hit = asyncio.run(twice())
        with pytest.raises(BudgetExceeded):  # there is no room for another one
            asyncio.run(ask(door, asked, options={"n": 3, "max_tokens": 10_000}, accounts=[account]))
        kept.close()
        later, fresh = cache(tmp_path)
        again = asyncio.run(ask(Door(cache=fresh), model(fake.url), **{**wave, "accounts": ()}))
        later.close()
    assert len(fake.requests) == 1
    assert hit.messages == again.messages == bought.messages
    assert (hit.logprobs, hit.finish_reasons, hit.usage) == (bought.logprobs, bought.finish_reasons, bought.usage)
    assert (bought.dollars, hit.dollars, hit.avoided_dollars) == (Decimal("0.001018"), Decimal(0), Decimal("0.001018"))
    assert [(c.cached_response, c.dollars) for c in tab.calls] == [(False, Decimal("0.001018")), (True, 0)]
    with opened.begin() as connection:
        (spent,) = connection.execute(select(tables.accounts.c.spent)).scalars()
        assert not connection.execute(select(tables.reservations)).all()
    assert spent == Decimal("0.001018")
    budgets.close()
    opened.close()


def test_calls_of_tools_get_new_ids_each_time(tmp_path: Path) -> None:
    opened, kept = cache(tmp_path)
    with FakeOpenAI([Reply(tool_calls=[("look", "{}"), ("look", '{"at": "bed"}')])]) as fake:

        async def thrice() -> list[Completion]:
            return [await ask(Door(cache=kept), model(fake.url), options={"tools": [LOOK]}) for _ in range(3)]

        answers = asyncio.run(thrice())
    ids = [call["id"] for a in answers for call in a.messages[0]["tool_calls"]]
    assert len(set(ids)) == 6
    assert len({json.dumps([c["function"] for c in a.messages[0]["tool_calls"]]) for a in answers}) == 1
    kept.close()
    opened.close()


@pytest.mark.parametrize(
    "reply",
    [
        Reply(status=500), Reply(finish="content_filter"), Reply(usage=None), Reply(body={"choices": []}),
        Reply(usage={"prompt_tokens": 10**9, "completion_tokens": 2}), Reply(texts=("",)),
    ],
)  # fmt: skip
def test_what_went_wrong_is_asked_again(tmp_path: Path, reply: Reply) -> None:
    opened, kept = cache(tmp_path)
    with FakeOpenAI([reply, Reply(texts=("right",))]) as fake:

        async def twice() -> list[Any]:
            both = [ask(Door(cache=kept), model(fake.url)), ask(Door(cache=kept), model(fake.url))]
            return [(await asyncio.gather(one, return_exceptions=True))[0] for one in both]

        _, right = asyncio.run(twice())
    assert right.messages[0]["content"] == "right"
    assert (len(fake.requests), right.cached_response) == (2, False)
    kept.close()
    opened.close()


def test_what_a_request_says_of_it(tmp_path: Path) -> None:
    opened, kept = cache(tmp_path)
    with FakeOpenAI(lambda request: Reply(texts=(f"answer {len(fake.requests)}",))) as fake:
        door, asked = Door(cache=kept), model(fake.url)

        async def answers() -> list[Completion]:
            return [
                await ask(door, asked, cache_use=use, space=space, options={"temperature": heat})
                for use, space, heat in [
                    ("auto", "mine", 0), ("auto", "mine", 0), ("no-store", "mine", 0), ("auto", "mine", 0),
                    ("no-cache", "mine", 0), ("auto", "mine", 0), ("auto", "theirs", 0), ("auto", None, 0),
                    ("auto", "mine", 1), ("use", "mine", 1), ("use", "mine", 1), ("auto", "mine", 1),
                ]
            ]  # fmt: skip

        numbers = [int(a.messages[0]["content"].split()[1]) for a in asyncio.run(answers())]
    assert numbers == [1, 1, 2, 1, 3, 3, 4, 5, 6, 7, 7, 8]
    kept.close()
    opened.close()


def test_a_process_holds_so_many_bytes_and_asks_the_database_again(tmp_path: Path, monkeypatch: Any) -> None:
    opened, kept = cache(tmp_path, memory_bytes=2000)
    for number in range(20):
        kept.keep("mine", digests(number), said("x" * 300))
    assert 0 < kept._bytes <= 2000
    assert kept._bytes == sum(len(hit.answer) for hit in kept._held.values())
    kept.close()
    assert asyncio.run(kept.find(digests(0))) is not None, "from the database"
    cached_responses.clear(opened, "mine")
    assert asyncio.run(kept.find(digests(19))) is not None, "from this process, for a while"
    clock = kept._held[digests(19).row].read + FRESH_SECONDS + 1
    monkeypatch.setattr("agentcascade.billing.response_cache.time.monotonic", lambda: clock)
    assert asyncio.run(kept.find(digests(19))) is None
    opened.close()


def test_a_database_that_fails_is_no_more_than_a_miss(tmp_path: Path) -> None:
    opened, kept = cache(tmp_path)
    with opened.begin(write=True) as connection:
        tables.cached_responses.drop(connection)
    with FakeOpenAI() as fake:
        tab = Tab()
        assert asyncio.run(ask(Door(cache=kept), model(fake.url), tab)).messages[0]["content"] == "hello"
        assert not tab.failures
    kept.close()
    opened.close()


def settings(fake: FakeOpenAI, folder: Path, **more: Any) -> dict[str, Any]:
    shared = {"api_base": fake.url, "api_key": "none", "retries": 0, "price": {"input": "1", "output": "2"}}
    return {
        "teacher": {"name": "openai/teacher", **shared}, "student": {"name": "openai/student", **shared},
        "bank": {"url": f"sqlite:///{folder}/c.db"}, "retrieval": {"k": 0},
        "response_cache": {"enabled": True}, **more,
    }  # fmt: skip


def test_a_cascade_at_temperature_zero_takes_a_step_again_for_nothing(tmp_path: Path) -> None:
    """Also a tool loop, whose ids are new in each run; alone has the same cache, so nothing of it counts as saved."""
    usage, sampling = {"prompt_tokens": 90, "completion_tokens": 20}, {"temperature": 0.0, "staged": "never"}
    with FakeOpenAI([Reply(texts=("",), tool_calls=[("look", '{"at": "bed"}')], ignore_n=True, usage=usage)]) as fake:

        async def run() -> list[Any]:
            async with build(**settings(fake, tmp_path, mode="cascade", sampling=sampling)) as cascade:
                episode, messages, decisions = cascade.episode(), list(ASK), []
                for _ in range(2):
                    answer = await episode.complete(messages, tools=[LOOK])
                    message = answer.choices[0].message.model_dump(exclude_none=True)
                    result = {"role": "tool", "tool_call_id": message["tool_calls"][0]["id"], "content": "a mug"}
                    messages += [message, result]
                    decisions.append(answer.agentcascade)
                return decisions

        first, second = asyncio.run(run()), asyncio.run(run())
    bought = sum(len(d.calls) for d in first)
    assert len(fake.requests) == sum(c.requests for d in first for c in d.calls) == 6
    assert all(c.cached_response for d in second for c in d.calls)
    assert [d.answered_by for d in second] == [d.answered_by for d in first] == ["student"] * 2
    assert [d.samples for d in second] == [d.samples for d in first]
    assert [(d.dollars, d.teacher_dollars, d.saved_dollars) for d in second] == [(0, 0, 0)] * 2
    opened = open_database(f"sqlite:///{tmp_path}/c.db")
    (line,) = Ledger(opened).summary()
    (model_line,) = Ledger(opened).spending()
    opened.close()
    spent = sum((d.dollars for d in first), Decimal(0))
    tokens = sum(c.usage.prompt + c.usage.completion for d in first for c in d.calls)
    assert (line.dollars, line.avoided_dollars, line.cached_calls) == (spent, spent, bought)
    assert line.usage.prompt + line.usage.completion == line.cached_tokens == tokens
    assert (model_line.calls, model_line.cached_calls, model_line.dollars) == (bought, bought, spent)


def test_off_it_is_not_there_and_a_wrong_word_is_an_error(tmp_path: Path) -> None:
    with FakeOpenAI() as fake:
        given_ = settings(fake, tmp_path, mode="teacher", response_cache={})
        with build(**given_) as cascade:
            assert cascade.context.response_cache is None
            for _ in range(2):
                cascade.sync_episode().complete(ASK, temperature=0, response_cache="use")
            with pytest.raises(InvalidRequest, match=r"response_cache is 'always'.*no-store"):
                cascade.sync_episode().complete(ASK, response_cache="always")  # type: ignore[arg-type]
        assert len(fake.requests) == 2
        assert not any("response_cache" in request.body for request in fake.requests)
