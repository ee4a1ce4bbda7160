"""Prices of recorded models: dollars per million tokens of the time, each with where the figure is from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal, InvalidOperation
from typing import NamedTuple

from agentcascade.errors import ConfigError

OWN_CORES = "two cores at $0.05 an hour, tokens per second of Q4_K_M under llama-cpp-python"
MOST = Decimal(100_000)


class Price(NamedTuple):
    """Dollars per million tokens."""

    input: Decimal
    output: Decimal
    source: str

    def dollars(self, input_tokens: int, output_tokens: int) -> Decimal:
        return (self.input * input_tokens + self.output * output_tokens) / 1_000_000


OWN = {
    "qwen2.5-coder-1.5b": ("0.0874", "0.3858", OWN_CORES),  # 159 read and 36 written a second
    "qwen2.5-coder-0.5b": ("0.0503", "0.2315", OWN_CORES),  # 276 and 60
}
"""Of the models that we sampled ourselves"""


def table(known: Mapping[str, tuple[str, str, str]], own: Iterable[str] = ()) -> dict[str, Price]:
    """Prices by model; `own` are the user's, as `NAME=INPUT,OUTPUT`, and go first. Raises `ConfigError`."""
    found = {name: Price(Decimal(i), Decimal(o), source) for name, (i, o, source) in known.items()}
    for text in own:
        name, equals, given = text.partition("=")
        figures = [_figure(figure) for figure in given.split(",")]
        if not name or not equals or len(figures) != 2 or None in figures:
            raise ConfigError(
                f"price {text[:80]!r}: write NAME=INPUT,OUTPUT in dollars per million tokens, e.g. my-model=0.15,0.6"
            )
        found[name] = Price(figures[0] or Decimal(0), figures[1] or Decimal(0), "given by the user")
    return found


def _figure(text: str) -> Decimal | None:
    try:
        value = Decimal(text.strip())
    except InvalidOperation:
        return None
    return value if value.is_finite() and 0 <= value <= MOST else None
