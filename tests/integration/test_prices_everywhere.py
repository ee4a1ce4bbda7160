"""One rule of prices on every surface: the user's, else the list at the provider's own host, else unknown."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentcascade import build, wrap
from agentcascade.config.sections import ModelConfig, ServerConfig
from agentcascade.models.pricing import configured_prices
from agentcascade.models.provider_hosts import BASE_VARIABLES, is_at_provider
from agentcascade.server.passthrough import Passthrough
from tests.fake_openai import FakeOpenAI, Reply

ASK: list[Any] = [{"role": "user", "content": "Where is the mug?"}]
PRICES = {"gpt-4.1": {"input": 7, "output": 0}}
REPLY = Reply(texts=("On the desk.",), usage={"prompt_tokens": 1_000_000, "completion_tokens": 1})
OWN: dict[str, Any] = {"price": {"input": 5, "output": 0}}


async def built(fake: FakeOpenAI, prices: Any, teacher: Any) -> Decimal | None:
    section: Any = {"name": "openai/gpt-4.1", "api_base": fake.url, "api_key": "k", "retries": 0, **teacher}
    parts: Any = {"mode": "teacher", "retrieval": {"k": 0}, "bank": {"url": "sqlite:///:memory:"}}
    async with build(None, teacher=section, server={"prices": prices}, **parts) as cascade:
        return (await cascade.episode().complete(ASK)).agentcascade.dollars


async def wrapped(fake: FakeOpenAI, prices: Any, teacher: Any) -> Decimal | None:
    client = openai.AsyncOpenAI(base_url=fake.url, api_key="k", max_retries=0)
    more: Any = {"teacher": {"name": "gpt-4.1", **teacher}} if teacher else {}
    parts: Any = {"mode": "teacher", "retrieval": {"k": 0}, "bank": {"url": "sqlite:///:memory:"}}
    ours: Any = wrap(client, server={"prices": prices}, **parts, **more)
    with ours.agentcascade:
        answer = await ours.chat.completions.create(model="gpt-4.1", messages=ASK)
        dollars: Decimal | None = answer.agentcascade.dollars
        return dollars


async def passed(fake: FakeOpenAI, prices: Any, teacher: Any) -> Decimal | None:
    settings = ServerConfig(upstreams={"openai": fake.url}, prices=prices or {})
    model = Passthrough(settings).teacher("chat", "gpt-4.1", {"authorization": "Bearer k-0123456789"})
    return (await model.complete(ASK)).dollars


@pytest.mark.parametrize("surface", [built, wrapped, passed])
async def test_a_foreign_server_has_the_users_price_or_none(surface: Any) -> None:
    with FakeOpenAI([REPLY]) as fake:
        assert await surface(fake, {}, {}) is None
        assert await surface(fake, PRICES, {}) == 7
        if surface is not passed:
            assert await surface(fake, PRICES, OWN) == 5


async def test_a_student_of_the_client_has_the_servers_price() -> None:
    with FakeOpenAI(
        [Reply(texts=("On the desk.",), usage={"prompt_tokens": 1_000_000, "completion_tokens": 1})]
    ) as fake:
        client = openai.AsyncOpenAI(base_url=fake.url, api_key="k", max_retries=0)
        parts: Any = {"retrieval": {"k": 0}, "bank": {"url": "sqlite:///:memory:"}, "prompt": {"min_demonstrations": 0}}
        ours: Any = wrap(
            client, student="client/small", server={"prices": {"small": {"input": 1, "output": 0}}}, **parts
        )
        with ours.agentcascade:
            answer = await ours.chat.completions.create(model="gpt-4.1", messages=ASK)
    dollars = {call.role: call.dollars for call in answer.agentcascade.calls}
    assert dollars["student"] is not None
    assert dollars["student"] >= 1
    assert dollars.get("teacher") is None


@pytest.mark.parametrize(
    ("name", "base", "own"),
    [
        ("openai/gpt-4.1", None, True),
        ("openai/gpt-4.1", "https://api.openai.com/v1", True),
        ("openai/gpt-4.1", "https://eu.api.openai.com/v1", True),
        ("openai/responses/gpt-5", "https://gateway.example/v1", False),
        ("openai/gpt-4.1", "https://api.openai.com.evil.example/v1", False),
        ("openai/gpt-4.1", "https://notopenai.com/v1", False),
        ("openai/gpt-4.1", "api.openai.com", True),
        ("gpt-4.1", "http://localhost:8000", False),
        ("claude-sonnet-4-5", "https://api.anthropic.com", True),
        ("claude-sonnet-4-5", "https://api.openai.com/v1", False),
        ("anthropic/claude-sonnet-4-5", "http://[::1]:1", False),
        ("anthropic/claude-sonnet-4-5", "http://[::1", False),
        ("deepseek/deepseek-chat", "http://localhost:8000", False),
        ("deepseek/deepseek-chat", None, True),
        ("bedrock/anthropic.claude-v2:1", "https://vpce.internal", True),
    ],
)
def test_whose_host_it_is(name: str, base: str | None, own: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in sum(BASE_VARIABLES.values(), ()):
        monkeypatch.delenv(variable, raising=False)
    assert is_at_provider(name, base) is own
    priced = configured_prices(ModelConfig(name=name, api_base=base)).lookup(name)
    assert (priced is not None) is own or (own and priced is None and name.startswith("bedrock"))


def test_an_address_of_the_environment_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://localhost:4000")
    monkeypatch.setenv("ANTHROPIC_BASE_URL", "http://localhost:4000")
    assert not is_at_provider("openai/gpt-4.1", None)
    assert not is_at_provider("anthropic/claude-sonnet-4-5", None)
    assert is_at_provider("openai/gpt-4.1", "https://api.openai.com/v1")
    assert is_at_provider("groq/any", None)


@given(st.text(max_size=60), st.text(max_size=60))
def test_any_text_is_an_answer(name: str, base: str) -> None:
    assert is_at_provider(name, base) in (True, False)
