"""Embedding space of a bank: the one model that embedded all of it, and embedding all of it anew with another."""

from __future__ import annotations

from sqlalchemy import Connection, delete, select

from agentcascade.errors import EmbeddingModelChanged
from agentcascade.models.embeddings import TextVectors
from agentcascade.protocols import Embedder
from agentcascade.storage import bank_metadata, trajectories
from agentcascade.storage.tables import embeddings
from agentcascade.storage.tables import trajectories as table
from agentcascade.types import Trajectory


def embedding_space(embedder: Embedder) -> str:
    """What a bank keeps of the model that embedded it: ``name/dimension``."""
    return f"{embedder.name}/{embedder.dimension}"


def check_embedding_model(connection: Connection, embedder: Embedder, *, write: bool = False) -> None:
    """The first `write` into an empty bank sets the model; raises `EmbeddingModelChanged` for another one later."""
    present, stored = embedding_space(embedder), bank_metadata.embedding_model(connection)
    if stored == present:
        return
    if stored is not None and connection.execute(select(table.c.pk).limit(1)).scalar() is not None:
        raise EmbeddingModelChanged(
            f"the bank was embedded with {stored}, the embedder is {present}: set retrieval.embedder back, or run "
            "`agentcascade bank reembed` to embed all of it anew"
        )
    if write:
        bank_metadata.set_embedding_model(connection, present)


def reembed(connection: Connection, embedder: Embedder, texts: TextVectors) -> int:
    """Embed all trajectories with `embedder`; returns the number of texts. They get new keys, in their order."""
    pks = list(connection.execute(trajectories.newest_first(None)).scalars())
    banked: list[Trajectory] = []
    for part in trajectories.chunks(pks):
        banked.extend(trajectories.read_trajectories(connection, part).values())
    vectors = text_vectors(embedder, texts, banked)
    notes = bank_metadata.read_notes(connection)
    trajectories.delete_trajectories(connection, pks)
    connection.execute(delete(embeddings))
    bank_metadata.set_embedding_model(connection, embedding_space(embedder))
    trajectories.insert_trajectories(connection, banked[::-1], vectors, embedder.name)
    bank_metadata.write_notes(connection, notes)
    return len(vectors)


def text_vectors(embedder: Embedder, texts: TextVectors, items: list[Trajectory]) -> dict[str, bytes]:
    """Text key → little-endian float32 vector, of every goal, plan and observation that is not empty."""
    embedded = {text for t in items for text in (t.goal, t.plan, *(s.observation for s in t.steps)) if text}
    return {trajectories.text_key(embedder.name, t): v.tobytes() for t, v in texts.of(embedded).items()}
