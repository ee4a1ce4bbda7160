"""Counting tokens with a real tokenizer, without a network."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from agentcascade.actions import text_of
from agentcascade.protocols import TokenCounter
from agentcascade.types import Message

PER_MESSAGE = 3
"""Tokens that a chat format adds to each message (OpenAI's figure for its chat models)."""


@lru_cache(maxsize=4)
def token_counter(encoding: str = "cl100k_base") -> TokenCounter:
    """A cached counter over tiktoken's `encoding`; litellm's package carries the file of the default one."""
    encoder = _encoding(encoding)

    @lru_cache(maxsize=20_000)
    def count(text: str) -> int:
        return len(encoder.encode_ordinary(text))

    return count


def _encoding(name: str) -> Any:
    import tiktoken

    spec = find_spec("litellm")
    if "TIKTOKEN_CACHE_DIR" in os.environ or spec is None or not spec.submodule_search_locations:
        return tiktoken.get_encoding(name)
    bundled = Path(spec.submodule_search_locations[0]) / "litellm_core_utils" / "tokenizers"
    os.environ["TIKTOKEN_CACHE_DIR"] = str(bundled)
    try:
        return tiktoken.get_encoding(name)
    finally:
        os.environ.pop("TIKTOKEN_CACHE_DIR", None)


def count_messages(messages: Sequence[Message], count: TokenCounter) -> int:
    """Tokens of a prompt: text, tool calls, and the chat format's own."""
    total = PER_MESSAGE
    for message in messages:
        total += PER_MESSAGE + count(text_of(message))
        for call in message.get("tool_calls") or ():
            function = call.get("function") or {}
            total += count(f"{function.get('name', '')}{function.get('arguments', '')}")
    return total
