"""Catalog of the bank: list, export, import and remove trajectories. Needs no embedder but for importing."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError
from sqlalchemy import func, select

from agentcascade._util.threads import apart
from agentcascade.bank.bank import Bank
from agentcascade.errors import BankError, UnknownTrajectory
from agentcascade.storage import Database, bank_metadata, outcomes, trajectories
from agentcascade.storage.tables import trajectories as table
from agentcascade.types import Frozen, Outcome, Trajectory

PORTION = 2_000
"""Trajectories that are removed in one transaction."""
FORMAT = 2
"""Of an export with outcomes; one without them has no number, and is read by every version."""


class CatalogEntry(NamedTuple):
    """One line of a listing."""

    id: str
    namespace: str
    goal: str
    length: int
    model: str
    created_at: datetime


class Catalog:
    """The banked trajectories of a database."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def list(self, namespace: str | None = None, *, limit: int | None = None, offset: int = 0) -> list[CatalogEntry]:
        """Newest first."""
        columns = table.c.id, table.c.namespace, table.c.goal, table.c.length, table.c.model, table.c.created_at
        query = select(*columns).order_by(table.c.created_at.desc(), table.c.pk.desc()).limit(limit).offset(offset)
        if namespace is not None:
            query = query.where(table.c.namespace == namespace)
        with self.database.begin() as connection:
            return [CatalogEntry(*row) for row in connection.execute(query)]

    def counts(self) -> dict[str, tuple[int, int]]:
        """Namespace → (trajectories, steps)."""
        query = select(table.c.namespace, func.count(), func.sum(table.c.length)).group_by(table.c.namespace)
        with self.database.begin() as connection:
            return {name: (int(n), int(length)) for name, n, length in connection.execute(query)}

    def get(self, id: str) -> Trajectory:
        """Raises `UnknownTrajectory`."""
        with self.database.begin() as connection:
            pk = connection.execute(select(table.c.pk).where(table.c.id == id)).scalar()
            by_key = trajectories.read_trajectories(connection, [pk]) if pk is not None else {}
        if pk not in by_key:
            raise UnknownTrajectory(f"there is no trajectory '{id}': see `agentcascade bank list`")
        return by_key[pk]

    def remove(self, id: str) -> None:
        """Remove a trajectory, or an outcome from the shelf of failures. Raises `UnknownTrajectory`."""
        with self.database.begin(write=True) as connection:
            if outcomes.delete_outcomes(connection, [id]):
                return
            pk = connection.execute(select(table.c.pk).where(table.c.id == id)).scalar()
            if pk is None:
                raise UnknownTrajectory(f"there is no trajectory '{id}': see `agentcascade bank list`")
            trajectories.delete_trajectories(connection, [pk])

    def failures(
        self, namespace: str | None = None, *, limit: int | None = None, offset: int = 0
    ) -> builtins.list[Outcome]:
        """Outcomes on the shelf of failures, newest first."""
        with self.database.begin() as connection:
            return outcomes.newest_outcomes(connection, namespace, limit=limit, offset=offset)

    def failure_counts(self) -> dict[str, int]:
        """Namespace → outcomes on its shelf of failures."""
        with self.database.begin() as connection:
            return outcomes.count_outcomes(connection)

    def prune_failures(
        self, namespace: str | None = None, *, keep: int | None = None, before: datetime | None = None
    ) -> int:
        """Remove all outcomes but the newest `keep`, and all older than `before`; returns how many went."""
        with self.database.begin(write=True) as connection:
            return outcomes.prune_outcomes(connection, namespace, keep=keep, before=before)

    def prune(self, namespace: str | None = None, *, keep: int | None = None, before: datetime | None = None) -> int:
        """Remove all trajectories but the newest `keep`, and all older than `before`; returns how many went."""
        if keep is None and before is None:
            raise BankError("say what to prune: keep=N, before=TIME, or both")
        with self.database.begin() as connection:
            newest_first = list(connection.execute(trajectories.newest_first(namespace)).scalars())
            doomed = set(newest_first[keep:]) if keep is not None else set()
            if before is not None:
                old = trajectories.newest_first(namespace).where(table.c.created_at < before)
                doomed |= set(connection.execute(old).scalars())
        return self._remove_all(doomed)

    def keep_only(self, namespace: str, pks: Sequence[int], among: Sequence[int]) -> int:
        """Remove those trajectories of a namespace `among` these keys that are not in `pks`; returns how many went.

        What was banked meanwhile stays.
        """
        with self.database.begin() as connection:
            banked = set(connection.execute(trajectories.newest_first(namespace)).scalars())
        return self._remove_all((banked & set(among)) - set(pks))

    def _remove_all(self, pks: Collection[int]) -> int:
        """A portion at a time: others write in between. Returns how many were there."""
        removed = 0
        for part in trajectories.chunks(sorted(pks), PORTION):
            with self.database.begin(write=True) as connection:
                removed += trajectories.delete_rows(connection, part)
        with self.database.begin() as connection:
            last, unused = trajectories.unused_vectors(connection)
        for keys in trajectories.chunks(unused, 10 * PORTION):
            with self.database.begin(write=True) as connection:
                trajectories.delete_vectors(connection, keys, last)
        return removed

    def restore(self, namespace: str | None = None) -> int:
        """Go back to the reasoning that steps had before it was shortened; returns of how many steps."""
        with self.database.begin(write=True) as connection:
            return bank_metadata.delete_shortened(
                connection, list(connection.execute(trajectories.newest_first(namespace)).scalars())
            )

    def all(self, namespace: str | None = None) -> Iterator[Trajectory]:
        """Every trajectory, newest first, read in chunks."""
        with self.database.begin() as connection:
            pks = list(connection.execute(trajectories.newest_first(namespace)).scalars())
        for part in trajectories.chunks(pks):
            with self.database.begin() as connection:
                by_key = trajectories.read_trajectories(connection, part)
            yield from (by_key[pk] for pk in part if pk in by_key)

    def export(self, path: Path, namespace: str | None = None) -> Exported:
        """Write one JSON object a line: trajectories, then outcomes, oldest first; whole or not at all.

        Where there are outcomes the first line says the format.
        """
        from agentcascade._util.files import write_atomically

        lines = [t.model_dump_json() + "\n" for t in self.all(namespace)]
        failures = [f'{{"failure":{o.model_dump_json()}}}\n' for o in self.failures(namespace)]
        head = [f'{{"format":{FORMAT}}}\n'] if failures else []  # without them it is as it always was
        write_atomically(path, "".join([*head, *reversed(lines), *reversed(failures)]))
        return Exported(len(lines), len(failures))


class Exported(NamedTuple):
    """How much an export holds."""

    trajectories: int
    failures: int


class Export(NamedTuple):
    """What an export holds: both shelves of a bank."""

    trajectories: list[Trajectory]
    failures: list[Outcome]


def read_export(path: Path, namespace: str | None = None) -> Export:
    """Trajectories and outcomes of an export, moved to `namespace` if given.

    Raises `BankError` naming line and field for the first one that cannot be banked.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BankError(f"{path} cannot be read: {error}") from error
    exported = Export([], [])
    moved = {"namespace": namespace} if namespace else {}
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            if number == 1 and line.startswith('{"format":'):
                _check_format(_Head.model_validate_json(line).format)
                continue
            if line.startswith('{"failure":'):
                outcome = _Failure.model_validate_json(line).failure
                exported.failures.append(outcome.model_copy(update=moved))
                continue
            trajectory = Trajectory.model_validate_json(line)
            trajectories.check_bankable(trajectory)
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(map(str, first["loc"])) or "the line"
            raise BankError(f"{path} line {number}: {field}: {first['msg']}; nothing was imported") from None
        except BankError as error:
            raise BankError(f"{path} line {number}: {error}; nothing was imported") from None
        exported.trajectories.append(trajectory.model_copy(update=moved))
    return exported


class _Head(Frozen):
    format: int


class _Failure(Frozen):
    failure: Outcome


def _check_format(number: int) -> None:
    if number > FORMAT:
        raise BankError(f"format {number} is of a newer agentcascade, {FORMAT} is the newest that is read: upgrade")


class Imported(NamedTuple):
    """What an import added, and what was there already."""

    added: int
    duplicates: int
    failures: int


async def import_export(
    bank: Bank, path: Path, namespace: str | None = None, *, redact: Callable[[Outcome], Outcome] = lambda item: item
) -> Imported:
    """Import both shelves. All lines are checked before any is written; `redact` is for outcomes, `bank` has its own.

    Trajectories are written in one transaction, then outcomes, which can be imported again: their ids are kept.
    """
    exported = read_export(path, namespace)
    failures = [redact(outcome) for outcome in exported.failures]
    new = await bank.add_many(exported.trajectories)

    def write() -> int:
        with bank.database.begin(write=True) as connection:
            return outcomes.insert_outcomes(connection, failures)

    return Imported(sum(new), len(new) - sum(new), await apart(write) if failures else 0)
