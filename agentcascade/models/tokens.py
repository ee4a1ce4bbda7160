"""Token counter: tiktoken's encodings, without a network."""

from __future__ import annotations

import os
import re
from base64 import b64decode
from collections.abc import Sequence
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from types import FunctionType
from typing import Any

from agentcascade._util.recent_cache import RecentCache
from agentcascade.errors import ConfigError, did_you_mean
from agentcascade.messages import text_of
from agentcascade.protocols import TokenCounter
from agentcascade.types import Message

__all__ = ["count_messages", "token_counter"]

TOKENS_PER_MESSAGE = 3
"""That a chat format adds to each message (OpenAI's figure for its chat models)."""
LINE_START = re.compile(r"\n[A-Za-z(#]")
"""Where a text may be cut behind its first character: no token of the encodings below goes over the end of a line and
on with one of these. Prompts are made of the same lines over and over, and those are counted once."""
STEP = "Observation:"
STEP_START = f"\n{STEP}"
"""Where a text is cut first: steps of demonstrations begin so, and stand in many prompts."""
TEXTS, STEPS, LINES = 25_000, 100_000, 100_000
"""Counts remembered in a generation: of whole texts, of steps (a bank's), and of lines, of which most are in a step."""
BUNDLED_FILES = {
    "cl100k_base": "9b5ad71b2ce5302211f9c61530b329a4922fc6a4",
    "o200k_base": "fb374d419588a4632f3f557e76b4b70aebbca790",
}
"""tiktoken's file names for the encodings that litellm carries."""


@lru_cache(maxsize=4)
def token_counter(encoding: str = "cl100k_base") -> TokenCounter:
    """A cached counter over tiktoken's `encoding`; litellm's package carries the file of the default one."""
    encoder = _encoding(encoding)
    # By a text's fingerprint: the texts themselves, which may be long, are not kept.
    texts, steps, lines = (RecentCache[int, int](size) for size in (TEXTS, STEPS, LINES))

    def count_whole(text: str) -> int:
        tokens = lines.get(key := text_fingerprint(text))
        if tokens is None:
            tokens = len(encoder.encode_ordinary(text))
            lines.put(key, tokens)
        return tokens

    def count(text: str) -> int:
        tokens = texts.get(key := text_fingerprint(text))
        if tokens is None:
            first, *following = text.split(STEP_START)
            if following:
                tokens = count_lines(first + "\n") + count_step(following.pop())
                tokens += sum([count_step(step) + count_end(step) for step in following])
            else:
                tokens = count_lines(text)
            texts.put(key, tokens)
        return tokens

    def count_step(step: str) -> int:
        """Of a step without "Observation:" in front and the end of the line behind it."""
        tokens = steps.get(key := text_fingerprint(step))
        if tokens is None:
            tokens = count_lines(STEP + step)
            steps.put(key, tokens)
        return tokens

    def count_end(step: str) -> int:
        """That the end of the line adds to a step: one, but for what forms a token with it."""
        plain = step[-1:].isascii() and step[-1:].isalnum()
        return 1 if plain else count_step(step + "\n") - count_step(step)

    def count_lines(text: str) -> int:
        starts = [0, *[match.start() + 1 for match in LINE_START.finditer(text)], len(text)]
        return sum([count_whole(text[start:end]) for start, end in pairwise(starts)])

    return count if encoding in BUNDLED_FILES else count_whole


def text_fingerprint(text: str) -> int:
    """Fingerprint of a text in this process: its hash, with its length, since "( " and "\\u2028" are the same bytes."""
    return hash(text) ^ len(text)


def _encoding(name: str) -> Any:
    """tiktoken's encoding, of the bundled file where there is one: neither network nor the environment is touched."""
    import tiktoken

    user, bundled = os.environ.get("TIKTOKEN_CACHE_DIR"), _bundled(name)
    if bundled is None or (user and (Path(user) / bundled.name).exists()):
        try:
            return tiktoken.get_encoding(name)
        except ValueError:
            known = tiktoken.list_encoding_names()
            raise ConfigError(f"unknown encoding '{name}': {did_you_mean(name, known)}") from None

    constructor = import_module("tiktoken_ext.openai_public").ENCODING_CONSTRUCTORS[name]
    # The constructor as it is, but for where it looks for the function that would load the file from an address.
    names = {**constructor.__globals__, "load_tiktoken_bpe": lambda *_, **__: _ranks(bundled)}
    offline = FunctionType(constructor.__code__, names)
    return tiktoken.Encoding(**offline())


def _ranks(path: Path) -> dict[bytes, int]:
    """Tokens and their ranks, as tiktoken's files hold them."""
    lines = (line.split() for line in path.read_bytes().splitlines() if line)
    return {b64decode(token): int(rank) for token, rank in lines}


def _bundled(name: str) -> Path | None:
    """The file of encoding `name` inside litellm's package, where there is one (tiktoken names it by its address)."""
    spec = find_spec("litellm")
    if name not in BUNDLED_FILES or spec is None or not spec.submodule_search_locations:
        return None
    path = Path(spec.submodule_search_locations[0], "litellm_core_utils", "tokenizers", BUNDLED_FILES[name])
    return path if path.exists() else None


def count_messages(messages: Sequence[Message], count: TokenCounter) -> int:
    """Tokens of a prompt: text, tool calls, and the chat format's own."""
    total = TOKENS_PER_MESSAGE
    for message in messages:
        total += TOKENS_PER_MESSAGE + count(text_of(message))
        for call in message.get("tool_calls") or ():
            function = call.get("function") or {}
            total += count(f"{function.get('name', '')}{function.get('arguments', '')}")
    return total
