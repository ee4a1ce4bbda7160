"""Improvement of a bank: trajectories are replaced by shorter ones that the world has confirmed, and can be restored.

The original's steps and id stay with the shorter trajectory, in its metadata, so that erasing one erases both. What
was learnt of it stays too: how often it was shown with what success, and reasonings that were shortened.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, select

from agentcascade.bank.bank import Bank
from agentcascade.bank.detours import Improvement, without_detours
from agentcascade.bank.embedding_space import check_embedding_model, text_vectors
from agentcascade.models.embeddings import TextVectors
from agentcascade.protocols import Environment
from agentcascade.storage import bank_metadata, trajectories
from agentcascade.storage.tables import trajectories as table
from agentcascade.storage.tables import uses
from agentcascade.types import Step, Trajectory, new_id

ORIGINAL = "original"
"""Key of the metadata that holds id and steps of the trajectory before it was improved."""


class TaskIndex:
    """Tasks of a world by their first observation, read off as they are needed.

    Args:
        environment: Begins the tasks.
        tasks: Where it finds them.
        see: What an agent sees of an observation, as the bank holds it.
    """

    def __init__(self, environment: Environment, tasks: Iterable[str], see: Callable[[str], str]) -> None:
        self._environment, self._see = environment, see
        self._waiting = iter(tasks)
        self._known: dict[tuple[str, ...], list[str]] = {}

    def candidates(self, observation: str) -> Iterator[str]:
        """Tasks that begin so: several may, and then a replay tells them apart."""
        wanted = tuple(observation.split())
        yield from self._known.get(wanted, ())
        for task in self._waiting:
            first = tuple(self._see(self._environment.reset(task)).split())
            self._known.setdefault(first, []).append(task)
            if first == wanted:
                yield task


class Improved(NamedTuple):
    """A trajectory and what became of it; None where no task begins like it."""

    trajectory: Trajectory
    improvement: Improvement | None


def improve(
    trajectory: Trajectory,
    environment: Environment,
    tasks: TaskIndex,
    *,
    marks: Sequence[str] = (),
    see: Callable[[str], str] = lambda observation: observation,
) -> Improved:
    """Look for the trajectory's task, and cut what the world does not need. Nothing is written.

    Args:
        trajectory: A banked one.
        environment: The world that it was played in.
        tasks: Those that it may be of.
        marks: Texts in an observation that say that the action before it failed.
        see: What an agent sees of an observation, as the bank holds it.
    """
    unlike: Improvement | None = None
    for task in tasks.candidates(trajectory.steps[0].observation):
        improvement = without_detours(trajectory, environment, task, marks=marks, see=see)
        if improvement.outcome != "does not replay alike":
            return Improved(trajectory, improvement)
        unlike = improvement
    return Improved(trajectory, unlike)


def shorter(trajectory: Trajectory, improvement: Improvement) -> Trajectory:
    """The trajectory that takes the place of another one; its metadata hold what it was made of."""
    original = trajectory.metadata.get(ORIGINAL) or {
        "id": trajectory.id,
        "steps": [step.model_dump() for step in trajectory.steps],
    }
    metadata = {**trajectory.metadata, ORIGINAL: original}
    return trajectory.model_copy(update={"id": new_id("tr"), "steps": improvement.steps, "metadata": metadata})


def restored(trajectory: Trajectory) -> Trajectory | None:
    """The trajectory as it was before it was improved; None where it was not."""
    original: Mapping[str, Any] | None = trajectory.metadata.get(ORIGINAL)
    if not isinstance(original, Mapping):
        return None
    steps = tuple(Step.model_validate(step) for step in original["steps"])
    metadata = {key: value for key, value in trajectory.metadata.items() if key != ORIGINAL}
    return trajectory.model_copy(update={"id": str(original["id"]), "steps": steps, "metadata": metadata})


def replace(bank: Bank, old: Trajectory, new: Trajectory, kept: Sequence[int] | None = None) -> bool:
    """Put `new` into the place of `old`, in one transaction. Blocks.

    Args:
        bank: Holds `old`. Its index follows.
        old: By its id.
        new: With another id.
        kept: Positions in `old` of the steps of `new`, by which shortened reasonings go with them; None: none do.

    Returns:
        False where `old` is gone, or the bank holds the content of `new` already: then `old` alone was removed.

    Raises:
        EmbeddingError, EmbeddingModelChanged, StorageError: Nothing was written then.
    """
    vectors = text_vectors(bank.embedder, TextVectors(bank.embedder), [new])
    with bank.database.begin(write=True) as connection:
        check_embedding_model(connection, bank.embedder)
        pk = _key_of(connection, old.id)
        if pk is None:
            return False
        shown = bank_metadata.read_uses(connection, [pk]).get(pk)
        shortened = bank_metadata.read_shortened(connection, [pk]).get(pk, {})
        trajectories.delete_trajectories(connection, [pk])
        if trajectories.banked_digests(connection, [new]):
            return False
        trajectories.insert_trajectories(connection, [new], vectors, bank.embedder.name)
        new_pk = _key_of(connection, new.id)
        assert new_pk is not None
        if shown is not None:
            row = {"trajectory": new_pk, "episodes": shown[0], "successes": shown[1]}
            connection.execute(uses.insert(), [row])
        moved = {i: shortened[position] for i, position in enumerate(kept or ()) if position in shortened}
        if moved:
            bank_metadata.write_shortened(connection, new_pk, moved, "")
    return True


def _key_of(connection: Connection, id: str) -> int | None:
    key: int | None = connection.execute(select(table.c.pk).where(table.c.id == id)).scalar()
    return key
