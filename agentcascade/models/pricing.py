"""What a token costs: the user's own table first, then litellm's bundled list, else unknown (never zero)."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, ValidationError

from agentcascade.errors import ConfigError, did_you_mean
from agentcascade.types import Frozen, Usage

if TYPE_CHECKING:
    from agentcascade.config.sections import ModelConfig

MILLION = Decimal(1_000_000)
CLASSES = ("input", "cached_input", "cache_write", "cache_write_1h", "output", "reasoning")


class Rates(Frozen):
    """Dollars per million tokens of each class. What has no rate of its own is billed as the class it belongs to."""

    input: Decimal = Field(ge=0, allow_inf_nan=False)
    output: Decimal = Field(ge=0, allow_inf_nan=False)
    cached_input: Decimal | None = Field(default=None, ge=0, allow_inf_nan=False, description="default: input")
    cache_write: Decimal | None = Field(default=None, ge=0, allow_inf_nan=False, description="default: input")
    cache_write_1h: Decimal | None = Field(default=None, ge=0, allow_inf_nan=False, description="default: cache_write")
    reasoning: Decimal | None = Field(default=None, ge=0, allow_inf_nan=False, description="default: output")

    def bill(self, usage: Usage) -> Decimal:
        """Exact dollars."""
        write = _or(self.cache_write, self.input)
        return (
            usage.input * self.input
            + usage.cached_input * _or(self.cached_input, self.input)
            + usage.cache_write * write
            + usage.cache_write_1h * _or(self.cache_write_1h, write)
            + usage.output * self.output
            + usage.reasoning * _or(self.reasoning, self.output)
        ) / MILLION


class Price(Rates):
    """A model's rates, and those that replace them for requests with a long prompt."""

    long_context: tuple[tuple[int, Rates], ...] = Field(
        default=(), description="(tokens, rates): rates of a request whose prompt has more than so many tokens"
    )

    def dollars(self, usage: Usage) -> Decimal:
        """What one request costs."""
        rates: Rates = self
        for above, long in sorted(self.long_context, key=lambda tier: tier[0]):
            if usage.prompt > above:
                rates = long
        return rates.bill(usage)


class PriceTable:
    """Prices by model name. `overrides` maps names to a `Price` or to dollars per million tokens by class.

    Raises `ConfigError` naming the model and the class of an impossible price.
    """

    def __init__(self, overrides: Mapping[str, Price | Mapping[str, Any]] | None = None) -> None:
        self._own = {name: _price(name, value) for name, value in (overrides or {}).items()}

    def lookup(self, model: str) -> Price | None:
        """The price of `model`, tried as it is and without its provider's prefix; None when it is not known."""
        provider, _, bare = model.partition("/")
        for name in (model, bare):
            if name in self._own:
                return self._own[name]
        return _listed(model) or _listed(bare, provider)


def price_of(config: ModelConfig, *aliases: str) -> Callable[[Usage], Decimal | None]:
    """Dollars of usage with a configured model.

    Args:
        config: its `price` comes first, else the list price of its name.
        aliases: further names that it may be listed under.

    Returns:
        A function of `Usage`, which returns None where no price is known.
    """
    prices = PriceTable({config.name: dict(config.price)} if config.price else {})
    price = next((found for name in (config.name, *aliases) if (found := prices.lookup(name)) is not None), None)
    return lambda usage: None if price is None else price.dollars(usage)


def _or(value: Decimal | None, default: Decimal) -> Decimal:
    return default if value is None else value


def _price(model: str, value: Price | Mapping[str, Any]) -> Price:
    if isinstance(value, Price):
        return value
    if not isinstance(value, Mapping):
        raise ConfigError(
            f"price of {model}: give dollars per million tokens by class, e.g. {{input: 0.4, output: 1.6}}"
        )
    for name in value:
        if name not in Price.model_fields:
            raise ConfigError(f"price of {model}: unknown class '{name}': {did_you_mean(name, CLASSES)}")
    try:
        return Price(**{k: str(v) if isinstance(v, float) else v for k, v in value.items()})
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, p['loc']))}: {p['msg']}" for p in error.errors())
        raise ConfigError(f"price of {model} in dollars per million tokens: {problems}") from None


@lru_cache(maxsize=1)
def _list() -> dict[str, dict[str, Any]]:
    """litellm's list, read from its file: importing litellm takes seconds, and would fetch a newer one."""
    spec = find_spec("litellm")
    if spec is None or not spec.submodule_search_locations:
        return {}
    path = Path(spec.submodule_search_locations[0]) / "model_prices_and_context_window_backup.json"
    if not path.exists():
        return {}
    entries: dict[str, dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"), parse_float=Decimal)
    return entries


KEYS = {
    "input": "input_cost_per_token",
    "output": "output_cost_per_token",
    "cached_input": "cache_read_input_token_cost",
    "cache_write": "cache_creation_input_token_cost",
    "cache_write_1h": "cache_creation_input_token_cost_above_1hr",
    "reasoning": "output_cost_per_reasoning_token",
}


@lru_cache(maxsize=256)
def max_output_tokens(model: str) -> int | None:
    """The most tokens of one answer that litellm's list gives `model`, tried like its price; None: not known."""
    provider, _, bare = model.partition("/")
    entry = _list().get(model)
    if entry is None:
        entry = _list().get(bare)
        if entry is None or not str(entry.get("litellm_provider", "")).startswith(provider):
            return None
    limit = entry.get("max_output_tokens") or entry.get("max_tokens")  # of some models one, of some the other
    return limit if isinstance(limit, int) and limit > 0 and model != "sample_spec" else None


FREE = {"ollama", "lemonade"}
"""Providers that run on the user's own machine: their listed 0 is a price."""


@lru_cache(maxsize=256)
def _listed(model: str, provider: str = "") -> Price | None:
    """The list's price of `model`; of a bare name only when the entry is the provider's own, as served by it.

    A `hosted_vllm/gpt-4o` is not OpenAI's, whatever it is called.
    """
    entry = _list().get(model)
    if entry is None or model == "sample_spec":
        return None
    if provider and not str(entry.get("litellm_provider", "")).startswith(provider):
        return None
    base = _rates(entry, "")
    if base is None:
        return None
    free = entry.get("litellm_provider") in FREE and not model.endswith("-cloud")
    if not (base["input"] or base["output"] or free):
        # The list writes 0 also for prices that nobody filled in.
        return None
    above = {int(m[1]) for key in entry if (m := re.fullmatch(r"input_cost_per_token_above_(\d+)k_tokens", key))}
    tiers = tuple((k * 1000, Rates(**(base | (_rates(entry, f"_above_{k}k_tokens") or {})))) for k in sorted(above))
    return Price(**base, long_context=tiers)


def _rates(entry: Mapping[str, Any], suffix: str) -> dict[str, Decimal] | None:
    """Dollars per million tokens under the keys with `suffix`; None without both input and output."""
    found = {name: Decimal(v) * MILLION for name, key in KEYS.items() if (v := entry.get(key + suffix)) is not None}
    return found if "input" in found and "output" in found else None
