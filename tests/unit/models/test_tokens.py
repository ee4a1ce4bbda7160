"""Counting tokens: a real tokenizer, offline."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentcascade.errors import ConfigError
from agentcascade.models import tokens
from agentcascade.models.prompt_cache import fingerprint
from agentcascade.models.tokens import TOKENS_PER_MESSAGE, _bundled, _encoding, count_messages, token_counter

NO_NETWORK = (
    "import socket\n"
    "def refuse(*a, **k): raise OSError('no network here')\n"
    "socket.socket.connect = refuse\n"
    "from agentcascade.models.tokens import token_counter\n"
    "import os, sys\n"
    "print(token_counter()('hello world'), 'litellm' in sys.modules, os.environ.get('TIKTOKEN_CACHE_DIR'))\n"
)


def count_offline(**environment: str) -> str:
    kept = {k: v for k, v in os.environ.items() if k != "TIKTOKEN_CACHE_DIR"}
    done = subprocess.run(
        [sys.executable, "-c", NO_NETWORK], capture_output=True, text=True, check=True, env=kept | environment
    )
    return done.stdout.strip()


def test_known_counts() -> None:
    count = token_counter()
    assert count("") == 0
    assert count("hello world") == 2
    assert count("tiktoken is great!") == 6
    assert count("go to desk 1") < count("go to desk 1 and take the mug from it")


def test_text_that_looks_like_a_control_token_is_text() -> None:
    assert token_counter()("<|endoftext|>") > 1


@pytest.mark.parametrize(
    "text", ["Hello, wörld! 123  \n\n x", "def f(a):\n\treturn '日本語' * 10", "<|endoftext|> it's"]
)
def test_the_bundled_file_gives_what_tiktoken_gives(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import tiktoken

    monkeypatch.delenv("TIKTOKEN_CACHE_DIR", raising=False)
    ours, file = _encoding("cl100k_base").encode_ordinary(text), _bundled("cl100k_base")
    assert "TIKTOKEN_CACHE_DIR" not in os.environ
    assert file is not None
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(file.parent))
    assert ours == tiktoken.get_encoding("cl100k_base").encode_ordinary(text)


def test_one_counter_per_process() -> None:
    assert token_counter() is token_counter()


def test_needs_neither_network_nor_litellm_imported_and_leaves_the_environment() -> None:
    assert count_offline() == "2 False None"


def test_an_empty_cache_of_the_users_own_is_no_obstacle(tmp_path: Path) -> None:
    assert count_offline(TIKTOKEN_CACHE_DIR=str(tmp_path)) == f"2 False {tmp_path}"
    assert list(tmp_path.iterdir()) == []


def test_unknown_encoding() -> None:
    with pytest.raises(ConfigError, match="unknown encoding 'cl100k': did you mean 'cl100k_base'"):
        token_counter("cl100k")


def test_messages_cost_their_text_and_their_frame() -> None:
    count = token_counter()
    messages = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hello world"}]
    assert count_messages(messages, count) == 3 * TOKENS_PER_MESSAGE + count("be brief") + 2


def test_parts_and_tool_calls_count() -> None:
    count = token_counter()
    parts = [{"type": "text", "text": "hello world"}, {"type": "image_url", "image_url": {"url": "data:x"}}]
    assert count_messages([{"role": "user", "content": parts}], count) == 2 * TOKENS_PER_MESSAGE + 2
    call = {"id": "c", "type": "function", "function": {"name": "look", "arguments": '{"at": "desk"}'}}
    said = {"role": "assistant", "content": None, "tool_calls": [call]}
    assert count_messages([said], count) == 2 * TOKENS_PER_MESSAGE + count('look{"at": "desk"}')


@pytest.mark.parametrize("name", ["cl100k_base", "o200k_base"])
def test_a_text_has_the_tokens_of_the_whole_though_its_lines_are_counted_apart(name: str) -> None:
    whole, count = _encoding(name), token_counter(name)
    pieces = [
        "a",
        "Observation:",
        "\nObservation:",
        "Zeile",
        "I'",
        "(",
        "#",
        "ll",
        "\n",
        "\n\n",
        "\r\n",
        " ",
        "  ",
        "\t",
        ".",
        "/",
        "//",
        "…",
        "é",
        "本",
        "7",
        "123",
        "\u2028",
        "\x85",
    ]

    @given(st.lists(st.sampled_from(pieces), max_size=12).map("".join) | st.text(max_size=30))
    def check(text: str) -> None:
        text = text.encode("utf-8", "replace").decode()
        assert count(text) == len(whole.encode_ordinary(text))

    check()


def test_a_banks_step_is_tokenised_once_wherever_it_stands_in_a_window(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, encoded = _encoding("cl100k_base"), []

    class Watched:
        def encode_ordinary(self, text: str) -> list[int]:
            encoded.append(text)
            return list(encoder.encode_ordinary(text))

    monkeypatch.setattr(tokens, "_encoding", lambda name: Watched())
    count = token_counter.__wrapped__("cl100k_base")
    steps = [f"Observation: shelf {i}, a pen.\nThought: on.\nAction: go to shelf {i}{'.' * (i % 2)}" for i in range(20)]
    assert count("\n".join(["Goal: a mug", *steps])) == len(encoder.encode_ordinary("\n".join(["Goal: a mug", *steps])))
    encoded.clear()
    for start in range(16):
        window = "\n".join(["Goal: a mug", *steps[start : start + 5]])
        assert count(window) == len(encoder.encode_ordinary(window))
    assert {text for text in encoded if text != "Goal: a mug\n"} <= {f"Action: go to shelf {i}." for i in range(20)}


SAME_BYTES = [("( ", "\u2028"), ("a(b)c/d ", "\u2861\u2962\u2f63\u2064"), ("ab\x01\0", "\U00016261")]


@pytest.mark.parametrize(("text", "twin"), [*SAME_BYTES, *(pair[::-1] for pair in SAME_BYTES)])
def test_texts_of_the_same_bytes_in_memory_are_told_apart(text: str, twin: str) -> None:
    """CPython hashes a text's bytes, of which a character has one, two or four."""
    whole, count = _encoding("o200k_base"), token_counter.__wrapped__("o200k_base")
    assert hash(text) == hash(twin)
    for said in (text, twin, f"a\nObservation:{text}", f"a\nObservation:{twin}"):
        assert count(said) == len(whole.encode_ordinary(said))
    for one, other in (
        ({"role": "user", "content": text}, {"role": "user", "content": twin}),
        ({"role": "user", "content": [text]}, {"role": "user", "content": [twin]}),
        ({"role": "user", text: 1, "x": 1}, {"role": "user", twin: 1, "x": 1}),
    ):
        assert fingerprint(one) != fingerprint(other)
