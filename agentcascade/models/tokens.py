"""Token counter: tiktoken's encodings, without a network."""

from __future__ import annotations

import os
from binascii import a2b_base64
from collections.abc import Sequence
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import FunctionType
from typing import Any

from agentcascade._util.line_counter import LineCounter
from agentcascade.errors import ConfigError, did_you_mean
from agentcascade.messages import text_of
from agentcascade.protocols import TokenCounter
from agentcascade.types import Message

__all__ = ["count_messages", "token_counter"]

TOKENS_PER_MESSAGE = 3
"""That a chat format adds to each message (OpenAI's figure for its chat models)."""
BUNDLED_FILES = {
    "cl100k_base": "9b5ad71b2ce5302211f9c61530b329a4922fc6a4",
    "o200k_base": "fb374d419588a4632f3f557e76b4b70aebbca790",
}
"""tiktoken's file names for the encodings that litellm carries."""


@lru_cache(maxsize=4)
def token_counter(encoding: str = "cl100k_base") -> TokenCounter:
    """A cached counter over tiktoken's `encoding`; litellm's package carries the file of the default one."""
    counter = LineCounter(_encoding(encoding).encode_ordinary)
    return counter if encoding in BUNDLED_FILES else counter.of_whole


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
    words = path.read_bytes().split()
    return dict(zip(map(a2b_base64, words[::2]), map(int, words[1::2])))


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
