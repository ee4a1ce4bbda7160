"""Prompt cache of a provider: its terms (minimum, block, lifetime, prices), and what it makes of a prompt's bill.

The terms are the quirks table's (`cache_…`) and the model's prices. A prefix that an earlier request sent is read from
the cache at `cached_input`; what is new is written at `cache_write` where writing has a price of its own, else it is
`input`. Whether a provider really hits is its own affair: what is simulated here is a cache that always does.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from itertools import accumulate
from typing import Any, NamedTuple

from agentcascade._util.item_results import ItemResults
from agentcascade._util.line_counter import text_fingerprint
from agentcascade.models.quirks import model_quirks
from agentcascade.models.tokens import TOKENS_PER_MESSAGE, count_messages
from agentcascade.protocols import ChatModel, TokenCounter
from agentcascade.types import Message, Usage

PROBE = 1_000
"""Tokens by whose dollars prices are compared: below every long-context rate."""
NEVER = 2**62
"""Tokens that no prompt has."""


class CacheTerms(NamedTuple):
    """Terms on which a provider caches a model's prompts."""

    minimum: int = 1024
    """Tokens of the shortest prefix that is cached."""
    block: int = 1
    """Tokens in whose multiples a prefix is read."""
    seconds: float = 300.0
    """That it is kept after its last use."""
    writes: bool = False
    """Whether writing has a price of its own."""
    marked: bool = False
    """Whether only what breakpoints (`cache_control`) mark is cached."""

    @property
    def never(self) -> bool:
        """Whether nothing is ever cached."""
        return self.minimum >= NEVER

    def read(self, shared: int) -> int:
        """Tokens that are read from the cache, of a prefix of `shared` tokens that it holds."""
        return shared // self.block * self.block if shared >= self.minimum else 0

    def usage(self, prompt: int, shared: int = 0, *, cached: int | None = None, output: int = 0) -> Usage:
        """Usage of a request, in tokens.

        Args:
            prompt: Of the whole prompt.
            shared: Of its prefix that the cache holds.
            cached: Of its prefix that is cached by this request; default: the whole prompt.
            output: Of the answer.
        """
        kept = prompt if cached is None else min(cached, prompt)
        read = self.read(min(shared, kept))
        written = max(0, kept - read) if self.writes and kept >= self.minimum else 0
        return Usage(input=prompt - read - written, cached_input=read, cache_write=written, output=output)


NO_CACHE = CacheTerms(minimum=NEVER)
"""Terms of a provider that caches nothing."""


def cache_terms(model: ChatModel, *, minimum: int | None = None, breakpoints: bool = True) -> CacheTerms:
    """Terms on which the model's prompts are cached; `NO_CACHE` where reading them is no cheaper or a price is unknown.

    Args:
        model: Its `dollars` say its prices, its name the rest.
        minimum: Tokens of the shortest prefix, in place of the quirks table's.
        breakpoints: Whether requests have breakpoints, of ours or of the caller; without them a provider that caches
            only what is marked caches nothing.
    """
    whole, read, write = (_dollars(model, Usage(**{name: PROBE})) for name in ("input", "cached_input", "cache_write"))
    if whole is None or read is None or write is None or read >= whole:
        return NO_CACHE
    quirks = model_quirks(model.name)
    marked = quirks.prompt_cache == "marked" or (quirks.prompt_cache is None and write > whole)
    if marked and not breakpoints:
        return NO_CACHE
    return CacheTerms(
        quirks.cache_minimum if minimum is None else minimum,
        quirks.cache_block,
        quirks.cache_seconds,
        write != whole,
        marked,
    )


def configured_terms(model: ChatModel, *, caching: bool = True, minimum: int | None = None) -> CacheTerms:
    """Terms of prompts whose only breakpoints are those that a cascade sets, as its `caching` says."""
    return cache_terms(
        model, minimum=minimum, breakpoints=caching and model_quirks(model.name).prompt_cache == "marked"
    )


def _dollars(model: ChatModel, usage: Usage) -> Decimal | None:
    price: object = model.dollars(usage)
    return price if isinstance(price, Decimal) and price.is_finite() and price >= 0 else None


NOTHING_KNOWN: ItemResults[Message] = ItemResults()
MAX_DEPTH = 32
"""Of a message, that is told apart; what is deeper counts by its type."""


class PromptParts(NamedTuple):
    """Fingerprints of a prompt's messages, and the tokens before each of them and behind the last."""

    prints: tuple[int, ...]
    ends: tuple[int, ...]


def prompt_parts(
    messages: Sequence[Message], count: TokenCounter, known: ItemResults[Message] = NOTHING_KNOWN
) -> PromptParts:
    """Parts of a prompt, by which it is compared with what was sent before; `known` are those of its messages."""
    tokens = known.of(message_tokens, messages, count)
    return PromptParts(tuple(known.of(fingerprint, messages)), tuple(accumulate(tokens, initial=0)))


def message_tokens(message: Message, count: TokenCounter) -> int:
    """Tokens of a message in a prompt, with the chat format's own."""
    content = message.get("content")
    if type(content) is str and len(message) == 2:  # role and text: most messages
        return TOKENS_PER_MESSAGE + count(content)
    return count_messages([message], count) - TOKENS_PER_MESSAGE


def fingerprint(message: Message) -> int:
    """Fingerprint of a message, equal for equal ones in this process: long texts are hashed once."""
    content = message.get("content")
    if len(message) == 2 and isinstance(content, str):
        return hash((message.get("role"), text_fingerprint(content)))
    return hash(_frozen(message, 0))


def shared_messages(one: Sequence[int], other: Sequence[int]) -> int:
    """How many messages two prompts begin with alike, by their fingerprints."""
    for i, (a, b) in enumerate(zip(one, other)):
        if a != b:
            return i
    return min(len(one), len(other))


def _frozen(value: Any, depth: int) -> object:
    if isinstance(value, str):
        return text_fingerprint(value)
    if depth > MAX_DEPTH:
        return type(value).__name__
    if isinstance(value, dict):
        return tuple((_frozen(k, depth), _frozen(v, depth + 1)) for k, v in sorted(value.items(), key=_key))
    if isinstance(value, (list, tuple)):
        return tuple(_frozen(v, depth + 1) for v in value)
    return value if isinstance(value, (int, float, bool, type(None))) else repr(value)[:1000]


def _key(item: tuple[Any, Any]) -> str:
    return str(item[0])
