"""Histories without a database: what is dropped from memory is read again, and says what a database would say."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentcascade.errors import InvalidRequest
from agentcascade.memory.index import expected_bytes
from agentcascade.memory.live_index import HistoryStore, InMemoryHistories
from agentcascade.storage import open_database
from agentcascade.storage.histories import Histories
from agentcascade.types import Turn
from tests.memory_parts import make_memory


@pytest.fixture(params=["process", "SQLite"])
def kept(request: Any, tmp_path: Path) -> Iterator[HistoryStore | None]:
    if request.param == "process":
        yield None
        return
    with closing(open_database(f"sqlite:///{tmp_path}/m.db")) as database:
        yield Histories(database)


async def test_more_histories_than_are_held_are_all_remembered(kept: HistoryStore | None) -> None:
    with make_memory("low", stored=kept, max_histories=3) as memory:
        for i in range(20):
            await memory.append(f"user {i}", [Turn(id="t0", text=f"My dog is called Rex{i}.")])
        for i in range(20):
            await memory.append(f"user {i}", [Turn(id="t1", text=f"My cat is called Tom{i}.")])
        for i in range(20):
            for animal, name in (("dog", f"Rex{i}"), ("cat", f"Tom{i}")):
                recall = await memory.recall(f"How is my {animal} called?", f"user {i}")
                assert name in recall.text, (i, recall.text)
        assert await memory.remove("user 0")
        assert not await memory.remove("user 0")
        assert (await memory.recall("How is my dog called?", "user 0")).text == ""
        await memory.append("user 0", [Turn(id="t0", text="My dog is called Fido.")])
        assert "Fido" in (await memory.recall("How is my dog called?", "user 0")).text


async def test_histories_are_held_up_to_a_number_of_bytes_and_the_rest_is_remembered_all_the_same(
    kept: HistoryStore | None,
) -> None:
    said = [Turn(id=f"t{i}", text=f"On day {i} I fed the fish {i} times, and the cat slept.") for i in range(40)]
    with make_memory("low", stored=kept) as probe:
        await probe.append("one", said)
        await probe.recall("How is my dog called?", "one")
        one = probe._indexes.bytes
    assert 40 * 700 < one <= 2 * expected_bytes(said, probe.dimension)
    most = int(3.5 * one)
    with make_memory("low", stored=kept, max_held_bytes=most) as memory:
        for round in range(2):
            for i in range(8):
                await memory.append(f"user {i}", said if round else [*said, Turn(id="d", text=f"My dog is Rex{i}.")])
                assert f"Rex{i}" in (await memory.recall("Who is my dog?", f"user {i}")).text
                assert memory._indexes.bytes <= most
        assert len(memory._indexes) == 3
        await memory.append("long", [Turn(id=f"{j}.{t.id}", text=f"{j} {t.text}") for j in range(5) for t in said])
        assert "fish" in (await memory.recall("Who fed the fish?", "long")).text
        assert len(memory._indexes) == 1, "one that is larger alone is held, too"
        await memory.remove("long")
        assert (memory._indexes.bytes, len(memory._indexes)) == (0, 0)


async def test_a_turn_is_added_once_and_never_changes(kept: HistoryStore | None) -> None:
    with make_memory("low", stored=kept) as memory:
        await memory.append("ann", [Turn(id="t0", text="I live in Rome.")])
        await memory.append("ann", [Turn(id="t0", text="I live in Rome."), Turn(id="t1", text="It rained.")])
        assert await memory.prepare("ann") == 2
        for turns in (
            [Turn(id="t2", text="More."), Turn(id="t0", text="I live in Bonn.")],
            [Turn(id="t2", text="More."), Turn(id="t2", text="Less.")],
        ):
            with pytest.raises(InvalidRequest, match=r"'ann' has a turn 't.' .*a history only grows"):
                await memory.append("ann", turns)
        assert await memory.prepare("ann") == 2


names = st.sampled_from(["a", "b"])
steps = st.lists(
    st.one_of(
        st.tuples(st.just("append"), names, st.lists(st.integers(0, 5), max_size=4)),
        st.tuples(st.just("remove"), names, st.just([])),
        st.tuples(st.just("follow"), names, st.integers(-1, 4).map(lambda i: [i])),
    ),
    max_size=25,
)


@given(steps)
@settings(max_examples=40)
def test_a_process_keeps_what_a_database_keeps(script: list[tuple[str, str, list[int]]]) -> None:
    held = InMemoryHistories()
    with closing(open_database("sqlite://")) as database:
        stored = Histories(database)
        keys: dict[Any, Any] = {}
        for what, name, numbers in script:
            if what == "append":
                turns = [Turn(id=str(i), text=f"turn {i}") for i in numbers]
                assert held.append("n", name, turns) == stored.append("n", name, turns)
            elif what == "remove":
                assert held.remove("n", name) == stored.remove("n", name)
            else:
                (key, found), (other, wanted) = held.follow("n", name, *numbers), stored.follow("n", name, *numbers)
                assert [(i, t.id, t.text) for i, t in found] == [(i, t.id, t.text) for i, t in wanted]
                assert keys.setdefault(key, other) == other  # another history has another key
