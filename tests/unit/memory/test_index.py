"""A history made searchable, and kept within its limit."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from agentcascade.memory.bm25 import BM25Index
from agentcascade.memory.retrieval import retrieve
from agentcascade.memory.tokenization import terms
from agentcascade.types import Turn
from tests.memory_parts import Slow, history, make_index


def test_the_line_that_answers_is_in_the_first_chunk() -> None:
    index = make_index(chunk=32)
    index.append(history(extra=200))
    while index.embed():
        pass
    question = terms("What is the name of Ann's dog?")
    snapshot = index.snapshot(question)
    vector = index._vectors.of(["the name of Ann's dog"])["the name of Ann's dog"]
    for how in ("lexical", "hybrid"):
        best = snapshot.chunks[retrieve(snapshot, vector, how, 5, 10)[0]]
        assert any("Rex" in snapshot.lines[i].text for i in range(best.start, best.end))
    assert len(retrieve(snapshot, vector, "hybrid", 5, 10)) <= 10
    assert len(set(retrieve(snapshot, vector, "dense", 5, 10))) == 10


def test_what_is_not_embedded_is_found_by_words() -> None:
    index = make_index(chunk=32)
    index.append(history(extra=50))
    snapshot = index.snapshot(terms("dog shelter"))
    assert len(snapshot.vectors) == 0
    (first, *_) = retrieve(snapshot, np.ones(64, dtype=np.float32), "hybrid", 5, 10)
    best = snapshot.chunks[first]
    assert any("shelter" in snapshot.lines[i].text for i in range(best.start, best.end))


def test_an_empty_history_has_nothing() -> None:
    snapshot = make_index().snapshot(terms("a dog?"))
    assert retrieve(snapshot, np.ones(64, dtype=np.float32), "hybrid", 5, 10) == []
    assert list(snapshot.lines) == []


def test_a_view_does_not_change_when_the_history_grows() -> None:
    index = make_index()
    index.append(history())
    snapshot = index.snapshot(())
    before = len(snapshot.lines), len(snapshot.chunks)
    index.append(history(extra=30)[6:])
    assert (len(snapshot.lines), len(snapshot.chunks)) == before
    assert len(index) == 36


def test_appending_in_parts_finds_what_appending_at_once_finds() -> None:
    whole, parts = make_index(chunk=32), make_index(chunk=32)
    turns = history(extra=60)
    whole.append(turns)
    for start in range(0, len(turns), 3):
        parts.append(turns[start : start + 3])
        parts.snapshot(terms("dog"))
    for index in (whole, parts):
        while index.embed():
            pass
    assert np.array_equal(whole.snapshot(()).vectors, parts.snapshot(()).vectors)
    found = [v.snapshot(terms("painting sunsets")) for v in (whole, parts)]
    best = [v.chunks[int(np.argmax(v.bm25))] for v in found]
    assert all(any("sunsets" in v.lines[i].text for i in range(b.start, b.end)) for v, b in zip(found, best))


def test_the_oldest_go_when_a_history_is_over_its_limit_and_vectors_stay_with_their_lines() -> None:
    embedder = Slow()
    index = make_index(max_tokens=1000, embedder=embedder)
    turns = history(extra=400)
    for start in range(0, len(turns), 20):
        index.append(turns[start : start + 20])
        while index.embed():
            pass
    snapshot = index.snapshot(terms("weather"))
    assert index.tokens <= 1000
    assert index.forgotten_tokens > 0
    assert index.forgotten_tokens + index.tokens == sum(index._count(t.text) for t in turns)
    assert snapshot.lines[-1].turn == "x399"
    for line, row in zip(snapshot.lines, snapshot.vectors):
        assert np.allclose(index._vectors.of([line.said])[line.said], row)


def test_five_million_tokens_leave_what_fits_and_only_that_is_embedded() -> None:
    embedder = Slow()
    index = make_index(max_tokens=5_000, embedder=embedder)
    text = "word " * 400
    index.append([Turn(id=str(i), text=f"{i} {text}") for i in range(12_500)])
    while index.embed():
        pass
    assert index.tokens <= 5_000
    assert index.forgotten_tokens > 4_900_000
    assert embedder.texts < 1000


def test_many_threads_append_embed_and_read() -> None:
    index, errors = make_index(), []

    def work(who: int) -> None:
        try:
            for i in range(20):
                index.append([Turn(id=f"{who}-{i}", text=f"thread {who} says {i}")])
                index.embed()
                snapshot = index.snapshot(terms("thread says"))
                assert len(snapshot.vectors) <= len(snapshot.lines)
                retrieve(snapshot, np.ones(64, dtype=np.float32), "hybrid", 3, 6)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    while index.embed():
        pass
    assert errors == []
    snapshot = index.snapshot(())
    assert len(snapshot.lines) == len(snapshot.vectors) == 80
    for line, row in zip(snapshot.lines, snapshot.vectors):
        assert np.allclose(index._vectors.of([line.said])[line.said], row)


@pytest.mark.parametrize("size", [1, 7, 100])
def test_bm25_ranks_the_text_with_the_rare_word_first(size: int) -> None:
    index = BM25Index()
    for i in range(size):
        index.add([("common", f"word{i}")])
        index.scores(("common",))
    index.add([("common", "rare")])
    scores = index.scores(("rare", "unheard"))
    assert len(scores) == size + 1
    assert int(scores.argmax()) == size
    assert index.scores(()).tolist() == [0.0] * (size + 1)
    assert BM25Index().scores(("word",)).tolist() == []
