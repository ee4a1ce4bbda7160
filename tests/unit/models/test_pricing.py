"""Prices: exact, the user's own first, unknown rather than zero."""

from __future__ import annotations

import subprocess
import sys
from decimal import Decimal
from typing import Any

import pytest

from agentcascade.errors import ConfigError
from agentcascade.models.pricing import Price, PriceTable, TokenRates
from agentcascade.types import Usage

FULL = Price(input="3", cached_input="0.3", cache_write="3.75", cache_write_1h="6", output="15", reasoning="20")


class TestDollars:
    def test_each_class_at_its_own_rate(self) -> None:
        usage = Usage(input=7, cached_input=11, cache_write=13, cache_write_1h=17, output=19, reasoning=23)
        # 7 × 3 + 11 × 0.3 + 13 × 3.75 + 17 × 6 + 19 × 15 + 23 × 20 = 21 + 3.3 + 48.75 + 102 + 285 + 460
        assert FULL.dollars(usage) == Decimal("0.00092005")

    def test_classes_without_a_rate_take_that_of_their_kind(self) -> None:
        plain = Price(input=2, output=8)
        usage = Usage(input=1, cached_input=1, cache_write=1, cache_write_1h=1, output=1, reasoning=1)
        assert plain.dollars(usage) == Decimal(4 * 2 + 2 * 8) / 1_000_000

    def test_an_hour_of_cache_costs_as_any_write_unless_priced(self) -> None:
        price = Price(input=1, output=1, cache_write=5)
        assert price.dollars(Usage(cache_write_1h=1_000_000)) == 5

    def test_a_cached_price_of_zero_is_kept(self) -> None:
        assert Price(input=2, output=8, cached_input=0).dollars(Usage(cached_input=1000)) == 0

    def test_no_binary_rounding(self) -> None:
        price = PriceTable({"m": {"input": 0.1, "output": 0.2}}).lookup("m")
        assert price is not None
        assert sum((price.dollars(Usage(input=1, output=1)) for _ in range(10)), Decimal(0)) == Decimal("0.000003")

    @pytest.mark.parametrize(("prompt", "expected"), [(1000, "0.001"), (1001, "0.002002"), (5001, "0.015003")])
    def test_long_prompts_change_the_price_of_the_whole_request(self, prompt: int, expected: str) -> None:
        tiers = ((5000, TokenRates(input=3, output=3)), (1000, TokenRates(input=2, output=2)))
        price = Price(input=1, output=1, long_context=tiers)
        assert price.dollars(Usage(input=prompt - 500, cached_input=500)) == Decimal(expected)


class TestList:
    def test_a_known_model_under_both_names(self) -> None:
        table = PriceTable()
        price = table.lookup("openai/gpt-4.1-mini")
        assert price == table.lookup("gpt-4.1-mini")
        assert price is not None
        assert (price.input, price.cached_input, price.output) == (Decimal("0.4"), Decimal("0.1"), Decimal("1.6"))

    def test_cache_writes_of_anthropic(self) -> None:
        price = PriceTable().lookup("anthropic/claude-sonnet-4-5")
        assert price is not None
        assert (price.cached_input, price.cache_write, price.cache_write_1h) == (
            Decimal("0.3"),
            Decimal("3.75"),
            Decimal("6"),
        )

    def test_long_context(self) -> None:
        price = PriceTable().lookup("gemini/gemini-2.5-pro")
        assert price is not None
        below, above = price.dollars(Usage(input=200_000)), price.dollars(Usage(input=200_001))
        assert (below, above) == (Decimal("0.25"), Decimal("0.5000025"))

    @pytest.mark.parametrize(
        "model",
        ["offline/imitator", "openai/nobody-knows-me", "sample_spec", "", "hosted_vllm/gpt-4.1-mini", "gpt-4.1-mini/x"],
    )
    def test_what_is_not_listed_for_this_provider_is_unknown(self, model: str) -> None:
        assert PriceTable().lookup(model) is None

    def test_zero_is_a_price_only_on_the_users_own_machine(self) -> None:
        local = PriceTable().lookup("ollama/llama3")
        assert local is not None
        assert local.dollars(Usage(input=1000, output=1000)) == 0
        assert PriceTable().lookup("gemini/gemini-exp-1114") is None

    def test_reading_the_list_does_not_import_litellm(self) -> None:
        code = (
            "import sys; from agentcascade.models.pricing import PriceTable; "
            "assert PriceTable().lookup('gpt-4.1-mini'); print('litellm' in sys.modules)"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "False"


class TestOwnPrices:
    def test_come_first_and_leave_the_others(self) -> None:
        table = PriceTable({"openai/gpt-4.1-mini": {"input": "1", "output": 2}})
        own, listed = table.lookup("openai/gpt-4.1-mini"), table.lookup("gpt-4.1")
        assert own == Price(input=1, output=2)
        assert listed is not None
        assert listed.input == 2

    def test_match_without_the_provider_too(self) -> None:
        assert PriceTable({"mine": FULL}).lookup("hosted_vllm/mine") == FULL
        assert PriceTable({"hosted_vllm/mine": FULL}).lookup("mine") is None

    def test_long_context_can_be_written_in_a_config(self) -> None:
        given = {"input": 1, "output": 2, "long_context": [[1000, {"input": 2.5, "output": 4}]]}
        price = PriceTable({"m": given}).lookup("m")
        assert price is not None
        assert price.dollars(Usage(input=2000)) == Decimal("0.005")

    @pytest.mark.parametrize(
        ("price", "words"),
        [
            ({"input": -1, "output": 1}, ["dear", "input", "greater than or equal to 0"]),
            ({"input": 1, "output": float("nan")}, ["dear", "output", "finite"]),
            ({"input": 1, "output": "inf"}, ["dear", "output", "finite"]),
            ({"input": "cheap", "output": 1}, ["dear", "input", "decimal"]),
            ({"input": 1}, ["dear", "output", "required"]),
            ({"input": 1, "output": 1, "cached": 0.1}, ["dear", "'cached'", "did you mean 'cached_input'?"]),
            (0.4, ["dear", "per million tokens by class"]),
        ],
    )
    def test_impossible_prices_are_named(self, price: Any, words: list[str]) -> None:
        with pytest.raises(ConfigError) as error:
            PriceTable({"dear": price})
        for word in words:
            assert word in str(error.value)
