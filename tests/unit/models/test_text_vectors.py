"""Vectors of texts that are remembered one by one."""

from __future__ import annotations

from agentcascade.models.embeddings import TextVectors
from agentcascade.retrievers.hashing import HashEmbedder


def test_a_vector_that_is_remembered_does_not_keep_the_batch_that_it_came_in() -> None:
    vectors = TextVectors(HashEmbedder(16))
    found = vectors.of([f"text {i}" for i in range(100)])
    assert all(vector.base is None for vector in found.values())
    assert vectors.of(["text 7"])["text 7"] is found["text 7"]
