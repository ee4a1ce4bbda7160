"""A history made searchable, and kept within its limit."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from memory_parts import Slow, history, make_index

from agentcascade.memory.bm25 import Lexical
from agentcascade.memory.retrieval import retrieve
from agentcascade.memory.tokenization import terms
from agentcascade.types import Turn


def test_the_line_that_answers_is_in_the_first_chunk() -> None:
    index = make_index(chunk=32)
    index.append(history(extra=200))
    while index.embed():
        pass
    question = terms("What is the name of Ann's dog?")
    view = index.view(question)
    vector = index._vectors.of(["the name of Ann's dog"])["the name of Ann's dog"]
    for how in ("lexical", "hybrid"):
        best = view.chunks[retrieve(view, vector, how, 5, 10)[0]]  # type: ignore[arg-type]
        assert any("Rex" in view.lines[i].text for i in range(best.start, best.end))
    assert len(retrieve(view, vector, "hybrid", 5, 10)) <= 10
    assert len(set(retrieve(view, vector, "dense", 5, 10))) == 10


def test_what_is_not_embedded_is_found_by_words() -> None:
    index = make_index(chunk=32)
    index.append(history(extra=50))
    view = index.view(terms("dog shelter"))
    assert len(view.vectors) == 0
    (first, *_) = retrieve(view, np.ones(64, dtype=np.float32), "hybrid", 5, 10)
    assert any("shelter" in view.lines[i].text for i in range(view.chunks[first].start, view.chunks[first].end))


def test_an_empty_history_has_nothing() -> None:
    view = make_index().view(terms("a dog?"))
    assert retrieve(view, np.ones(64, dtype=np.float32), "hybrid", 5, 10) == []
    assert list(view.lines) == []


def test_a_view_does_not_change_when_the_history_grows() -> None:
    index = make_index()
    index.append(history())
    view = index.view(())
    before = len(view.lines), len(view.chunks)
    index.append(history(extra=30)[6:])
    assert (len(view.lines), len(view.chunks)) == before
    assert len(index) == 36


def test_appending_in_parts_finds_what_appending_at_once_finds() -> None:
    whole, parts = make_index(chunk=32), make_index(chunk=32)
    turns = history(extra=60)
    whole.append(turns)
    for start in range(0, len(turns), 3):
        parts.append(turns[start : start + 3])
        parts.view(terms("dog"))
    for index in (whole, parts):
        while index.embed():
            pass
    assert np.array_equal(whole.view(()).vectors, parts.view(()).vectors)
    found = [v.view(terms("painting sunsets")) for v in (whole, parts)]
    best = [v.chunks[int(np.argmax(v.lexical))] for v in found]
    assert all(any("sunsets" in v.lines[i].text for i in range(b.start, b.end)) for v, b in zip(found, best))


def test_the_oldest_go_when_a_history_is_over_its_limit_and_vectors_stay_with_their_lines() -> None:
    embedder = Slow()
    index = make_index(max_tokens=1000, embedder=embedder)
    turns = history(extra=400)
    for start in range(0, len(turns), 20):
        index.append(turns[start : start + 20])
        while index.embed():
            pass
    view = index.view(terms("weather"))
    assert index.tokens <= 1000
    assert index.forgotten > 0
    assert index.forgotten + index.tokens == sum(index._count(t.text) for t in turns)
    assert view.lines[-1].turn == "x399"
    for line, row in zip(view.lines, view.vectors):
        assert np.allclose(index._vectors.of([line.said])[line.said], row)


def test_five_million_tokens_leave_what_fits_and_only_that_is_embedded() -> None:
    embedder = Slow()
    index = make_index(max_tokens=5_000, embedder=embedder)
    text = "word " * 400
    index.append([Turn(id=str(i), text=f"{i} {text}") for i in range(12_500)])
    while index.embed():
        pass
    assert index.tokens <= 5_000
    assert index.forgotten > 4_900_000
    assert embedder.texts < 1000


def test_many_threads_append_embed_and_read() -> None:
    index, errors = make_index(), []

    def work(who: int) -> None:
        try:
            for i in range(20):
                index.append([Turn(id=f"{who}-{i}", text=f"thread {who} says {i}")])
                index.embed()
                view = index.view(terms("thread says"))
                assert len(view.vectors) <= len(view.lines)
                retrieve(view, np.ones(64, dtype=np.float32), "hybrid", 3, 6)
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
    view = index.view(())
    assert len(view.lines) == len(view.vectors) == 80
    for line, row in zip(view.lines, view.vectors):
        assert np.allclose(index._vectors.of([line.said])[line.said], row)


@pytest.mark.parametrize("size", [1, 7, 100])
def test_bm25_ranks_the_text_with_the_rare_word_first(size: int) -> None:
    index = Lexical()
    for i in range(size):
        index.add([("common", f"word{i}")])
        index.scores(("common",))
    index.add([("common", "rare")])
    scores = index.scores(("rare", "unheard"))
    assert len(scores) == size + 1
    assert int(scores.argmax()) == size
    assert index.scores(()).tolist() == [0.0] * (size + 1)
    assert Lexical().scores(("word",)).tolist() == []
