"""The contract of the model adapters: the cases of `provider_cases`, and what a hostile or failing server may cost."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from agentcascade._util.ports import free_port
from agentcascade.errors import bill_of
from agentcascade.models import http_limits, response_reader
from agentcascade.models.openai_client import ClientModel
from agentcascade.models.response_reader import ResponseReader
from agentcascade.server.errors import explain
from agentcascade.types import Usage
from tests import anthropic_shaped
from tests.provider import BLOCK, Out, Provider, last, part, whole
from tests.provider_cases import ADAPTERS, ASK, CASES, CHAT, FORMS, KEY, PRICE, Case, ask, refuses, says


def tables() -> list[Any]:
    return [
        pytest.param(case, form, name, id=f"{case.name}-{form}-{name}")
        for case in CASES
        for form in case.forms
        for name in case.adapters
    ]


@pytest.mark.parametrize(("case", "form", "adapter"), tables())
async def test_the_contract(case: Case, form: str, adapter: str) -> None:
    with Provider(case.answer) as provider:
        got = await ask(ADAPTERS[adapter](provider.url), form, case.messages, **case.options)
    case.check(got, provider)


async def not_redirected(adapter: str, form: str, status: int) -> None:
    """Neither key nor content reaches another origin, and nothing is billed."""
    with Provider(says({"content": "stolen"}), host="127.0.0.2") as thief:
        to = {"location": f"{thief.url}/chat/completions"}
        with Provider(lambda b, o: o.json({}, status, to)) as provider:
            got = await ask(ADAPTERS[adapter](provider.url), form)
    assert not thief.bodies
    assert not thief.headers
    assert "redirects to http://127.0.0.2" in str(got.error)
    assert got.error is not None
    assert bill_of(got.error) is None


@pytest.mark.parametrize("status", [301, 302, 303, 308])
@pytest.mark.parametrize("form", FORMS)
async def test_no_status_redirects_to_another_origin(form: str, status: int) -> None:
    await not_redirected(next(iter(ADAPTERS)), form, status)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("adapter", ADAPTERS)
class TestBounds:
    """What a hostile server may cost: neither memory nor secrets."""

    @pytest.fixture(autouse=True)
    def small(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(http_limits, "MAX_BODY", 2 * 2**20)
        monkeypatch.setattr(http_limits, "MAX_EVENT", 2**20)
        monkeypatch.setattr(response_reader, "MAX_CHUNKS", 2_000)

    @pytest.mark.parametrize("kind", ["application/json", "text/event-stream"])
    async def test_an_endless_body_is_not_read_on(self, adapter: str, form: str, kind: str) -> None:
        with Provider(lambda b, o: o.endless(BLOCK, kind, provider.stopped)) as provider:
            got = await ask(ADAPTERS[adapter](provider.url), form)
        assert "MiB" in str(got.error), repr(got.error)
        assert got.bill.lost == 1

    @pytest.mark.parametrize("kind", ["application/json", "text/event-stream"])
    async def test_a_body_that_swells_is_not_unpacked(self, adapter: str, form: str, kind: str) -> None:
        with Provider(lambda b, o: o.bomb(kind)) as provider:
            got = await ask(ADAPTERS[adapter](provider.url), form)
        assert "MiB" in str(got.error), repr(got.error)

    async def test_other_codings_than_those_asked_for_are_refused(self, adapter: str, form: str) -> None:
        odd = {"content-type": "application/json", "content-encoding": "br"}
        with Provider(lambda b, o: o.raw(b"\x8b\x02\x80", 200, odd)) as provider:
            got = await ask(ADAPTERS[adapter](provider.url), form)
        assert "encoded as 'br'" in str(got.error)
        assert provider.headers[0]["accept-encoding"] == "gzip, deflate"

    async def test_gzip_is_read(self, adapter: str, form: str) -> None:
        import gzip
        import json

        own = adapter == "messages"
        said = whole({"content": "hello"})
        data = json.dumps(anthropic_shaped.answer(said) if own else said).encode()
        if form == "streamed":
            chunks = [part({"role": "assistant", "content": "hello"}), part({}, "stop"), last()]
            events = anthropic_shaped.events(chunks, True) if own else chunks
            data = b"".join(b"data: " + json.dumps(c).encode() + b"\n\n" for c in events)
        kind = "application/json" if form == "whole" else "text/event-stream"
        headers = {"content-type": kind, "content-encoding": "gzip"}
        with Provider(lambda b, o: o.raw(gzip.compress(data), 200, headers)) as provider:
            got = await ask(ADAPTERS[adapter](provider.url), form)
        assert got.answer.messages[0]["content"] == "hello"

    async def test_chunks_without_end(self, adapter: str, form: str) -> None:
        if form == "whole":
            return
        with Provider(lambda b, o: o.events(part({"content": "w "}) for _ in range(10_000))) as provider:
            got = await ask(ADAPTERS[adapter](provider.url), form)
        assert "chunks" in str(got.error) or "MiB" in str(got.error)
        assert got.bill.usage.completion >= 1_900, "what came is paid for"

    async def test_no_redirect_to_another_origin(self, adapter: str, form: str) -> None:
        await not_redirected(adapter, form, 307)

    async def test_a_redirect_at_the_same_origin_is_followed(self, adapter: str, form: str) -> None:
        def answer(body: dict[str, Any], out: Out) -> None:
            if len(provider.bodies) == 1:
                out.json({}, 308, {"location": "?moved=1"})
            else:
                says({"content": "hello"})(body, out)

        with Provider(answer) as provider:
            got = await ask(ADAPTERS[adapter](provider.url), form)
        assert got.answer.messages[0]["content"] == "hello"

    async def test_redirects_in_a_circle_are_the_providers_fault(self, adapter: str, form: str) -> None:
        with Provider(lambda b, o: o.json({}, 307, {"location": "?again"})) as provider:
            got = await ask(ADAPTERS[adapter](provider.url), form)
        assert got.error is not None
        assert explain(got.error).status == 502


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("adapter", ADAPTERS)
class TestTimeouts:
    async def test_nobody_listens(self, adapter: str, form: str) -> None:
        got = await ask(ADAPTERS[adapter](f"http://127.0.0.1:{free_port()}/v1"), form)
        assert isinstance(got.error, Exception)
        assert bill_of(got.error) is None, "nothing was sent"

    async def test_a_call_that_is_cancelled_may_be_billed(self, adapter: str, form: str) -> None:
        with Provider(lambda b, o: (provider.stopped.wait(90), None)[1]) as provider:
            asking = asyncio.ensure_future(ask(ADAPTERS[adapter](provider.url), form))
            await asyncio.to_thread(provider.reached.wait, 15)
            asking.cancel()
            got = await asking
        assert isinstance(got.error, asyncio.CancelledError)
        assert (got.bill.lost, got.bill.calls, got.bill.usage) == (1, 1, Usage())

    async def test_a_first_byte_that_is_late(self, adapter: str, form: str) -> None:
        with Provider(lambda b, o: (provider.stopped.wait(90), None)[1]) as provider:
            model = ADAPTERS[adapter](provider.url)
            if form == "streamed" or adapter != "by address":
                with pytest.raises(TimeoutError) as raised:
                    await asyncio.wait_for(model.complete(ASK) if form == "whole" else model.stream(ASK, print), 1)
                error: BaseException = raised.value
            else:
                got = await ask(model, form, timeout=1)
                assert got.error is not None
                error = got.error
        bill = bill_of(error)
        assert bill is not None
        assert bill.lost == 1


@pytest.mark.parametrize("adapter", ADAPTERS)
class TestParallel:
    """Requests for one sample each, where a server takes no `n`."""

    async def test_one_that_fails_leaves_the_others_and_their_bill(self, adapter: str) -> None:
        for failing, n in ((2, 2), (1, 3), (2, 3)):

            def answer(body: dict[str, Any], out: Out, failing: int = failing) -> None:
                if len(provider.bodies) == failing:
                    out.json({"error": {"message": "overloaded"}}, 500)
                else:
                    out.json(whole({"content": "hello"}))

            with Provider(answer) as provider:
                model = ADAPTERS[adapter](provider.url)
                model.supports_n = False
                got = await ask(model, "whole", n=n)
            assert [m["content"] for m in got.answer.messages] == ["hello"] * (n - 1)
            assert got.answer.usage == Usage(input=10 * (n - 1), output=2 * (n - 1))

    async def test_the_first_answer_is_kept_when_those_after_an_ignored_n_fail(self, adapter: str) -> None:
        if adapter not in CHAT:
            return  # there is no n to ignore

        def answer(body: dict[str, Any], out: Out) -> None:
            if "n" in body:
                out.json(whole({"content": "hello"}))
            else:
                out.json({"error": {"message": "overloaded"}}, 500)

        with Provider(answer) as provider:
            got = await ask(ADAPTERS[adapter](provider.url), "whole", n=2)
        assert [m["content"] for m in got.answer.messages] == ["hello"]
        assert got.answer.usage == Usage(input=10, output=2)

    async def test_each_request_has_its_own_price_tier(self, adapter: str) -> None:
        usage = {"prompt_tokens": 800, "completion_tokens": 10, "total_tokens": 810}
        with Provider(lambda b, o: o.json(whole({"content": "hello"}, usage=usage))) as provider:
            model = ADAPTERS[adapter](provider.url)
            model.supports_n = False
            got = await ask(model, "whole", n=3)
        assert got.answer.dollars == 3 * PRICE.dollars(Usage(input=800, output=10))

    async def test_a_cancelled_fan_out_hands_over_what_came_and_what_was_lost(self, adapter: str) -> None:
        def answer(body: dict[str, Any], out: Out) -> None:
            if len(provider.bodies) == 1:
                out.json(whole({"content": "hello"}))
            else:
                provider.stopped.wait(90)

        with Provider(answer) as provider:
            model = ADAPTERS[adapter](provider.url)
            model.supports_n = False
            came, read = asyncio.Event(), ResponseReader.read

            def read_and_tell(reader: ResponseReader, response: Any) -> Any:
                answer = read(reader, response)
                came.set()
                return answer

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(ResponseReader, "read", read_and_tell)
                asking = asyncio.ensure_future(ask(model, "whole", n=3))
                await asyncio.wait_for(came.wait(), 60)
                await asyncio.to_thread(provider.all_reached.wait, 15)
                asking.cancel()
                got = await asking
        assert isinstance(got.error, asyncio.CancelledError)
        assert (got.bill.lost, got.bill.calls, got.bill.usage) == (2, 3, Usage(input=10, output=2))


@pytest.mark.parametrize("adapter", ADAPTERS)
async def test_a_stream_that_is_cancelled_hands_over_what_was_streamed(adapter: str) -> None:
    def answer(body: dict[str, Any], out: Out) -> None:
        def chunks() -> Iterator[Any]:
            yield part({"role": "assistant", "content": "word " * 50})
            provider.stopped.wait(90)

        out.events(chunks())

    seen = asyncio.Event()
    with Provider(answer) as provider:
        model = ADAPTERS[adapter](provider.url)
        asking = asyncio.ensure_future(model.stream(ASK, lambda _: seen.set()))
        await asyncio.wait_for(seen.wait(), 60)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError) as raised:
            await asking
    bill = bill_of(raised.value)
    assert bill is not None
    assert bill.usage.completion >= 50
    assert (bill.lost, bill.estimated) == (0, True)


@pytest.mark.parametrize("adapter", ["by address", "client", "sync client"])
async def test_a_refusal_is_learnt_once(adapter: str) -> None:
    with Provider(refuses("seed", "seed: Extra inputs are not permitted", 422)) as provider:
        model = ADAPTERS[adapter](provider.url)
        for _ in range(3):
            await model.complete(ASK, seed=3)
    assert ["seed" in b for b in provider.bodies] == [True, False, False, False]


async def test_the_programs_own_client_keeps_its_hooks_and_gets_none_of_ours() -> None:
    seen: list[str] = []

    async def own(response: Any) -> None:
        seen.append(str(response.status_code))

    http = openai.DefaultAsyncHttpxClient(event_hooks={"response": [own]})
    with Provider(says({"content": "hello"})) as provider:
        made = openai.AsyncOpenAI(base_url=provider.url, api_key=KEY, http_client=http)
        await ClientModel(made, "m").complete(ASK)
        assert seen == ["200"]
        assert http.event_hooks == {"request": [], "response": [own]}
        await made.chat.completions.create(model="m", messages=ASK)  # type: ignore[arg-type]
    assert seen == ["200", "200"]
