"""Dollars per million tokens of the recorded models in the summer of 2023, each with where the figure is from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from agentcascade.envs.recorded import prices
from agentcascade.envs.recorded.prices import Price

OPENAI = "OpenAI's list, 13 June 2023 (8k context)"
GOOGLE = "Vertex AI's list by characters as of January 2024 ($0.25 read, $0.50 written a million), four to a token"
AT_THE_TIME: dict[str, tuple[str, str, str]] = {
    "gpt-4": ("30", "60", OPENAI),
    "gpt-3.5-turbo": ("1.5", "2", OPENAI),
    "gpt-3.5-turbo-retry": ("1.5", "2", OPENAI),
    "text-bison": ("1", "2", GOOGLE),
    "chat-bison": ("1", "2", GOOGLE),
    **prices.OWN,
}


def table(own: Iterable[str] = ()) -> dict[str, Price]:
    """Prices by model; `own` are the user's, as `NAME=INPUT,OUTPUT`, and go first. Raises `ConfigError`."""
    return prices.table(AT_THE_TIME, own)


def price(model: str) -> Mapping[str, str] | None:
    """Of a recorded model, as the configuration holds a price; None where it is unknown."""
    known = AT_THE_TIME.get(model) or AT_THE_TIME.get(model.removesuffix("-demos"))
    return None if known is None else {"input": known[0], "output": known[1]}
