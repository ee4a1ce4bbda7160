"""Models that are asked by OpenAI's Responses: what they are sent, what comes back to them, prices, refusals."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import openai
import pytest

from agentcascade.assembly.components import make_model
from agentcascade.config.sections import ModelConfig
from agentcascade.errors import InvalidRequest, bill_of
from agentcascade.models.litellm import LiteLLMModel
from agentcascade.models.pricing import PriceTable
from agentcascade.models.responses import ResponsesModel
from agentcascade.types import Usage
from tests.provider import Out, Provider
from tests.provider_cases import ASK, KEY, PRICES, ask

TOOLS = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}]
REASONING = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "gAAA"}
LOOK = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "look", "arguments": "{}"}
SEARCHED = {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"type": "search", "query": "x"}}
TEXT = {"type": "message", "id": "msg_1", "role": "assistant", "content": [
    {"type": "output_text", "text": "hello", "annotations": []}]}  # fmt: skip
DETAILS = {"input_tokens_details": {"cached_tokens": 6}, "output_tokens_details": {"reasoning_tokens": 3}}


def response(*items: dict[str, Any], **more: Any) -> dict[str, Any]:
    usage = {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15, **DETAILS}
    return {"id": "resp_1", "object": "response", "status": "completed", "output": list(items), "usage": usage, **more}


def says(*items: dict[str, Any], **more: Any) -> Any:
    def answer(body: dict[str, Any], out: Out) -> None:
        whole = response(*items, **more)
        if body.get("stream"):
            out.events([{"type": f"response.{whole['status']}", "response": whole}], done=False)
        else:
            out.json(whole)

    return answer


def model(url: str, **settings: Any) -> ResponsesModel:
    return ResponsesModel("openai/responses/m", api_base=url, api_key=KEY, retries=0, prices=PRICES, **settings)


@pytest.mark.parametrize("form", ["whole", "streamed"])
class TestCalls:
    async def test_a_chat_request_is_a_responses_request(self, form: str) -> None:
        options: dict[str, Any] = {
            "tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "look"}}, "max_tokens": 9,
            "reasoning_effort": "low", "seed": 3, "user": "u",
            "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {}}},
        }  # fmt: skip
        with Provider(says(TEXT)) as provider:
            got = await ask(model(provider.url, options={"reasoning": {"summary": "auto"}}), form, **options)
        (body,) = provider.bodies
        body.pop("stream", None)
        assert body == {
            "model": "m", "store": False, "user": "u", "max_output_tokens": 9,
            "input": [{"type": "message", "role": "user", "content": [
                {"type": "input_text", "text": ASK[0]["content"]}]}],
            "include": ["reasoning.encrypted_content"], "reasoning": {"effort": "low", "summary": "auto"},
            "tools": [{"type": "function", "strict": False, **TOOLS[0]["function"]}],  # type: ignore[dict-item]
            "tool_choice": {"type": "function", "name": "look"},
            "text": {"format": {"type": "json_schema", "name": "n", "schema": {}}},
        }  # fmt: skip
        assert got.answer.messages[0]["content"] == "hello"
        assert got.answer.usage == Usage(input=4, cached_input=6, output=2, reasoning=3)

    async def test_what_it_thought_comes_back_to_it_in_its_place(self, form: str) -> None:
        with Provider(says(REASONING, SEARCHED, LOOK)) as provider:
            one = model(provider.url)
            answer = (await ask(one, form, tools=TOOLS)).answer.messages[0]
            result = {"role": "tool", "tool_call_id": "call_1", "content": "a bed"}
            await ask(one, form, [*ASK, answer, result], tools=TOOLS)
        kinds = [(i["type"], i.get("encrypted_content")) for i in provider.bodies[1]["input"]]
        assert kinds == [("message", None), ("reasoning", "gAAA"), ("web_search_call", None),
                         ("function_call", None), ("function_call_output", None)]  # fmt: skip

    async def test_a_model_that_does_not_reason_is_asked_without_ciphers(self, form: str) -> None:
        def answer(body: dict[str, Any], out: Out) -> None:
            if body["include"]:
                out.json({"error": {"message": "Encrypted content is not supported with this model."}}, 400)
            else:
                says(TEXT)(body, out)

        with Provider(answer) as provider:
            one = model(provider.url)
            for _ in range(2):
                assert (await ask(one, form)).answer.messages[0]["content"] == "hello"
        assert len(provider.bodies) == 3, "learnt once"

    async def test_a_failed_response_is_an_error_with_its_bill(self, form: str) -> None:
        error = {"code": "server_error", "message": "the model stumbled"}
        with Provider(says(status="failed", error=error)) as provider:
            got = await ask(model(provider.url), form)
        assert "the model stumbled" in str(got.error)
        assert getattr(got.error, "status_code", None) == 500
        assert got.bill.usage.prompt == 10

    async def test_what_responses_cannot_say_is_refused_before_it_is_sent(self, form: str) -> None:
        with Provider(says(TEXT)) as provider:
            got = await ask(model(provider.url), form, [*ASK, {"role": "function", "name": "f", "content": "x"}])
        assert isinstance(got.error, InvalidRequest)
        assert bill_of(got.error) is None
        assert not provider.bodies


async def test_a_program_watching_its_own_client_sees_the_call() -> None:
    from agentcascade.models.endpoint import EndpointQuirks
    from agentcascade.models.openai_client import ClientModel
    from agentcascade.models.responses_calls import responses_calls

    seen: list[str] = []
    with Provider(says(TEXT)) as provider:
        client = openai.AsyncOpenAI(base_url=provider.url, api_key=KEY)
        create = client.responses.create

        async def watched(**arguments: Any) -> Any:
            seen.append(arguments["model"])
            return await create(**arguments)

        endpoint = EndpointQuirks()
        calls = responses_calls(client, endpoint, watched)
        answer = await ClientModel(client, "m", endpoint=endpoint, create=calls).complete(ASK)
    assert seen == ["m"]
    assert answer.messages[0]["content"] == "hello"


def test_names_choose_the_api_and_keep_their_price() -> None:
    def made(name: str) -> Any:
        return make_model(ModelConfig(name=name), len)

    assert isinstance(made("openai/responses/gpt-4.1"), ResponsesModel)
    assert isinstance(made("openai/o1-pro"), ResponsesModel), "it has no other API"
    assert isinstance(made("openai/gpt-5"), LiteLLMModel)
    thousand = Usage(output=1000)
    assert made("openai/responses/gpt-4.1").dollars(thousand) == PriceTable().lookup("openai/gpt-4.1").dollars(thousand)  # type: ignore[union-attr]
    assert made("openai/responses/gpt-4.1").dollars(thousand) == Decimal("0.008")
