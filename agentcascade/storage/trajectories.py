"""Rows of trajectories, their steps and their embedding vectors."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic_core import PydanticSerializationError
from sqlalchemy import Connection, Select, delete, func, select

from agentcascade.errors import BankError
from agentcascade.messages import without_lone_surrogates
from agentcascade.storage.tables import embeddings, removals, steps, trajectories
from agentcascade.storage.upsert import upsert
from agentcascade.types import Step, Trajectory
from agentcascade.types.base import unchecked

if TYPE_CHECKING:
    import numpy as np

log = logging.getLogger("agentcascade.storage")

CHUNK = 500
"""Rows per IN list, and trajectories per read when an index is built."""

POSITIONS = 20
"""Bits of an index row's id that hold the step's position; the rest is the trajectory's key."""


class IndexRow(NamedTuple):
    """What an index needs to know of one trajectory."""

    pk: int
    namespace: str
    episode: str
    goal_key: str
    plan_key: str
    observation_keys: list[str]


def check_bankable(trajectory: Trajectory) -> None:
    """Raises `BankError` unless the trajectory can teach: successful, with a goal and steps."""
    if not trajectory.success:
        raise BankError(f"trajectory {trajectory.id} failed: only successful ones are banked")
    if not trajectory.steps:
        raise BankError(f"trajectory {trajectory.id} has no steps")
    if len(trajectory.steps) >= 1 << POSITIONS:
        raise BankError(f"trajectory {trajectory.id} has {len(trajectory.steps)} steps: split it")
    if not trajectory.goal.strip():
        raise BankError(f"trajectory {trajectory.id} has no goal")


def banked_ids(connection: Connection, ids: Collection[str]) -> set[str]:
    """Those of the ids that are banked."""
    banked: set[str] = set()
    for part in chunks(sorted(ids)):
        banked |= set(connection.execute(select(trajectories.c.id).where(trajectories.c.id.in_(part))).scalars())
    return banked


def text_key(model: str, text: str) -> str:
    """Key of a text's vector; empty for an empty text, which has none."""
    return blake2b(f"{model}\0{text}".encode(errors="replace"), digest_size=16).hexdigest() if text else ""


def encodable(trajectory: Trajectory) -> Trajectory:
    """The trajectory with "?" for every lone surrogate, so that it can be stored; the same object without any."""
    try:
        trajectory.model_dump_json()
    except PydanticSerializationError:
        return Trajectory.model_validate(without_lone_surrogates(trajectory.model_dump()))
    return trajectory


def content_digest(trajectory: Trajectory) -> str:
    """Hash of what a trajectory teaches: two with one digest teach the same."""
    content = trajectory.model_dump_json(include={"goal", "plan", "steps", "success"})
    return blake2b(content.encode(), digest_size=16).hexdigest()


def banked_digests(connection: Connection, items: Sequence[Trajectory]) -> set[tuple[str, str]]:
    """(namespace, digest) of those that are banked already."""
    wanted = {(t.namespace, content_digest(t)) for t in items}
    banked: set[tuple[str, str]] = set()
    for part in chunks(sorted(d for _, d in wanted)):
        query = select(trajectories.c.namespace, trajectories.c.digest).where(trajectories.c.digest.in_(part))
        banked |= {(row.namespace, row.digest) for row in connection.execute(query)}
    return wanted & banked


def duplicate_id(connection: Connection, new_trajectories: Sequence[Trajectory]) -> str | None:
    """An id that two of `new_trajectories` have, or one of them and a banked trajectory."""
    ids = Counter(t.id for t in new_trajectories)
    banked = banked_ids(connection, ids.keys())
    return next((i for i, count in ids.items() if i in banked or count > 1), None)


def insert_trajectories(
    connection: Connection, items: Sequence[Trajectory], vectors: Mapping[str, bytes], model: str
) -> None:
    """Write trajectories, steps and the vectors that are not stored yet."""
    rows = [{"key": key, "vector": vector} for key, vector in vectors.items()]
    for part in chunks(rows):
        connection.execute(upsert(connection, embeddings).on_conflict_do_nothing(), part)
    for part in chunks(items):
        result = connection.execute(
            trajectories.insert().returning(trajectories.c.pk, sort_by_parameter_order=True),
            [_trajectory_row(t, model) for t in part],
        )
        connection.execute(
            steps.insert(),
            [
                {
                    "trajectory": pk,
                    "position": i,
                    **step.model_dump(),
                    "observation_key": text_key(model, step.observation),
                }
                for pk, t in zip(result.scalars(), part)
                for i, step in enumerate(t.steps)
            ],
        )


def _trajectory_row(trajectory: Trajectory, model: str) -> dict[str, Any]:
    row = trajectory.model_dump(exclude={"steps"})
    return row | {
        "metadata": dict(trajectory.metadata),
        "length": len(trajectory.steps),
        "digest": content_digest(trajectory),
        "episode": str(trajectory.metadata.get("episode", "")),
        "goal_key": text_key(model, trajectory.goal),
        "plan_key": text_key(model, trajectory.plan),
    }


def read_trajectories(connection: Connection, pks: Collection[int]) -> dict[int, Trajectory]:
    """Whole trajectories by key; unknown keys are left out."""
    by_key = {}
    for part in chunks(sorted(pks)):
        heads = connection.execute(select(trajectories).where(trajectories.c.pk.in_(part))).mappings().all()
        # One set of fields for all steps of a trajectory: half as many objects that a full collection goes through.
        steps_of: dict[int, tuple[set[str], list[Step]]] = {h["pk"]: (set(Step.model_fields), []) for h in heads}
        query = select(steps).where(steps.c.trajectory.in_(part)).order_by(steps.c.trajectory, steps.c.position)
        for row in connection.execute(query):
            if row.trajectory in steps_of:
                given, read = steps_of[row.trajectory]
                values = {"observation": row.observation, "reasoning": row.reasoning, "action": row.action}
                read.append(unchecked(Step, values, given))
        fields = [f for f in Trajectory.model_fields if f != "steps"]
        for head in heads:
            values = {f: head[f] for f in fields}
            by_key[head["pk"]] = Trajectory.model_construct(**values, steps=tuple(steps_of[head["pk"]][1]))
    return by_key


def read_index_rows(connection: Connection, after: int, limit: int = CHUNK) -> list[IndexRow]:
    """The next `limit` trajectories with a key above `after`, in key order."""
    columns = trajectories.c.pk, trajectories.c.namespace, trajectories.c.episode
    query = select(*columns, trajectories.c.goal_key, trajectories.c.plan_key)
    heads = connection.execute(query.where(trajectories.c.pk > after).order_by(trajectories.c.pk).limit(limit)).all()
    if not heads:
        return []
    keys: dict[int, list[str]] = {h.pk: [] for h in heads}
    between = steps.c.trajectory.between(heads[0].pk, heads[-1].pk)
    query = select(steps.c.trajectory, steps.c.observation_key).where(between)
    for row in connection.execute(query.order_by(steps.c.trajectory, steps.c.position)):
        if row.trajectory in keys:
            keys[row.trajectory].append(row.observation_key)
    return [IndexRow(h.pk, h.namespace, h.episode, h.goal_key, h.plan_key, keys[h.pk]) for h in heads]


def read_vectors(connection: Connection, keys: Collection[str], dimension: int) -> dict[str, np.ndarray]:
    """float32 vectors (dimension,) by text key; keys that are unknown, or whose vectors are damaged, are left out."""
    import numpy as np

    vectors: dict[str, np.ndarray] = {}
    damaged = 0
    for part in chunks(sorted(keys)):
        for row in connection.execute(select(embeddings).where(embeddings.c.key.in_(part))):
            if len(row.vector) == 4 * dimension:
                vector = np.frombuffer(row.vector, dtype="<f4")
                if np.isfinite(vector).all():
                    vectors[row.key] = vector
                    continue
            damaged += 1
    if damaged:
        log.warning(
            "%d vectors of the bank are damaged, and their texts match nothing: `agentcascade bank reembed`", damaged
        )
    return vectors


def delete_trajectories(connection: Connection, pks: Collection[int]) -> None:
    """Delete trajectories with their steps and vectors, and leave a note for other processes' indexes."""
    delete_rows(connection, pks)
    last, unused = unused_vectors(connection)
    delete_vectors(connection, unused, last)


def delete_rows(connection: Connection, pks: Collection[int]) -> int:
    """The same without their vectors, which are left unused; returns how many were there."""
    deleted = 0
    for part in chunks(sorted(pks)):
        rows = connection.execute(
            select(trajectories.c.pk, trajectories.c.namespace).where(trajectories.c.pk.in_(part))
        ).all()
        if rows:
            connection.execute(removals.insert(), [{"trajectory": row.pk, "namespace": row.namespace} for row in rows])
        connection.execute(delete(steps).where(steps.c.trajectory.in_(part)))
        connection.execute(delete(trajectories).where(trajectories.c.pk.in_(part)))
        deleted += len(rows)
    return deleted


def unused_vectors(connection: Connection) -> tuple[int, list[str]]:
    """(key of the last trajectory, keys of vectors whose texts no trajectory has), for `delete_vectors`."""
    last = connection.execute(select(func.max(trajectories.c.pk))).scalar() or 0
    in_use = select(steps.c.observation_key), select(trajectories.c.goal_key), select(trajectories.c.plan_key)
    unused = select(embeddings.c.key).except_(*in_use)  # sets, not a lookup per row: the keys have no index
    return last, list(connection.execute(unused).scalars())


def delete_vectors(connection: Connection, keys: Collection[str], last: int) -> None:
    """Delete vectors that were unused, but for those that trajectories behind the `last` one use."""
    since = (
        select(steps.c.observation_key).where(steps.c.trajectory > last),
        select(trajectories.c.goal_key).where(trajectories.c.pk > last),
        select(trajectories.c.plan_key).where(trajectories.c.pk > last),
    )
    used = {key for query in since for key in connection.execute(query).scalars()}
    for part in chunks(sorted(set(keys) - used)):
        connection.execute(delete(embeddings).where(embeddings.c.key.in_(part)))


def read_removals(connection: Connection, after: int) -> list[tuple[int, int, str]]:
    """(mark, trajectory key, namespace) of removals noted after mark `after`."""
    query = select(removals).where(removals.c.pk > after).order_by(removals.c.pk)
    return [(row.pk, row.trajectory, row.namespace) for row in connection.execute(query)]


def last_removal(connection: Connection) -> int:
    """The newest mark of `read_removals`; 0 without removals."""
    return connection.execute(select(func.max(removals.c.pk))).scalar() or 0


def newest_first(namespace: str | None) -> Select[int]:
    """Keys of trajectories, newest first."""
    query = select(trajectories.c.pk).order_by(trajectories.c.created_at.desc(), trajectories.c.pk.desc())
    return query if namespace is None else query.where(trajectories.c.namespace == namespace)


def chunks(items: Sequence[Any], size: int = CHUNK) -> Iterator[Sequence[Any]]:
    """Consecutive slices of at most `size` items."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
