"""Bank metadata: the embedding model, how often each trajectory was shown and with what success, shorter reasoning."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, Table, delete, func, select, update

from agentcascade.storage.tables import decisions, episodes, removals, settings, shortened, trajectories, uses
from agentcascade.storage.trajectories import chunks
from agentcascade.storage.upsert import upsert
from agentcascade.types import EpisodeEnd, Trajectory, new_id, now

SPACE = "embedding_model"
"""The setting that says which model embedded the bank."""
EDITS = "bank_edits"
"""The setting that changes whenever banked trajectories say something else, so that other processes read again."""


def embedding_model(connection: Connection) -> str | None:
    """The model that embedded the bank, once there was something to embed."""
    return _setting(connection, SPACE)


class Newest(NamedTuple):
    """What a bank's index must know of: the model that embedded it, and the last keys of trajectories and removals."""

    embedding_model: str | None
    trajectory: int
    removal: int


_NEWEST = select(
    select(settings.c.value).where(settings.c.name == SPACE).scalar_subquery(),
    select(func.coalesce(func.max(trajectories.c.pk), 0)).scalar_subquery(),
    select(func.coalesce(func.max(removals.c.pk), 0)).scalar_subquery(),
)


def read_newest(connection: Connection) -> Newest:
    """By one statement, made once: it is asked every few seconds, whether or not anything is new."""
    return Newest(*connection.execute(_NEWEST).one())


def set_embedding_model(connection: Connection, value: str) -> None:
    """Remember which model embedded the bank, as ``name/dimension``."""
    _set(connection, SPACE, value)


def edit_mark(connection: Connection) -> str:
    """Another one than before says that banked trajectories changed."""
    return _setting(connection, EDITS) or "0"


def mark_edited(connection: Connection) -> None:
    """Tell every process that reads the bank that trajectories changed."""
    _set(connection, EDITS, new_id("ed"))


def with_shortened(trajectory: Trajectory, reasonings: Mapping[int, str] | None) -> Trajectory:
    """The trajectory with these reasonings by position instead of its own."""
    if not reasonings:
        return trajectory
    steps = [
        step.model_copy(update={"reasoning": reasonings[i]}) if i in reasonings else step
        for i, step in enumerate(trajectory.steps)
    ]
    return trajectory.model_copy(update={"steps": tuple(steps)})


def write_shortened(connection: Connection, pk: int, reasonings: Mapping[int, str], model: str) -> None:
    """Keep shorter reasonings of a trajectory by position; the originals stay where they are."""
    row = upsert(connection, shortened)
    changes = {name: row.excluded[name] for name in ("reasoning", "model", "created_at")}
    common = {"trajectory": pk, "model": model, "created_at": now()}
    rows = [common | {"position": i, "reasoning": text} for i, text in sorted(reasonings.items())]
    connection.execute(row.on_conflict_do_update(index_elements=["trajectory", "position"], set_=changes), rows)
    mark_edited(connection)


def delete_shortened(connection: Connection, pks: Collection[int]) -> int:
    """Forget the shorter reasonings of these trajectories; returns of how many steps."""
    deleted = 0
    for part in chunks(sorted(pks)):
        deleted += connection.execute(delete(shortened).where(shortened.c.trajectory.in_(part))).rowcount
    if deleted:
        mark_edited(connection)
    return deleted


def read_shortened(connection: Connection, pks: Collection[int]) -> dict[int, dict[int, str]]:
    """Trajectory key → position → its shorter reasoning."""
    shorter: dict[int, dict[int, str]] = {}
    for part in chunks(sorted(pks)):
        for row in connection.execute(select(shortened).where(shortened.c.trajectory.in_(part))):
            shorter.setdefault(row.trajectory, {})[row.position] = row.reasoning
    return shorter


def read_uses(connection: Connection, pks: Collection[int]) -> dict[int, tuple[int, int]]:
    """Trajectory key → (episodes it was shown in, those of them that succeeded)."""
    counts = {}
    for part in chunks(sorted(pks)):
        for row in connection.execute(select(uses).where(uses.c.trajectory.in_(part))):
            counts[row.trajectory] = max(0, row.episodes), min(max(0, row.successes), max(0, row.episodes))
    return counts


def sum_uses(connection: Connection, namespace: str) -> tuple[int, int]:
    """The sums of `read_uses` over a namespace."""
    sums = select(func.sum(uses.c.episodes), func.sum(uses.c.successes)).join(trajectories)
    row = connection.execute(sums.where(trajectories.c.namespace == namespace)).one()
    return int(row[0] or 0), int(row[1] or 0)


def lock_episodes(
    connection: Connection, ends: Collection[EpisodeEnd]
) -> dict[tuple[str, str], tuple[bool | None, list[str]]]:
    """(namespace, episode) → (outcome before, trajectories counted with it); nobody else ends them meanwhile."""
    before = {}
    for namespace, episode in sorted({(e.namespace, e.episode) for e in ends}):
        this_episode = (episodes.c.namespace == namespace) & (episodes.c.id == episode)
        row = connection.execute(
            select(episodes.c.success, episodes.c.shown).where(this_episode).with_for_update()
        ).one()
        before[namespace, episode] = row.success, list(row.shown or ())
    return before


def count_uses(
    connection: Connection,
    ends: Sequence[EpisodeEnd],
    before: Mapping[tuple[str, str], tuple[bool | None, list[str]]],
) -> None:
    """Count every trajectory once per episode whose student acted on it, and undo what was counted `before`."""
    changes: dict[str, list[int]] = {}

    def add(names: Collection[str], episodes: int, success: bool | None) -> None:
        for name in names:
            change = changes.setdefault(name, [0, 0])
            change[0] += episodes
            change[1] += episodes * bool(success)

    for (namespace, episode), end in sorted({(e.namespace, e.episode): e for e in ends}.items()):
        outcome, counted = before[namespace, episode]
        shown: set[str] = set()
        if end.success is not None:
            acted = (decisions.c.episode == episode) & (decisions.c.answered_by == "student")
            # Told to look for the namespace too, SQLite would read all of that namespace's decisions.
            query = select(decisions.c.namespace, decisions.c.demonstrations).where(acted)
            windows = [
                w for space, demonstrations in connection.execute(query) if space == namespace for w in demonstrations
            ]
            shown = {w.rpartition(":")[0] for w in windows} | set(counted)
        add(counted, -1, outcome)
        add(shown, 1, end.success)
        if shown != set(counted):
            this_episode = (episodes.c.namespace == namespace) & (episodes.c.id == episode)
            connection.execute(update(episodes).where(this_episode).values(shown=sorted(shown)))
    _change(connection, {name: change for name, change in changes.items() if any(change)})


def _change(connection: Connection, changes: Mapping[str, Sequence[int]]) -> None:
    for part in chunks(sorted(changes)):
        query = select(trajectories.c.pk, trajectories.c.id).where(trajectories.c.id.in_(part))
        banked = connection.execute(query.order_by(trajectories.c.pk).with_for_update(read=True, key_share=True))
        rows = [
            {"trajectory": row.pk, "episodes": changes[row.id][0], "successes": changes[row.id][1]} for row in banked
        ]
        if rows:
            add = upsert(connection, uses)
            sums = {name: uses.c[name] + add.excluded[name] for name in ("episodes", "successes")}
            connection.execute(add.on_conflict_do_update(index_elements=["trajectory"], set_=sums), rows)


def read_notes(connection: Connection) -> list[tuple[Table, str, dict[str, Any]]]:
    """Shorter reasonings and uses with the ids of their trajectories, for `write_notes` when these have new keys."""
    return [
        (table, row["id"], {k: v for k, v in row.items() if k not in ("id", "trajectory")})
        for table in (shortened, uses)
        for row in connection.execute(select(table, trajectories.c.id).join(trajectories)).mappings()
    ]


def write_notes(connection: Connection, notes: Sequence[tuple[Table, str, dict[str, Any]]]) -> None:
    """Write what `read_notes` read to the trajectories' present keys."""
    keys = {row.id: row.pk for row in connection.execute(select(trajectories.c.id, trajectories.c.pk))}
    for table in (shortened, uses):
        rows = [values | {"trajectory": keys[id]} for note_table, id, values in notes if note_table is table]
        if rows:
            connection.execute(table.insert(), rows)


def _setting(connection: Connection, name: str) -> str | None:
    value: str | None = connection.execute(select(settings.c.value).where(settings.c.name == name)).scalar()
    return value


def _set(connection: Connection, name: str, value: str) -> None:
    row = upsert(connection, settings).values(name=name, value=value)
    connection.execute(row.on_conflict_do_update(index_elements=["name"], set_={"value": value}))
