"""The log out of the database, and a log that was made elsewhere into it.

Rows of `shadows` hold what was said; the bills are in `calls`, the outcome is in `episodes`. A row's student calls may
be several requests (waves, or a provider that gives one answer at a time): the log keeps the prompt of one request.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Literal

from sqlalchemy import ColumnElement, Connection, and_, or_, select

from agentcascade.prices import Price, PriceTable
from agentcascade.record import total
from agentcascade.steplog.types import Drawn, LoggedStep, dollars
from agentcascade.storage import Database
from agentcascade.storage.tables import calls, decisions, episodes, shadows
from agentcascade.storage.writing import write
from agentcascade.types import Call, Decision, EpisodeEnd, LoggedSample, Shadow, Usage, now

CHUNK = 1000
CLASSES = tuple(Usage.model_fields)
STUDENT = ("sample", "shadow")
TEACHER = {"shadow": "act", "audit": "audit"}
"""Purposes of the calls that made a row's two sides."""


def export(
    database: Database,
    *,
    namespace: str | None = None,
    since: datetime | None = None,
    cascade: str | None = None,
    prices: PriceTable | None = None,
    kinds: Collection[str] = ("shadow", "audit"),
) -> Iterator[LoggedStep]:
    """The logged steps of one namespace or (None) of all, namespace by namespace, oldest first, a chunk at a time.

    `prices` are looked up by the models' names now; without them, and for unknown models, prices are None.
    """
    found = _Prices(prices)
    with database.begin() as connection:
        known = select(shadows.c.namespace).distinct().order_by(shadows.c.namespace)
        spaces = list(connection.execute(known).scalars()) if namespace is None else [namespace]
    for space in spaces:
        own = [shadows.c.namespace == space, shadows.c.kind.in_(list(kinds))]
        own += [shadows.c.created_at >= since] if since is not None else []
        own += [decisions.c.cascade == cascade] if cascade is not None else []
        after: tuple[datetime, str] | None = None
        while True:
            with database.begin() as connection:  # one for each chunk: the reader may take its time
                rows = _rows(connection, own, after)
                bills = _bills(connection, [row.decision for row in rows])
            yield from (_step(row, bills[row.decision], found) for row in rows)
            if len(rows) < CHUNK:
                break
            after = rows[-1].created_at, rows[-1].decision


def _rows(connection: Connection, own: list[ColumnElement[bool]], after: tuple[datetime, str] | None) -> Sequence[Any]:
    time = shadows.c.created_at
    if after is not None:  # the first condition is the index's, the second settles ties
        own = [*own, time >= after[0], or_(time > after[0], shadows.c.decision > after[1])]
    ended = and_(episodes.c.namespace == shadows.c.namespace, episodes.c.id == shadows.c.episode)
    query = (
        select(shadows, episodes.c.success)
        .join(decisions, decisions.c.id == shadows.c.decision)
        .outerjoin(episodes, ended)
        .where(*own)
        .order_by(time, shadows.c.decision)
        .limit(CHUNK)
    )
    return connection.execute(query).all()


def _bills(connection: Connection, ids: Sequence[str]) -> dict[str, list[Any]]:
    bills: dict[str, list[Any]] = defaultdict(list)
    own = calls.c.decision.in_(ids) & calls.c.purpose.in_([*STUDENT, *TEACHER.values()])
    for line in connection.execute(select(calls).where(own).order_by(calls.c.pk)):
        bills[line.decision].append(line)
    return bills


def _step(row: Any, lines: Sequence[Any], prices: _Prices) -> LoggedStep:
    asked = [line for line in lines if line.purpose in STUDENT]
    taught = [line for line in lines if line.purpose == TEACHER.get(row.kind)]
    student, teacher = asked[0].model if asked else "", taught[-1].model if taught else ""
    drawn = Drawn(
        model=student,
        samples=_with_tokens(row.samples, sum(line.output + line.reasoning for line in asked)),
        temperature=row.temperature,
        k=row.k,
        demonstrations=tuple(row.demonstrations),
        similarity=row.similarity,
        prompt=_one_prompt(asked[0]) if asked else None,
        price=prices.of(student),
    )
    usage = sum((_usage(line) for line in taught), Usage())
    return LoggedStep(
        id=row.decision,
        episode=row.episode,
        namespace=row.namespace,
        step=row.step,
        goal=row.goal,
        category=row.category,
        observation=row.observation,
        students=(drawn,),
        teacher=row.teacher_action,
        teacher_model=teacher,
        teacher_usage=None if usage == Usage() else usage,
        teacher_price=prices.of(teacher),
        gold=row.gold,
        success=row.success,
        propensity=row.propensity,
        kind=row.kind,
        accepted=row.accepted,
        created_at=row.created_at,
    )


def _usage(line: Any) -> Usage:
    return Usage(**{name: getattr(line, name) for name in CLASSES})


def _one_prompt(line: Any) -> Usage | None:
    """The prompt of one of the requests that a line is the bill of; None: it was not counted."""
    classes = (name for name in CLASSES if name not in ("output", "reasoning"))
    prompt = Usage(**{name: round(getattr(line, name) / line.requests) for name in classes})
    return prompt if prompt.prompt else None


def _with_tokens(samples: Sequence[dict[str, Any]], generated: int) -> tuple[LoggedSample, ...]:
    """The samples; those whose tokens are not known share evenly what is left of `generated`, if there is any."""
    made = [LoggedSample.model_validate(sample) for sample in samples]
    unknown = [i for i, sample in enumerate(made) if sample.tokens is None]
    left = max(0, generated - sum(sample.tokens or 0 for sample in made))
    if generated and unknown:
        each, over = divmod(left, len(unknown))
        for place, i in enumerate(unknown):
            made[i] = made[i].model_copy(update={"tokens": each + (place < over)})
    return tuple(made)


class _Prices:
    """A price table that remembers what it was asked."""

    def __init__(self, table: PriceTable | None) -> None:
        self._table = table
        self._known: dict[str, Price | None] = {}

    def of(self, model: str) -> Price | None:
        if model not in self._known:
            self._known[model] = self._table.lookup(model) if self._table is not None and model else None
        return self._known[model]


def load(database: Database, steps: Iterable[LoggedStep]) -> int:
    """Write a log that was made elsewhere into the tables, for dashboard and reports. Returns how many were new.

    What is there already is left alone, so that the same log can be loaded again. Of several students the first is
    kept. A step whose id is not a decision's gets one that follows from namespace and id.
    """
    loaded, start = 0, now()
    ends: dict[tuple[str, str], EpisodeEnd] = {}
    chunk: list[tuple[Decision, Shadow]] = []
    for number, step in enumerate(steps):
        pair = _records(step, start + timedelta(microseconds=number))
        if step.success is not None:
            _end(ends, pair[0], step.success)
        chunk.append(pair)
        if len(chunk) == CHUNK:
            loaded += _write(database, chunk)
            chunk = []
    loaded += _write(database, chunk)
    made = list(ends.values())
    for first in range(0, len(made), CHUNK):
        _write_ends(database, made[first : first + CHUNK])
    return loaded


def _write(database: Database, pairs: Sequence[tuple[Decision, Shadow]]) -> int:
    ids = [decision.id for decision, _ in pairs]
    with database.begin(write=True) as connection:
        there = set(connection.execute(select(decisions.c.id).where(decisions.c.id.in_(ids))).scalars())
        fresh = {decision.id: (decision, shadow) for decision, shadow in pairs if decision.id not in there}
        write(connection, [record for pair in fresh.values() for record in pair])
    return len(fresh)


def _write_ends(database: Database, ends: Sequence[EpisodeEnd]) -> None:
    """Of the episodes that the database has not heard of: it knows its own better."""
    named = select(episodes.c.namespace, episodes.c.id).where(episodes.c.id.in_([e.episode for e in ends]))
    with database.begin(write=True) as connection:
        there = {(space, id) for space, id in connection.execute(named)}
        write(connection, [end for end in ends if (end.namespace, end.episode) not in there])


def _records(step: LoggedStep, default_time: datetime) -> tuple[Decision, Shadow]:
    drawn, time = step.student, step.created_at or default_time
    audit = step.kind == "audit"
    kind: Literal["shadow", "audit"] = "audit" if audit else "shadow"
    id = step.id if step.id.startswith("de_") and len(step.id) <= 40 else _id(step)
    generated = sum(sample.tokens or 0 for sample in drawn.samples)
    asked = (drawn.prompt or Usage()) + Usage(output=generated)
    student = Call(
        role="student",
        purpose="sample" if audit else "shadow",
        model=drawn.model,
        usage=asked,
        dollars=_exact(dollars(drawn.price, asked if drawn.prompt else None)),
    )
    teacher = Call(
        role="teacher",
        purpose="audit" if audit else "act",
        model=step.teacher_model,
        usage=step.teacher_usage or Usage(),
        dollars=_exact(dollars(step.teacher_price, step.teacher_usage)),
    )
    votes = Counter(sample.action for sample in drawn.samples if sample.action is not None)
    best = votes.most_common(1)
    agreement = (best[0][1] if best else 0) / len(drawn.samples) if drawn.samples else None
    acted = (student,) if audit else (teacher,)
    episode = step.episode or id
    decision = Decision(
        id=id,
        episode=episode,
        namespace=step.namespace,
        step=step.step,
        goal=step.goal[:300],
        mode="cascade" if audit else "shadow",
        answered_by="student" if audit else "teacher",
        reason="loaded from a log",
        agreement=agreement if audit else None,
        votes=dict(votes) if audit else {},
        samples=len(drawn.samples) if audit else 0,
        invalid_samples=sum(sample.action is None for sample in drawn.samples) if audit else 0,
        action=(best[0][0] if best else None) if audit else step.teacher,
        demonstrations=drawn.demonstrations if audit else (),
        calls=acted,
        dollars=total(acted),
        teacher_dollars=teacher.dollars,
        created_at=time,
    )
    shadow = Shadow(
        decision=id,
        kind=kind,
        episode=episode,
        namespace=step.namespace,
        step=step.step,
        goal=step.goal,
        category=step.category,
        observation=step.observation,
        temperature=drawn.temperature,
        k=drawn.k,
        similarity=drawn.similarity,
        propensity=step.propensity,
        teacher_action=step.teacher,
        gold=step.gold,
        samples=drawn.samples,
        accepted=audit if step.accepted is None else step.accepted,
        agreement=agreement,
        demonstrations=drawn.demonstrations,
        calls=(teacher,) if audit else (student,),
        created_at=time,
    )
    return decision, shadow


def _id(step: LoggedStep) -> str:
    name = f"{len(step.namespace)}:{step.namespace}/{step.id}"
    return "de_" + hashlib.sha256(name.encode()).hexdigest()[:20]


def _exact(value: Decimal | None) -> Decimal | None:
    """As many places as the tables hold."""
    return None if value is None else value.quantize(Decimal(10) ** -12)


def _end(ends: dict[tuple[str, str], EpisodeEnd], decision: Decision, success: bool) -> None:
    key = decision.namespace, decision.episode
    before = ends.get(key)
    ends[key] = EpisodeEnd(
        episode=decision.episode,
        namespace=decision.namespace,
        goal=decision.goal,
        mode=decision.mode,
        success=success,
        steps=max(decision.step + 1, before.steps if before else 0),
        started_at=min(decision.created_at, before.started_at) if before else decision.created_at,
        finished_at=max(decision.created_at, before.finished_at) if before else decision.created_at,
    )
