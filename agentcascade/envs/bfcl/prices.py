"""Dollars per million tokens of the recorded models in August 2024, each with where the figure is from.

Most are those of BFCL's own leaderboard on the day of the recordings (`eval_runner_helper.py` of gorilla at de8307b);
where it has none, litellm's bundled map says what that provider takes now. Where neither has one, the price is unknown.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from agentcascade.envs.recorded import prices
from agentcascade.envs.recorded.prices import Price

LEADERBOARD = "BFCL's leaderboard, 2024-08-11"
LITELLM = "litellm 1.106.2's cost map, fireworks_ai"

_AT_THE_TIME: dict[str, tuple[str, str, str]] = {
    "gpt-4-1106-preview": ("10", "30", LEADERBOARD),
    "gpt-4-0125-preview": ("10", "30", LEADERBOARD),
    "gpt-4-turbo-2024-04-09": ("10", "30", LEADERBOARD),
    "gpt-4-0613": ("30", "60", LEADERBOARD),
    "gpt-4o-2024-05-13": ("5", "15", LEADERBOARD),
    "gpt-4o-2024-08-06": ("2.5", "10", LEADERBOARD),
    "gpt-4o-mini-2024-07-18": ("0.15", "0.6", LEADERBOARD),
    "gpt-3.5-turbo-0125": ("0.5", "1.5", LEADERBOARD),
    "claude-3-opus-20240229": ("15", "75", LEADERBOARD),
    "claude-3-5-sonnet-20240620": ("3", "15", LEADERBOARD),
    "claude-3-sonnet-20240229": ("3", "15", LEADERBOARD),
    "claude-3-haiku-20240307": ("0.25", "1.25", LEADERBOARD),
    "open-mistral-nemo-2407": ("0.3", "0.3", LEADERBOARD),
    "open-mixtral-8x22b": ("2", "6", LEADERBOARD),
    "open-mixtral-8x7b": ("0.7", "0.7", LEADERBOARD),
    "mistral-large-2407": ("3", "9", LEADERBOARD),
    "mistral-medium-2312": ("2.7", "8.1", LEADERBOARD),
    "mistral-small-2402": ("1", "3", LEADERBOARD),
    "gemini-1.0-pro": ("0.5", "1.5", LEADERBOARD),
    "gemini-1.5-pro-preview-0409": ("3.5", "10.5", LEADERBOARD),
    "gemini-1.5-pro-preview-0514": ("3.5", "10.5", LEADERBOARD),
    "gemini-1.5-flash-preview-0514": ("0.35", "0.53", LEADERBOARD),
    "databricks-dbrx-instruct": ("2.25", "6.75", LEADERBOARD),
    "command-r-plus": ("3", "15", LEADERBOARD),
    "firefunction-v2": ("0.9", "0.9", LITELLM),
    **prices.OWN,
}


def table(own: Iterable[str] = ()) -> dict[str, Price]:
    """Prices by model; `own` are the user's, as `NAME=INPUT,OUTPUT`, and go first. Raises `ConfigError`."""
    return prices.table(_AT_THE_TIME, own)


def price(model: str, known: Mapping[str, Price] | None = None) -> Price | None:
    """Of a recorded model, whichever way it was asked (`-FC`, `-FC-Auto`, `-FC-Any`); None where it is unknown."""
    known = table() if known is None else known
    name = model.removeprefix("recorded/")
    for suffix in ("", "-FC-Auto", "-FC-Any", "-FC"):
        if name.endswith(suffix) and (found := known.get(name.removesuffix(suffix))):
            return found
    return None
