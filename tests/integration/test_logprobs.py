"""Log-probabilities: asked for on request, told where the provider can, and no harm where it cannot."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import openai
import pytest

from agentcascade.actions.base import RegexActions
from agentcascade.cascade import Cascade
from agentcascade.config.load import CascadeConfig
from agentcascade.ledger.ledger import MemoryRecorder
from agentcascade.models.litellm import LiteLLMModel
from agentcascade.models.openai import OpenAIModel
from agentcascade.models.openai_client import ClientModel
from agentcascade.models.scripted import ScriptedModel
from agentcascade.protocols import Verdict
from agentcascade.step.context import StepContext
from agentcascade.types import Situation, Tally
from tests.fake_openai import FakeOpenAI, Reply, Request

ASK = [{"role": "user", "content": "Go on."}]
Start = Callable[..., FakeOpenAI]


def models(fake: FakeOpenAI) -> list[Any]:
    given: dict[str, Any] = {"api_base": fake.url, "api_key": "x"}
    client = openai.AsyncOpenAI(base_url=fake.url, api_key="x", max_retries=0)
    return [LiteLLMModel("openai/m", **given), OpenAIModel("openai/m", **given), ClientModel(client, "m")]


@pytest.mark.parametrize("ignores_n", [False, True])
async def test_every_client_tells_the_mean_of_each_answers_tokens(fake_openai: Start, ignores_n: bool) -> None:
    for model in models(fake_openai([Reply(["hi"], logprobs=(-0.1, -0.3), ignore_n=ignores_n)])):
        completion = await model.complete(ASK, n=3, logprobs=True)
        assert completion.logprobs == pytest.approx([-0.2] * 3)
        assert completion.tokens == (2, 2, 2)


async def test_answers_that_say_nothing_keep_their_numbers(fake_openai: Start) -> None:
    for model in models(fake_openai([Reply([None, "b"], logprobs=(-0.5,))])):
        completion = await model.complete(ASK, n=2, logprobs=True)
        assert (len(completion.messages), completion.logprobs, completion.tokens) == (2, (-0.5, -0.5), (1, 1))


async def test_who_does_not_ask_is_not_told(fake_openai: Start) -> None:
    server = fake_openai([Reply(["hi"], logprobs=(-0.1,))])
    for model in models(server):
        completion = await model.complete(ASK)
        assert (completion.logprobs, completion.tokens) == ((), ())
    assert not [request for request in server.requests if "logprobs" in request.body]


@pytest.mark.parametrize("values", [(), (float("nan"),), (float("-inf"), -0.1)])
async def test_a_provider_that_ignores_it_or_tells_nonsense_is_answered_as_ever(
    fake_openai: Start, values: tuple[float, ...]
) -> None:
    for model in models(fake_openai([Reply(["hi"], logprobs=values)])):
        completion = await model.complete(ASK, n=2, logprobs=True)
        assert [m["content"] for m in completion.messages] == ["hi", "hi"]
        assert not [value for value in completion.logprobs if value is not None]


def refusing(request: Request) -> Reply:
    if "logprobs" not in request.body:
        return Reply(["hi"])
    return Reply(status=400, body={"error": {"message": "'logprobs' is not supported with this model", "code": "x"}})


async def test_a_provider_that_refuses_it_is_asked_again_without_and_never_bothered_with_it_again(
    fake_openai: Start,
) -> None:
    for number in range(3):
        server = fake_openai(refusing)
        model = models(server)[number]
        for _ in range(2):
            completion = await model.complete(ASK, n=2, logprobs=True)
            assert [m["content"] for m in completion.messages] == ["hi", "hi"]
        assert ["logprobs" in request.body for request in server.requests] == [True, False, False]


MAXIMA = {
    "Invalid 'top_logprobs': integer above maximum value. Expected a value <= 5, but got 10 instead.": 5,
    "Requested sample logprobs of 10, which is greater than max allowed: 5": 5,
    "Cannot request more than 5 logprobs.": 5,
    "Invalid 'top_logprobs': 10. Expected an integer in range [0, 5]": 5,
    "Invalid top_logprobs value, the valid range of top_logprobs is [0, 5]": 5,
    "10 is greater than the maximum of 1 - 'logprobs'": 1,
    "top_logprobs: Input should be less than or equal to 8": 8,
    "top_logprobs must be between 0 and 5": 5,
}
"""Refusals of OpenAI, vLLM (two versions), DashScope, DeepSeek, Together, and of servers in Python."""


@pytest.mark.parametrize("words", MAXIMA)
async def test_more_than_are_told_become_the_most_that_are_and_that_is_said_once(
    words: str, fake_openai: Start, caplog: pytest.LogCaptureFixture
) -> None:
    most = MAXIMA[words]

    def bounded(request: Request) -> Reply:
        if request.body.get("top_logprobs", 0) > most:
            return Reply(status=400, body={"error": {"message": words, "code": "x"}})
        return Reply(["hi"], logprobs=(-0.1,))

    for number in range(3):
        server = fake_openai(bounded)
        model = models(server)[number]
        caplog.clear()
        for _ in range(2):
            completion = await model.complete(ASK, logprobs=True, top_logprobs=10)
            assert completion.logprobs == pytest.approx([-0.1])
        await model.complete(ASK, logprobs=True, top_logprobs=1)
        assert [request.body["top_logprobs"] for request in server.requests] == [10, most, most, 1]
        said = [r.getMessage() for r in caplog.records if r.name == "agentcascade.models"]
        assert len(said) == 1
        assert f"at most {most} top_logprobs, 10 were asked for" in said[0]


@pytest.mark.parametrize("words", ["no logprobs above 20", "top_logprobs: 10 is too many", "logprobs <= 10"])
async def test_a_maximum_that_is_not_told_or_not_passed_drops_them(words: str, fake_openai: Start) -> None:
    def refusing_all(request: Request) -> Reply:
        if "top_logprobs" in request.body:
            return Reply(status=400, body={"error": {"message": words, "code": "x"}})
        return Reply(["hi"])

    for number in range(3):
        server = fake_openai(refusing_all)
        await models(server)[number].complete(ASK, logprobs=True, top_logprobs=10)
        assert len(server.requests) == 2


def test_what_the_table_knows_is_not_refused_first() -> None:
    assert LiteLLMModel("xai/grok-4").endpoint.adapt({"top_logprobs": 20}) == {"top_logprobs": 8}
    assert LiteLLMModel("groq/any").endpoint.adapt({"top_logprobs": 20}) == {"top_logprobs": 20}


async def test_another_refusal_is_raised(fake_openai: Start) -> None:
    body = {"error": {"message": "no such model", "code": "x"}}
    server = fake_openai([Reply(status=400, body=body)])
    for model in models(server):
        with pytest.raises(openai.BadRequestError, match="no such model"):
            await model.complete(ASK, logprobs=True)
    assert len(server.requests) == 3


async def test_a_provider_without_them_is_not_asked_for_them(fake_openai: Start) -> None:
    server = fake_openai([Reply(["hi"], usage={"input_tokens": 5, "output_tokens": 1})])
    model = LiteLLMModel("anthropic/claude-sonnet-4-5", api_base=server.root, api_key="x")
    completion = await model.complete(ASK, logprobs=True)
    assert completion.logprobs == ()
    assert "logprobs" not in json.dumps(server.requests[0].body)


class Curious:
    """Keeps what it is told."""

    name = "curious"

    def __init__(self) -> None:
        self.tallies: list[Tally] = []

    def samples(self, situation: Situation) -> int:
        return 3

    def judge(self, situation: Situation, tally: Tally, remaining: int) -> Verdict | None:
        self.tallies.append(tally)
        return None if remaining else Verdict.ACCEPT


def said(action: str, *logprobs: float) -> dict[str, Any]:
    return {"role": "assistant", "content": f"Action: {action}", "logprobs": list(logprobs)}


def cascade(router: Any, script: Any, **settings: Any) -> Cascade:
    config = CascadeConfig.model_validate({"retrieval": {"k": 0}, "sampling": {"staged": "never"}} | settings)
    return Cascade(
        StepContext(
            config=config,
            router=router,
            count=len,
            teacher=ScriptedModel(["Action: look"]),
            student=ScriptedModel(script),
            actions=RegexActions(),
            recorder=MemoryRecorder(),
        )
    )


async def test_a_router_sees_the_mean_of_each_class_whose_samples_are_all_known() -> None:
    router, script = Curious(), [said("go", -0.2), said("go", -0.4, -0.8), "Action: wait"]
    asking = {"sampling": {"logprobs": True, "staged": "never"}}
    await cascade(router, script, mode="cascade", **asking).step(ASK)
    assert router.tallies[-1].logprobs == {"go": pytest.approx((-0.2 - 0.6) / 2)}
    mixed = [said("go", -0.2), "Action: go", said("wait", -1.0)]
    await cascade(router, mixed, mode="cascade", **asking).step(ASK)
    assert router.tallies[-1].logprobs == {"wait": -1.0}
    await cascade(router, script, mode="cascade").step(ASK)
    assert router.tallies[-1].logprobs == {}, "nobody asked for them"


async def test_a_shadow_logs_them() -> None:
    made = cascade(Curious(), [said("go", -0.25, -0.75)], mode="shadow", sampling={"logprobs": True})
    await made.step(ASK)
    await made.settle()
    assert isinstance(made.context.recorder, MemoryRecorder)
    [shadow] = made.context.recorder.shadows
    assert [(s.action, s.logprob, s.tokens) for s in shadow.samples] == [("go", -0.5, 2)] * 3
