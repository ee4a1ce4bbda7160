"""Vectors of texts that are remembered one by one."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import closing
from typing import Any, cast

import pytest

from agentcascade.bank.bank import Bank
from agentcascade.models.embeddings import TextVectors
from agentcascade.retrievers.hashing import HashEmbedder
from agentcascade.retrievers.numpy_index import ExactRetriever
from agentcascade.storage import open_database
from agentcascade.types import Situation


def test_a_vector_that_is_remembered_does_not_keep_the_batch_that_it_came_in() -> None:
    vectors = TextVectors(HashEmbedder(16))
    found = vectors.of([f"text {i}" for i in range(100)])
    assert all(vector.base is None for vector in found.values())
    assert vectors.of(["text 7"])["text 7"] is found["text 7"]


@pytest.mark.parametrize(("characters", "is_in_the_loop"), [(0, False), (40, True), (39, False)])
async def test_what_an_embedder_embeds_at_once_is_not_handed_to_a_thread(characters: int, is_in_the_loop: bool) -> None:
    threads: list[int] = []

    class Watched(HashEmbedder):
        at_once = characters

        def embed(self, texts: Sequence[str]) -> Any:
            threads.append(threading.get_ident())
            return super().embed(texts)

    embedder = Watched(16)
    with closing(Bank(open_database("sqlite:///:memory:"), embedder, ExactRetriever(3 * 16))) as bank:
        await bank.retrieve(Situation(goal="g" * 20, observation="o" * 20), k=2)
    assert [thread == threading.get_ident() for thread in threads] == [is_in_the_loop]
    assert not TextVectors(cast("Any", Sentences())).is_quick(["a"])


class Sentences:
    """An embedder of somebody else, which says nothing of it."""

    dimension = 16
