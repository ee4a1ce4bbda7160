"""Embedding space of a bank: the one model that embedded all of it, and embedding all of it anew with another."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType

from sqlalchemy import Connection, delete, select

from agentcascade.errors import EmbeddingModelChanged
from agentcascade.models.embeddings import TextVectors
from agentcascade.protocols import Embedder
from agentcascade.storage import Database, bank_metadata, trajectories
from agentcascade.storage.tables import embeddings, steps
from agentcascade.storage.tables import trajectories as table
from agentcascade.types import Trajectory

PASSES = 10
"""Over a bank that grows while it is embedded: each finds what came in during the one before."""
NO_VECTORS: Mapping[str, bytes] = MappingProxyType({})


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


def embed_banked(database: Database, embedder: Embedder, texts: TextVectors) -> dict[str, bytes]:
    """What `text_vectors` gives for all that is banked; no transaction waits meanwhile, so what is new may lack."""
    vectors: dict[str, bytes] = {}
    for _ in range(PASSES):
        with database.begin() as connection:
            missing = sorted(text for text in _banked_texts(connection) if _key(embedder, text) not in vectors)
        for part in trajectories.chunks(missing):
            vectors |= _vectors(embedder, texts, part)
        if len(missing) < trajectories.CHUNK:
            break
    return vectors


def reembed(connection: Connection, embedder: Embedder, texts: TextVectors, vectors: dict[str, bytes]) -> int:
    """Give all trajectories the vectors of `embedder`, known ones or new; returns the number of texts.

    They get new keys, in their order.
    """
    pks = list(connection.execute(trajectories.newest_first(None)).scalars())
    banked: list[Trajectory] = []
    for part in trajectories.chunks(pks):
        banked.extend(trajectories.read_trajectories(connection, part).values())
    vectors = text_vectors(embedder, texts, banked, vectors)
    notes = bank_metadata.read_notes(connection)
    trajectories.delete_trajectories(connection, pks)
    connection.execute(delete(embeddings))
    bank_metadata.set_embedding_model(connection, embedding_space(embedder))
    trajectories.insert_trajectories(connection, banked[::-1], vectors, embedder.name)
    bank_metadata.write_notes(connection, notes)
    return len(vectors)


def text_vectors(
    embedder: Embedder, texts: TextVectors, items: Sequence[Trajectory], known: Mapping[str, bytes] = NO_VECTORS
) -> dict[str, bytes]:
    """Text key → little-endian float32 vector, `known` or new, of every goal, plan and observation not empty."""
    embedded = {text for t in items for text in (t.goal, t.plan, *(s.observation for s in t.steps)) if text}
    keys = {_key(embedder, text): text for text in embedded}
    vectors = {key: known[key] for key in keys if key in known}
    return vectors | _vectors(embedder, texts, [text for key, text in keys.items() if key not in vectors])


def _vectors(embedder: Embedder, texts: TextVectors, embedded: Collection[str]) -> dict[str, bytes]:
    return {_key(embedder, text): vector.tobytes() for text, vector in texts.of(embedded).items()}


def _key(embedder: Embedder, text: str) -> str:
    return trajectories.text_key(embedder.name, text)


def _banked_texts(connection: Connection) -> set[str]:
    """Every goal, plan and observation that is not empty."""
    columns = table.c.goal, table.c.plan, steps.c.observation
    return {text for column in columns for text in connection.execute(select(column).distinct()).scalars() if text}
