"""Prices of models, in dollars per million tokens: the user's, else litellm's list's, else unknown (never zero)."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from decimal import ROUND_UP, Decimal
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, ValidationError

from agentcascade.errors import ConfigError, InvalidRequest, did_you_mean
from agentcascade.models.provider_hosts import is_at_provider
from agentcascade.models.quirks import LOCAL_PROVIDERS, without_route
from agentcascade.protocols import ChatModel, can_stream
from agentcascade.types import Completion, Delta, Frozen, Message, Usage

if TYPE_CHECKING:
    from agentcascade.config.sections import ModelConfig

MILLION = Decimal(1_000_000)
CACHE_CLASSES = frozenset({"cached_input", "cache_write", "cache_write_1h"})
TOKEN_CLASSES = ("input", "cached_input", "cache_write", "cache_write_1h", "output", "reasoning")


class TokenRates(Frozen):
    """Dollars per million tokens of each class. What has no rate of its own is billed as the class it belongs to."""

    input: Decimal = Field(ge=0, allow_inf_nan=False)
    output: Decimal = Field(ge=0, allow_inf_nan=False)
    cached_input: Decimal | None = Field(default=None, ge=0, allow_inf_nan=False, description="default: input")
    cache_write: Decimal | None = Field(default=None, ge=0, allow_inf_nan=False, description="default: input")
    cache_write_1h: Decimal | None = Field(default=None, ge=0, allow_inf_nan=False, description="default: cache_write")
    reasoning: Decimal | None = Field(default=None, ge=0, allow_inf_nan=False, description="default: output")

    def cost(self, usage: Usage) -> Decimal:
        """Exact US dollars of `usage`, whatever the length of its prompt."""
        write = _default_to(self.cache_write, self.input)
        return (
            usage.input * self.input
            + usage.cached_input * _default_to(self.cached_input, self.input)
            + usage.cache_write * write
            + usage.cache_write_1h * _default_to(self.cache_write_1h, write)
            + usage.output * self.output
            + usage.reasoning * _default_to(self.reasoning, self.output)
        ) / MILLION


class Price(TokenRates):
    """A model's price: dollars per million tokens of each class, and others for requests with a long prompt.

    Args:
        input: Of prompt tokens.
        output: Of answer tokens.
        cached_input: Of prompt tokens that the provider had cached; default: `input`.
        cache_write: Of prompt tokens that are written to its cache; default: `input`.
        cache_write_1h: The same for an hour; default: `cache_write`.
        reasoning: Of answer tokens that are thinking; default: `output`.
        long_context: (tokens, rates) for requests whose prompt has more than so many tokens.

    Raises:
        ValidationError: A price that is negative or no number.

    >>> from agentcascade.types import Usage
    >>> Price(input="0.4", cached_input="0.1", output="1.6").dollars(Usage(input=1000, cached_input=2000, output=50))
    Decimal('0.00068')
    """

    long_context: tuple[tuple[int, TokenRates], ...] = Field(
        default=(), description="(tokens, rates): rates of a request whose prompt has more than so many tokens"
    )

    def dollars(self, usage: Usage) -> Decimal:
        """Exact US dollars of one request with `usage`, in tokens."""
        rates: TokenRates = self
        for tokens, long_rates in sorted(self.long_context, key=lambda tier: tier[0]):
            if usage.prompt > tokens:
                rates = long_rates
        return rates.cost(usage)


class PriceTable:
    """Prices by model name.

    Args:
        overrides: Name of a model → its `Price`, or dollars per million tokens by class. What is not in it is looked up
            in the list that comes with litellm; nothing is fetched.
        listed: False: what is not in `overrides` is not known, whatever its name is.

    Raises:
        ConfigError: An impossible price; it names the model and the class.

    >>> PriceTable({"mine": {"input": 1, "output": 2}}).lookup("hosted_vllm/mine").output
    Decimal('2')
    """

    def __init__(
        self, overrides: Mapping[str, Price | Mapping[str, Any]] | None = None, *, listed: bool = True
    ) -> None:
        self._listed = listed
        self._overrides = {name: _checked_price(name, value) for name, value in (overrides or {}).items()}

    def lookup(self, model: str) -> Price | None:
        """The price of `model` (litellm's name), also without its provider's prefix; None when it is not known."""
        given = self.given(model)
        if given is not None or not self._listed:
            return given
        model = without_route(model)
        provider, _, bare = model.partition("/")
        return _listed_price(model) or _listed_price(bare, provider)

    def given(self, model: str) -> Price | None:
        """The price that `overrides` hold for `model`, also without its provider's prefix."""
        if model in self._overrides:
            return self._overrides[model]
        model = without_route(model)
        return next((self._overrides[n] for n in (model, model.partition("/")[2]) if n in self._overrides), None)


def configured_prices(config: ModelConfig) -> PriceTable:
    """The prices of a configured model: its `price`, else the list's where it is asked at its provider's own address.

    The same rule holds for the models of a wrapped client, in pass-through and before a launched program, where the
    address is in the model's name.
    """
    given = {config.name: dict(config.price)} if config.price else {}
    return PriceTable(given, listed=is_at_provider(config.name, config.api_base))


def with_server_price(config: ModelConfig, prices: Mapping[str, Mapping[str, Any]]) -> ModelConfig:
    """`config` with its model's price of ``server.prices``, unless it has one of its own."""
    price = None if config.price or not prices else PriceTable(prices).given(config.name)
    if price is None:
        return config
    return config.model_copy(update={"price": price.model_dump(exclude={"long_context"}, exclude_none=True)})


def price_of(config: ModelConfig, *aliases: str) -> Callable[[Usage], Decimal | None]:
    """Dollars of usage with a configured model.

    Args:
        config: its `price` comes first, else the list price of its name.
        aliases: further names that it may be listed under.

    Returns:
        A function of `Usage`, which returns None where no price is known.
    """
    prices = configured_prices(config)
    price = next((p for name in (config.name, *aliases) if (p := prices.lookup(name)) is not None), None)
    return lambda usage: None if price is None else price.dollars(usage)


def _default_to(value: Decimal | None, default: Decimal) -> Decimal:
    return default if value is None else value


def _checked_price(model: str, value: Price | Mapping[str, Any]) -> Price:
    if isinstance(value, Price):
        return value
    if not isinstance(value, Mapping):
        raise ConfigError(
            f"price of {model}: give dollars per million tokens by class, e.g. {{input: 0.4, output: 1.6}}"
        )
    for name in value:
        if name not in Price.model_fields:
            raise ConfigError(f"price of {model}: unknown class '{name}': {did_you_mean(name, TOKEN_CLASSES)}")
    try:
        return Price(**{k: str(v) if isinstance(v, float) else v for k, v in value.items()})
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, p['loc']))}: {p['msg']}" for p in error.errors())
        raise ConfigError(f"price of {model} in dollars per million tokens: {problems}") from None


@lru_cache(maxsize=1)
def _price_list() -> dict[str, dict[str, Any]]:
    """litellm's list, read from its file: importing litellm takes seconds, and would fetch a newer one."""
    spec = find_spec("litellm")
    if spec is None or not spec.submodule_search_locations:
        return {}
    path = Path(spec.submodule_search_locations[0]) / "model_prices_and_context_window_backup.json"
    if not path.exists():
        return {}
    entries: dict[str, dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"), parse_float=Decimal)
    return entries


LIST_KEYS = {
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
    entry = _entry(model)
    if entry is None:
        return None
    limit = entry.get("max_output_tokens") or entry.get("max_tokens")  # of some models one, of some the other
    return limit if isinstance(limit, int) and limit > 0 and model != "sample_spec" else None


def speaks_responses_only(model: str) -> bool:
    """Whether litellm's list says that OpenAI serves `model` by its Responses API and no other."""
    entry = _entry(model) if model.startswith("openai/") else None
    return entry is not None and entry.get("mode") == "responses"


def _entry(model: str) -> Mapping[str, Any] | None:
    """The list's entry of `model`; of its bare name only when the entry is the provider's own."""
    model = without_route(model)
    provider, _, bare = model.partition("/")
    entry = _price_list().get(model)
    if entry is None:
        entry = _price_list().get(bare)
        if entry is None or not str(entry.get("litellm_provider", "")).startswith(provider):
            return None
    return entry


@lru_cache(maxsize=256)
def _listed_price(model: str, provider: str = "") -> Price | None:
    """The list's price of `model`; of a bare name only when the entry is the provider's own, as served by it.

    A `hosted_vllm/gpt-4o` is not OpenAI's, whatever it is called.
    """
    entry = _price_list().get(model)
    if entry is None or model == "sample_spec":
        return None
    if provider and not str(entry.get("litellm_provider", "")).startswith(provider):
        return None
    base = _listed_rates(entry, "")
    if base is None:
        return None
    free = entry.get("litellm_provider") in LOCAL_PROVIDERS and not model.endswith("-cloud")
    if not (base["input"] or base["output"] or free):
        # The list writes 0 also for prices that nobody filled in.
        return None
    above = {int(m[1]) for key in entry if (m := re.fullmatch(r"input_cost_per_token_above_(\d+)k_tokens", key))}
    long_rates = {k * 1000: base | (_listed_rates(entry, f"_above_{k}k_tokens") or {}) for k in sorted(above)}
    return Price(**base, long_context=tuple((k, TokenRates(**rates)) for k, rates in long_rates.items()))


def _listed_rates(entry: Mapping[str, Any], suffix: str) -> dict[str, Decimal] | None:
    """Dollars per million tokens under the keys with `suffix`; None without both input and output."""
    listed = {name: entry.get(key + suffix) for name, key in LIST_KEYS.items()}
    rates = {name: Decimal(value) * MILLION for name, value in listed.items() if value is not None}
    if rates.get("input"):  # a cache that is free to read or write is one whose price nobody filled in
        rates = {name: rate for name, rate in rates.items() if rate or name not in CACHE_CLASSES}
    return rates if "input" in rates and "output" in rates else None


@lru_cache(maxsize=256)
def listed_batch_price(model: str) -> Price | None:
    """What litellm's list says that a request of a provider's batch costs; a class that it leaves out at half price.

    None where it says nothing of batches.
    """
    entry = _entry(model)
    ordinary, batched = (_listed_rates(entry, suffix) for suffix in ("", "_batches")) if entry else (None, None)
    if entry is None or ordinary is None or batched is None or (ordinary["output"] and not batched["output"]):
        return None
    rates = _batch_rates(ordinary, batched)
    above = {int(m[1]) for key in entry if (m := re.fullmatch(r"input_cost_per_token_above_(\d+)k_tokens", key))}
    long_rates = []
    for k in sorted(above):
        suffix = f"_above_{k}k_tokens"
        long_ordinary = ordinary | (_listed_rates(entry, suffix) or {})
        long_batched = _batch_rates(long_ordinary, _listed_rates(entry, f"{suffix}_batches") or {})
        long_rates.append((k * 1000, TokenRates(**long_batched)))
    return Price(**rates, long_context=tuple(long_rates))


BATCH_SHARE = Decimal("0.5")
"""Of a price, what a request of a batch costs where the list does not say."""


def _batch_rates(ordinary: Mapping[str, Decimal], batched: Mapping[str, Decimal]) -> dict[str, Decimal]:
    return {name: batched.get(name, rate * BATCH_SHARE) for name, rate in ordinary.items()}


def with_price(model: ChatModel, price: Price | None) -> ChatModel:
    """`model` with completions and estimates that cost what `price` says; `model` itself where no price is given."""
    if price is None:
        return model
    return (_PricedStreaming if can_stream(model) else _Priced)(model, price)


class _Priced:
    def __init__(self, model: ChatModel, price: Price) -> None:
        self._model, self._price = model, price
        self.name, self.supports_n = model.name, model.supports_n

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def dollars(self, usage: Usage) -> Decimal | None:
        return self._price.dollars(usage)

    async def complete(self, messages: Sequence[Message], **options: Any) -> Completion:
        return self._billed(await self._model.complete(messages, **options))

    def _billed(self, completion: Completion) -> Completion:
        return completion.model_copy(update={"dollars": self._price.dollars(completion.usage)})


class BatchPriced:
    """A model at the price of its provider's batches: litellm's list's, else half of what `model` says."""

    def __init__(self, model: ChatModel) -> None:
        self._model = model
        self.name: str = model.name
        self.supports_n: bool = model.supports_n
        self._listed, self._batched = PriceTable().lookup(model.name), listed_batch_price(model.name)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def dollars(self, usage: Usage) -> Decimal | None:
        """What such usage of one request in a batch costs; None where the model's price is not known."""
        ordinary = self._model.dollars(usage)
        if ordinary is None:
            return None
        dollars = ordinary * BATCH_SHARE
        if self._listed is not None and self._batched is not None and self._listed.dollars(usage) == ordinary:
            dollars = self._batched.dollars(usage)  # else the configuration has a price of its own
        return dollars.quantize(Decimal("1e-12"), rounding=ROUND_UP)

    async def complete(self, messages: Sequence[Message], **options: Any) -> Completion:
        """Raises `InvalidRequest`: it is no price of calls at once."""
        raise InvalidRequest(f"{self.name} is priced for batches here: it is not asked at once")


class _PricedStreaming(_Priced):
    async def stream(
        self, messages: Sequence[Message], on_delta: Callable[[Delta], None], **options: Any
    ) -> Completion:
        model: Any = self._model
        return self._billed(await model.stream(messages, on_delta, **options))
