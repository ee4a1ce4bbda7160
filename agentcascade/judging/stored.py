"""Stored episodes as a judge is shown them: put together from step logs, exported trajectories, or the database."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from agentcascade._util import bounds
from agentcascade.errors import InvalidRequest
from agentcascade.steplog.database import export
from agentcascade.steplog.files import PARQUET, read_log
from agentcascade.steplog.types import LoggedStep
from agentcascade.storage import Database
from agentcascade.storage.ends import drafted_episodes, known_ends, last_steps
from agentcascade.types import Step, Trajectory


class StoredEpisode(NamedTuple):
    """An episode that was recorded.

    Args:
        id: Of the episode.
        trajectory: Its steps; `success` in it means nothing.
        success: What became of it; None where nobody said.
    """

    id: str
    trajectory: Trajectory
    success: bool | None


class Stored(NamedTuple):
    """Episodes that can be shown to a judge, and why others cannot: reason → how many."""

    episodes: list[StoredEpisode]
    left_out: Counter[str]


def read_episodes(path: Path) -> Stored:
    """Episodes of a file: a step log (JSONL or Parquet), or trajectories as JSON lines, as `bank export` writes them.

    Raises:
        InvalidRequest: The file holds neither; the message names line and field.
    """
    if path.is_file():
        with path.open("rb") as file:
            head = file.read(1_000_000)
        if not head.startswith(PARQUET):
            first = next((line for line in head.decode(errors="replace").splitlines() if line.strip()), "")
            if '"steps"' in first or first.startswith('{"format":'):
                return _read_trajectories(path)
    return from_steps(read_log(path))


def _read_trajectories(path: Path) -> Stored:
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").split("\n"), 1):
        if not line.strip() or line.startswith(('{"format":', '{"failure":')):
            continue
        try:
            row = bounds.loads(line)
            if not isinstance(row, dict):
                raise ValueError("a line is a JSON object with goal, steps and success")
            success = row.get("success")
            trajectory = Trajectory.model_validate({**row, "success": bool(success)})
            if success is not None and not isinstance(success, bool):
                raise ValueError("success must be true, false or null")
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(map(str, first["loc"])) or "the line"
            raise InvalidRequest(f"{path} line {number}: {field}: {first['msg']}") from None
        except ValueError as error:
            raise InvalidRequest(f"{path} line {number}: {str(error)[:200]}") from None
        name = str(trajectory.metadata.get("episode") or trajectory.id)
        found.append(StoredEpisode(name, trajectory.model_copy(update={"id": f"tr_{name}"}), success))
    return Stored(found, Counter())


def from_steps(steps: Iterable[LoggedStep]) -> Stored:
    """Episodes of a step log: what was observed at each step, and the action of who took it."""
    by_episode: dict[str, dict[int, LoggedStep]] = {}
    for step in steps:
        by_episode.setdefault(step.cluster, {})[step.step] = step
    found, left_out = [], Counter[str]()
    for numbered in by_episode.values():
        ordered = [numbered[number] for number in sorted(numbered)]
        first, acted = ordered[0], [_acted(step) for step in ordered]
        if sorted(numbered) != list(range(len(numbered))):
            left_out["without some of their steps: only a share of the steps was logged"] += 1
        elif not first.goal.strip():
            left_out["without a goal"] += 1
        elif None in acted:
            left_out["with a step whose action is not known"] += 1
        else:
            name = first.episode or first.id
            trajectory = Trajectory(
                id=f"tr_{name}",
                namespace=first.namespace,
                goal=first.goal,
                category=first.category,
                steps=tuple(Step(observation=s.observation, action=a or "") for s, a in zip(ordered, acted)),
                success=False,
                metadata={"episode": name},
            )
            known = [step.success for step in ordered if step.success is not None]
            found.append(StoredEpisode(name, trajectory, known[-1] if known else None))
    return Stored(found, left_out)


def _acted(step: LoggedStep) -> str | None:
    """The action that was taken: of an audit the student's, else the teacher's."""
    if step.kind != "audit":
        return step.teacher
    counts = Counter(sample.action for sample in step.student.samples if sample.action is not None)
    return counts.most_common(1)[0][0] if counts else None


def from_database(
    database: Database, namespace: str | None = None, *, outcome: bool, idle_since: datetime | None = None
) -> Stored:
    """Episodes whose steps the database has as texts: those of mode ``collect`` and logged ones.

    Args:
        database: Is read.
        namespace: Of one tenant; None: of all.
        outcome: Those whose outcome is known; else those without one.
        idle_since: Of the latter those that took no step since then, or that ended: others may go on.

    Returns:
        Them by namespace, those whose last step is the oldest first: new ones come behind.
    """
    drafted = _from_drafts(database, namespace)
    logged = from_steps(export(database, namespace=namespace))
    both = {(e.trajectory.namespace, e.id): e for e in [*logged.episodes, *drafted]}
    latest, ended = last_steps(database, namespace), known_ends(database, namespace)
    chosen, left_out = [], logged.left_out
    for key, episode in both.items():
        success = ended.get(key)
        if (success is not None) != outcome:
            continue
        if not outcome and idle_since is not None and key not in ended and latest.get(key, idle_since) > idle_since:
            left_out["that may go on: their last step was taken a short while ago"] += 1
            continue
        if not outcome and key not in latest:
            left_out["without a decision that their bill could stand with"] += 1
            continue
        chosen.append(episode._replace(success=success))
    since = datetime.min.replace(tzinfo=UTC)
    chosen.sort(key=lambda e: (e.trajectory.namespace, latest.get((e.trajectory.namespace, e.id), since), e.id))
    return Stored(chosen, left_out)


def _from_drafts(database: Database, namespace: str | None) -> list[StoredEpisode]:
    return [
        StoredEpisode(
            episode,
            Trajectory(
                id=f"tr_{episode}",
                namespace=space,
                goal=steps[0].goal,
                plan=steps[0].plan,
                steps=tuple(Step(observation=s.observation, reasoning=s.reasoning, action=s.action) for s in steps),
                success=False,
                model=steps[-1].model,
                metadata={"episode": episode},
            ),
            None,
        )
        for (space, episode), steps in drafted_episodes(database, namespace).items()
        if [step.position for step in steps] == list(range(len(steps)))
    ]
