"""A provider's cache by its terms: never cheaper than all from the cache, never dearer than what writing all costs."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentcascade import ScriptedModel
from agentcascade.models.pricing import Price, PriceTable
from agentcascade.models.prompt_cache import NO_CACHE, CacheTerms, cache_terms, fingerprint, shared_messages
from agentcascade.types import Usage

OPENAI = Price(input="2", cached_input="0.5", output="8")
CLAUDE = Price(input="3", cached_input="0.3", cache_write="3.75", output="15")


def model(name: str, price: Price | None) -> ScriptedModel:
    return ScriptedModel(["x"], name=name, price=price)


terms = st.builds(
    CacheTerms,
    minimum=st.integers(0, 5000),
    block=st.sampled_from([1, 16, 64, 128]),
    writes=st.booleans(),
    marked=st.booleans(),
)
counts = st.integers(0, 300_000)


@given(terms, counts, counts, st.one_of(st.none(), counts), st.sampled_from([OPENAI, CLAUDE]))
def test_a_cache_costs_no_less_than_reading_all_and_no_more_than_writing_all(
    cache: CacheTerms, prompt: int, shared: int, cached: int | None, price: Price
) -> None:
    usage = cache.usage(prompt, shared, cached=cached)
    assert usage.prompt == prompt, "every token is in one class"
    assert price.dollars(Usage(cached_input=prompt)) <= price.dollars(usage)
    most = Usage(cache_write=prompt) if cache.writes else Usage(input=prompt)
    assert price.dollars(usage) <= price.dollars(most)
    assert usage.cached_input <= min(shared, prompt)
    assert usage.cached_input % cache.block == 0
    if not cache.writes:
        assert price.dollars(usage) <= price.dollars(Usage(input=prompt)), "a cache that is free to write only saves"
    warmer = cache.usage(prompt, shared + 1000, cached=cached)
    assert price.dollars(warmer) <= price.dollars(usage), "the more it holds, the less it costs"


@pytest.mark.parametrize(
    ("name", "price", "expected"),
    [
        ("openai/gpt-4.1", OPENAI, CacheTerms(1024, 128, 600.0)),
        ("openai/gpt-6", CLAUDE, CacheTerms(1024, 128, 600.0, writes=True)),
        ("anthropic/claude-sonnet-4-5", CLAUDE, CacheTerms(1024, 1, 300.0, writes=True, marked=True)),
        ("bedrock/eu.anthropic.claude-opus-4-6-v1", CLAUDE, CacheTerms(4096, 1, 300.0, writes=True, marked=True)),
        ("acme/one", CLAUDE, CacheTerms(1024, 1, 300.0, writes=True, marked=True)),
        ("acme/one", OPENAI, CacheTerms(1024, 1, 300.0)),
        ("acme/one", Price(input="1", output="1"), NO_CACHE),
        ("acme/one", None, NO_CACHE),
    ],
)
def test_the_terms_are_the_quirks_and_the_prices(name: str, price: Price | None, expected: CacheTerms) -> None:
    assert cache_terms(model(name, price)) == expected
    if expected.marked:
        assert cache_terms(model(name, price), breakpoints=False) == NO_CACHE


def test_a_listed_cache_price_of_nothing_is_one_that_nobody_filled_in() -> None:
    listed = PriceTable().lookup("deepseek/deepseek-chat")
    assert listed is not None
    assert listed.input > 0
    assert listed.cache_write is None
    assert listed.dollars(Usage(cache_write=1000)) == listed.dollars(Usage(input=1000)) > 0
    assert listed.cached_input is not None
    assert 0 < listed.cached_input < listed.input


@pytest.mark.parametrize("value", [{"a": [1, {"b": None}]}, "text", [1.5, "x"], 3])
def test_equal_messages_have_equal_fingerprints(value: Any) -> None:
    one, other = ({"role": "user", "content": value} for _ in range(2))
    assert fingerprint(one) == fingerprint(other) == fingerprint(dict(reversed(one.items())))
    assert fingerprint(one) != fingerprint({**one, "name": "x"})
    deep: Any = []
    for _ in range(5000):
        deep = [deep]
    assert isinstance(fingerprint({"role": "user", "content": deep}), int)
    assert shared_messages([1, 2, 3], [1, 2, 4, 5]) == 2 == shared_messages([1, 2], [1, 2, 3])
    assert Decimal(shared_messages([], [1])) == 0
