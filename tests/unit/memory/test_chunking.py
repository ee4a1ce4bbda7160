"""Histories cut into lines and chunks."""

from __future__ import annotations

import time

from hypothesis import given
from hypothesis import strategies as st

from agentcascade.memory.chunking import pack_chunks, split_turns
from agentcascade.models.tokens import token_counter
from agentcascade.types import Turn

count = token_counter()
turns = st.builds(
    Turn,
    text=st.text(max_size=400),
    speaker=st.sampled_from(["Ann", "Bob"]),
    session=st.sampled_from(["monday", "tuesday"]),
)


@given(st.lists(turns, max_size=12), st.integers(16, 64))
def test_no_line_or_chunk_is_too_long_and_no_word_is_lost(history: list[Turn], limit: int) -> None:
    lines = split_turns(history, count, limit)
    assert "".join("".join(t.text.split()) for t in history) == "".join("".join(x.text.split()) for x in lines)
    chunks = pack_chunks(lines, limit)
    assert [i for c in chunks for i in range(c.start, c.end)] == list(range(len(lines)))
    for chunk in chunks:
        assert len({line.session for line in lines[chunk.start : chunk.end]}) == 1
        assert chunk.tokens == sum(line.tokens for line in lines[chunk.start : chunk.end])
        assert chunk.tokens <= limit or chunk.end == chunk.start + 1


def test_a_short_turn_is_one_line_and_neighbours_share_a_chunk() -> None:
    history = [Turn(id="a", text="I moved to Rome.", speaker="Ann"), Turn(id="b", text="When?", speaker="Bob")]
    lines = split_turns(history, count, 256)
    assert [(line.turn, line.said) for line in lines] == [("a", "Ann: I moved to Rome."), ("b", "Bob: When?")]
    assert [(c.start, c.end) for c in pack_chunks(lines, 256)] == [(0, 2)]


def test_a_long_turn_is_cut_between_sentences() -> None:
    sentences = [f"This is sentence number {i} of a long speech." for i in range(40)]
    lines = split_turns([Turn(id="a", text=" ".join(sentences))], count, 64)
    assert len(lines) > 3
    assert all(line.text.endswith("speech.") and line.tokens <= 64 for line in lines)
    assert {line.turn for line in lines} == {"a"}


def test_a_megabyte_without_a_space_is_cut_in_a_moment() -> None:
    started = time.perf_counter()
    lines = split_turns([Turn(id="a", text="x" * 1_000_000)], count, 256)
    assert sum(line.text.count("x") for line in lines) == 1_000_000
    assert time.perf_counter() - started < 20


def test_what_says_nothing_is_left_out() -> None:
    assert split_turns([Turn(text=""), Turn(text="  \n ")], count, 256) == []
    assert pack_chunks([], 256) == []
