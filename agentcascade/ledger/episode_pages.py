"""Pages of the dashboard on steps and episodes: lists by cursor, and one episode with its steps and their votes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, RowMapping, Select, exists, func, select

from agentcascade.ledger.conditions import cascaded_and_deferred, count_rows
from agentcascade.ledger.dashboard_rows import RecentDecision
from agentcascade.ledger.recent_decisions import cut, read_demonstrations, read_recent_decisions, recent_decision
from agentcascade.ledger.selection import Selection
from agentcascade.storage import Database
from agentcascade.storage.tables import calls, decisions, episodes, keys, shadows
from agentcascade.types import Frozen

LOOKED_THROUGH = 20_000
"""Steps that one page of a list is looked for among."""
OPTIONS = 200
SAMPLES = 64
"""Of one shadow, that are read."""


class Page(NamedTuple):
    """Part of a list; `before` is the cursor of the next part, None where the list ends."""

    rows: list[Any]
    before: str | None
    looked_back_to: datetime | None = None
    """Where the list ends since `LOOKED_THROUGH` steps were looked through: what is older may match, too."""


class EpisodeRow(Frozen):
    """An episode in the list: sums over its steps of the period."""

    namespace: str
    id: str
    goal: str
    cascade: str
    steps: int
    cascaded: int
    deferred: int
    dollars: Decimal | None
    saved_dollars: Decimal | None
    last: datetime
    success: bool | None = None


class ShadowSample(Frozen):
    """A sample that was drawn behind the answer."""

    action: str | None
    member: str = ""
    weight: int = 1
    invalid: str | None = None


class BillLine(Frozen):
    """Calls of one model for one purpose."""

    role: str
    purpose: str
    model: str
    requests: int
    dollars: Decimal | None


class EpisodeStep(Frozen):
    """A step with all that was voted in it. Long texts are cut."""

    decision: RecentDecision
    struck: dict[str, int]
    rungs: tuple[dict[str, Any], ...]
    verification: dict[str, Any] | None
    kind: str = ""
    """``shadow`` or ``audit`` where samples or a teacher's action were drawn behind the answer."""
    drawn: tuple[ShadowSample, ...] = ()
    teacher_action: str | None = None
    models: tuple[BillLine, ...] = ()
    """The bill, by model and purpose."""


class EpisodePage(Frozen):
    """One episode: sums over all of its steps, and some of the steps."""

    namespace: str
    id: str
    goal: str
    cascades: tuple[str, ...]
    mode: str
    success: bool | None
    began: datetime
    ended: datetime
    steps: int
    cascaded: int
    deferred: int
    dollars: Decimal | None
    known_dollars: Decimal
    teacher_dollars: Decimal | None
    saved_dollars: Decimal | None
    seconds: float
    shown: tuple[EpisodeStep, ...]


class FilterOptions(NamedTuple):
    """Values that a filter can be set to: of the newest steps alone."""

    cascades: list[str]
    models: list[str]
    clients: dict[str, list[str]]
    """Namespace → names of the API keys that write into it."""


class EpisodeQueries:
    """Questions about steps and episodes to a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def oldest(self, namespace: str | None) -> datetime | None:
        """When the first step was taken that is still there; off an index."""
        first = select(decisions.c.created_at).order_by(decisions.c.created_at).limit(1)
        if namespace is not None:
            first = first.where(decisions.c.namespace == namespace)
        with self._database.begin() as connection:
            return connection.execute(first).scalar()

    def steps(self, selection: Selection, limit: int, before: str | None = None) -> Page:
        """Decisions, the newest first. A cursor that is not the selection's raises `InvalidRequest`."""
        with self._database.begin() as connection:
            window = selection
            if before is not None:
                then = connection.execute(select(decisions.c.created_at).where(decisions.c.id == before[:60])).scalar()
                if then is not None and selection.since <= then < selection.until:
                    window = selection.model_copy(update={"until": then + timedelta(microseconds=1)})
            window = window.newest(connection, LOOKED_THROUGH) if selection.is_narrowed else window
            rows = read_recent_decisions(connection, window.conditions(), limit + 1, before)
        more = len(rows) > limit
        return Page(rows[:limit], rows[limit - 1].id if more else None, None if more else _stop(selection, window))

    def episodes(self, selection: Selection, limit: int, before: datetime | None = None) -> Page:
        """Episodes by their last step, the newest first."""
        until = selection.until if before is None else min(before, selection.until)
        with self._database.begin() as connection:
            window = selection.model_copy(update={"until": until}).newest(connection, LOOKED_THROUGH)
            found = self._episode_rows(connection, window, limit + 1, before)
        more = len(found) > limit
        before_next = found[limit - 1].last.isoformat() if more else None
        return Page(found[:limit], before_next, None if more else _stop(selection, window))

    def _episode_rows(
        self, connection: Connection, window: Selection, limit: int, before: datetime | None
    ) -> list[EpisodeRow]:
        names = decisions.c.namespace, decisions.c.episode
        last = func.max(decisions.c.created_at).label("last")
        newest = select(*names, last).where(*window.conditions()).group_by(*names)
        if before is not None:  # an episode that went on later stands on an earlier page
            later = decisions.alias()
            newest = newest.where(
                ~exists().where(
                    later.c.episode == decisions.c.episode,
                    later.c.namespace == decisions.c.namespace,
                    later.c.created_at >= window.until,
                )
            )
        newest = newest.order_by(last.desc(), decisions.c.episode).limit(limit)
        heads = connection.execute(newest).all()
        return [self._sums(connection, row.namespace, row.episode, row.last) for row in heads]

    def _sums(self, connection: Connection, namespace: str, episode: str, last: datetime) -> EpisodeRow:
        sums = connection.execute(_sums_query(namespace, episode)).one()
        ended = select(episodes.c.success).where(episodes.c.namespace == namespace, episodes.c.id == episode)
        dollars, _, saved = _money(sums)
        return EpisodeRow(
            namespace=namespace,
            id=episode,
            goal=sums.goal,
            cascade=sums.cascade,
            steps=sums.steps,
            cascaded=sums.cascaded,
            deferred=sums.deferred,
            dollars=dollars,
            saved_dollars=saved,
            last=last,
            success=connection.execute(ended).scalar(),
        )

    def episode(self, namespace: str, id: str, limit: int, first: int = 0) -> EpisodePage | None:
        """An episode with the `limit` steps from the `first` on, in the order taken; None where there is none."""
        of_episode = decisions.c.namespace == namespace, decisions.c.episode == id
        with self._database.begin() as connection:
            sums = connection.execute(_sums_query(namespace, id)).one()
            if not sums.steps:
                return None
            ended = select(episodes.c.success).where(episodes.c.namespace == namespace, episodes.c.id == id)
            cascades = select(decisions.c.cascade).where(*of_episode).distinct().limit(10)
            query = select(decisions).where(*of_episode)
            query = query.order_by(decisions.c.created_at, decisions.c.id).offset(first).limit(limit)
            rows = connection.execute(query).mappings().all()
            dollars, teacher, saved = _money(sums)
            return EpisodePage(
                namespace=namespace,
                id=id,
                goal=sums.goal,
                cascades=tuple(sorted(connection.execute(cascades).scalars())),
                mode=sums.mode,
                success=connection.execute(ended).scalar(),
                began=sums.began,
                ended=sums.ended,
                steps=sums.steps,
                cascaded=sums.cascaded,
                deferred=sums.deferred,
                dollars=dollars,
                known_dollars=sums.dollars or Decimal(0),
                teacher_dollars=teacher,
                saved_dollars=saved,
                seconds=sums.seconds,
                shown=tuple(_steps(connection, rows)),
            )

    def options(self, selection: Selection) -> FilterOptions:
        """Cascades, models and clients of the newest 2,000 steps of the period."""
        window = Selection(namespace=selection.namespace, since=selection.since, until=selection.until)
        newest = select(decisions.c.id, decisions.c.cascade, decisions.c.namespace).where(*window.period())
        newest = newest.order_by(decisions.c.created_at.desc()).limit(2000)
        with self._database.begin() as connection:
            rows = connection.execute(newest).all()
            named = select(calls.c.model).where(calls.c.decision.in_([row.id for row in rows[:500]])).distinct()
            models = sorted(connection.execute(named.limit(OPTIONS)).scalars())
            names: dict[str, list[str]] = {row.namespace: [] for row in rows}
            of_keys = select(keys.c.namespace, keys.c.name).where(keys.c.revoked_at.is_(None), ~keys.c.metrics)
            for namespace, name in connection.execute(of_keys.order_by(keys.c.created_at).limit(OPTIONS)):
                names.setdefault(namespace, []).append(name)
        clients = {name: names[name] for name in sorted(names)[:OPTIONS]}
        return FilterOptions(sorted({row.cascade for row in rows if row.cascade})[:OPTIONS], models, clients)


def _stop(selection: Selection, window: Selection) -> datetime | None:
    return window.since if window.since > selection.since else None


def _sums_query(namespace: str, episode: str) -> Select[Any]:
    cascaded, deferred = cascaded_and_deferred()
    columns = decisions.c
    return select(
        func.count().label("steps"),
        cascaded.label("cascaded"),
        deferred.label("deferred"),
        func.sum(columns.dollars).label("dollars"),
        func.sum(columns.teacher_dollars).label("teacher"),
        count_rows(columns.dollars.is_(None)).label("unpriced"),
        count_rows(columns.teacher_dollars.is_(None)).label("unestimated"),
        func.coalesce(func.sum(columns.seconds), 0.0).label("seconds"),
        func.max(columns.goal).label("goal"),
        func.max(columns.cascade).label("cascade"),
        func.max(columns.mode).label("mode"),
        func.min(columns.created_at).label("began"),
        func.max(columns.created_at).label("ended"),
    ).where(columns.namespace == namespace, columns.episode == episode)


def _money(sums: Row[Any]) -> tuple[Decimal | None, Decimal | None, Decimal | None]:
    """Dollars spent, of the teacher alone, and saved."""
    dollars = None if sums.unpriced else sums.dollars
    teacher = None if sums.unestimated else sums.teacher
    return dollars, teacher, None if dollars is None or teacher is None else teacher - dollars


def _steps(connection: Connection, rows: Sequence[RowMapping]) -> Iterator[EpisodeStep]:
    ids = [row["id"] for row in rows]
    demonstrations = read_demonstrations(connection, rows)
    behind = {
        row["decision"]: row
        for row in connection.execute(select(shadows).where(shadows.c.decision.in_(ids))).mappings()
    }
    lines = calls.c.decision, calls.c.role, calls.c.purpose, calls.c.model, calls.c.requests, calls.c.dollars
    bills: dict[str, Counter[tuple[str, str, str]]] = {}
    dollars: dict[tuple[str, str, str, str], Decimal | None] = {}
    for id, role, purpose, model, requests, cost in connection.execute(
        select(*lines).where(lines[0].in_(ids)).order_by(calls.c.pk)
    ):
        bills.setdefault(id, Counter())[role, purpose, model] += requests
        before = dollars.get((id, role, purpose, model), Decimal(0))
        dollars[id, role, purpose, model] = None if before is None or cost is None else before + cost
    for row in rows:
        shadow = behind.get(row["id"])
        drawn = [] if shadow is None else shadow["samples"][:SAMPLES]
        yield EpisodeStep(
            decision=recent_decision(row, demonstrations),
            struck={cut(action): int(number) for action, number in row["struck"].items()},
            rungs=tuple(row["rungs"] or ()),
            verification=row["verification"],
            kind="" if shadow is None else shadow["kind"],
            drawn=tuple(_sample(sample) for sample in drawn),
            teacher_action=None if shadow is None else cut_or_none(shadow["teacher_action"]),
            models=tuple(
                BillLine(
                    role=role,
                    purpose=purpose,
                    model=model,
                    requests=number,
                    dollars=dollars[row["id"], role, purpose, model],
                )
                for (role, purpose, model), number in bills.get(row["id"], Counter()).items()
            ),
        )


def _sample(sample: Mapping[str, Any]) -> ShadowSample:
    return ShadowSample(
        action=cut_or_none(sample.get("action")),
        member=cut(sample.get("member") or ""),
        weight=int(sample.get("weight") or 1),
        invalid=cut_or_none(sample.get("invalid")),
    )


def cut_or_none(text: str | None) -> str | None:
    return None if text is None else cut(text)
