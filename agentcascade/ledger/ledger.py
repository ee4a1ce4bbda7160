"""The ledger: dollars spent, dollars saved, and when the demonstrations pay off."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import ColumnElement, Float, Select, Table, case, cast, func, select, union_all

from agentcascade.errors import InvalidRequest, did_you_mean
from agentcascade.ledger.conditions import BILLS, count_rows
from agentcascade.storage import Database
from agentcascade.storage.memory_recorder import MemoryRecorder as MemoryRecorder
from agentcascade.storage.recorder import DatabaseRecorder as DatabaseRecorder
from agentcascade.storage.tables import batches, decisions, recalls, rewrites
from agentcascade.types import Frozen, Role, Usage


class Summary(Frozen):
    """One line of the ledger's summary. Dollars are None where a price is unknown; the known ones sum up the rest.

    `known_teacher_dollars` leaves out the `unestimated_steps`: those that failed after something was paid, and those
    of a teacher without a price. `known_saved_dollars` counts what they cost as not saved.
    """

    group: str
    steps: int
    deferred: int
    usage: Usage
    dollars: Decimal | None
    known_dollars: Decimal
    unpriced_calls: int
    estimated_calls: int = 0
    """Calls whose tokens were counted here, since their provider did not say."""
    teacher_dollars: Decimal | None
    saved_dollars: Decimal | None
    known_teacher_dollars: Decimal = Decimal(0)
    known_saved_dollars: Decimal = Decimal(0)
    unestimated_steps: int = 0
    known_cache_regret: Decimal = Decimal(0)
    """Of the dollars, what teachers' calls cost more since the student's steps before them left their caches cold."""
    cached_calls: int = 0
    """Calls that the response cache answered: nobody was asked. They are in no other figure."""
    cached_tokens: int = 0
    """Of these, all of which were not bought."""
    avoided_dollars: Decimal = Decimal(0)
    """What their answers cost when they were bought, as far as that is known: spared, and no part of what is saved."""
    uncached_steps: int = 0
    """Steps of earlier versions, whose teacher alone was estimated without a prompt cache: dearer than it would be."""

    @property
    def deferral_share(self) -> float:
        return self.deferred / self.steps if self.steps else 0.0


class Spending(Frozen):
    """What one model cost in one role. `known_dollars` leaves out the `unpriced_calls`."""

    role: Role
    model: str
    calls: int
    usage: Usage
    known_dollars: Decimal
    unpriced_calls: int
    estimated_calls: int = 0
    cached_calls: int = 0
    """Calls that the response cache answered, which `calls` and `usage` leave out."""
    cached_tokens: int = 0
    avoided_dollars: Decimal = Decimal(0)

    @property
    def dollars(self) -> Decimal | None:
        """None where a price is unknown."""
        return None if self.unpriced_calls else self.known_dollars


GROUPS = "all", "namespace", "mode", "episode"
MEMORY = "memory"
"""The mode of recalls that no agent's step asked for."""
REWRITING = "bank shorten"
"""The mode of rewriting what is banked."""
BATCH = "batch"
"""The mode of what was sent by the providers' batch interfaces, whatever for."""
MODES = {recalls.name: MEMORY, rewrites.name: REWRITING, batches.name: BATCH}


class Ledger:
    """Spending and savings, summed up from the decisions and calls that a database holds.

    What recalls of their own, rewriting the bank and batches cost is in every bill, although they are no steps.

    Args:
        database: The database that cascades record into. It stays open: it is its owner's.

    >>> from agentcascade.storage import open_database
    >>> ledger = Ledger(open_database("sqlite:///:memory:"))
    >>> ledger.summary("mode")
    []
    """

    def __init__(self, database: Database) -> None:
        self.database = database

    def _repr_html_(self) -> str:
        """In a notebook: what was spent and saved by mode, and by model."""
        from agentcascade._util.notebook import html_of_models

        modes = "group", "steps", "deferred", "dollars", "teacher_dollars", "saved_dollars", "known_dollars"
        models = "model", "role", "calls", "dollars", "known_dollars", "unpriced_calls"
        spent = html_of_models(self.summary("mode"), caption="Ledger by mode", names=modes)
        return spent + html_of_models(self.spending(), caption="Ledger by model", names=models)

    def summary(self, by: str = "all", *, namespace: str | None = None, since: datetime | None = None) -> list[Summary]:
        """Spending and savings, one line per group.

        Args:
            by: What steps are grouped by: ``all``, ``namespace``, ``mode`` or ``episode``.
            namespace: Only of this namespace; None for all of them.
            since: Only of steps since then (an aware time); None for all of them.

        Returns:
            The groups' lines in the order of their names; none where nothing was recorded.

        Raises:
            InvalidRequest: For another `by`.
            StorageError: When the database fails.
        """
        if by not in GROUPS:
            raise InvalidRequest(f"the ledger cannot be grouped by '{by}': {did_you_mean(by, GROUPS)}")
        heads = (
            select(
                _group(by, decisions),
                func.count().label("steps"),
                func.sum(case((decisions.c.answered_by == "teacher", 1), else_=0)).label("deferred"),
                func.sum(case((decisions.c.teacher_dollars.is_(None), 1), else_=0)).label("unestimated"),
                func.sum(decisions.c.teacher_dollars).label("teacher"),
                func.sum(decisions.c.cache_regret).label("regret"),
                func.sum(case((_is_uncached(), 1), else_=0)).label("uncached"),
            )
            .where(*_conditions(decisions, namespace, since))
            .group_by("name")
        )
        bills = _bills(lambda lines, owner: [_group(by, owner)], namespace, since)
        with self.database.begin() as connection:
            headed = {row.name: row for row in connection.execute(heads)}
            billed = {row["name"]: row for row in connection.execute(bills).mappings()}
        return [_summary(name, headed.get(name), billed.get(name)) for name in sorted(headed.keys() | billed.keys())]

    def episode_dollars(self, mode: str, *, namespace: str | None = None) -> Decimal | None:
        """Mean dollars of an episode.

        Args:
            mode: Of the episodes with a step in this mode, e.g. ``teacher`` or ``cascade``.
            namespace: Only of this namespace; None for all of them.

        Returns:
            Dollars per episode; None when there is none or a price is unknown.

        Raises:
            StorageError: When the database fails.
        """
        lines = [s for s in self.summary("episode", namespace=namespace) if s.steps]
        with self.database.begin() as connection:
            in_mode = set(connection.execute(select(decisions.c.episode).where(decisions.c.mode == mode)).scalars())
        bills = [s.dollars for s in lines if s.group in in_mode]
        if not bills or None in bills:
            return None
        return sum((b for b in bills if b is not None), Decimal(0)) / len(bills)

    def spending(self, *, namespace: str | None = None, since: datetime | None = None) -> list[Spending]:
        """Calls, tokens and dollars by role and model.

        Args:
            namespace: Only of this namespace; None for all of them.
            since: Only of calls since then (an aware time); None for all of them.

        Returns:
            One `Spending` per role and model, in that order.

        Raises:
            StorageError: When the database fails.
        """
        query = _bills(lambda lines, owner: [lines.c.role, lines.c.model], namespace, since)
        with self.database.begin() as connection:
            return [
                Spending(
                    role=row["role"],
                    model=row["model"],
                    calls=int(row["count"]),
                    usage=_usage(row),
                    known_dollars=row["known"] or Decimal(0),
                    unpriced_calls=int(row["unpriced"]),
                    estimated_calls=int(row["estimated"]),
                    **_cached(row),
                )
                for row in connection.execute(query.order_by("role", "model")).mappings()
            ]

    def agreement(self) -> list[tuple[float, int]]:
        """How often samples agreed, over all steps that were voted on.

        Returns:
            (agreement in [0, 1], number of steps), lowest agreement first.

        Raises:
            StorageError: When the database fails.
        """
        level = cast(decisions.c.agreement, Float)
        query = select(level, func.count()).where(decisions.c.agreement.is_not(None)).group_by(level).order_by(level)
        with self.database.begin() as connection:
            return [(float(a), int(n)) for a, n in connection.execute(query)]


def _bills(keys: Callable[[Table, Table], list[Any]], namespace: str | None, since: datetime | None) -> Select[Any]:
    """Sums over all calls that were billed, by `keys` of a call's line and its owner."""
    parts = []
    for lines, owner in BILLS:
        columns = keys(lines, owner)
        hit = lines.c.cached_response.is_(True)
        sums = [func.sum(case((hit, 0), else_=lines.c[name])).label(name) for name in Usage.model_fields]
        sums += [
            count_rows(hit).label("cached"),
            func.sum(case((hit, sum(lines.c[name] for name in Usage.model_fields)), else_=0)).label("cached_tokens"),
            func.sum(lines.c.avoided_dollars).label("avoided"),
        ]
        count, known_dollars = count_rows(~hit).label("count"), func.sum(lines.c.dollars).label("known")
        unpriced = func.sum(case((lines.c.dollars.is_(None), 1), else_=0)).label("unpriced")
        estimated = func.sum(case((lines.c.estimated, 1), else_=0)).label("estimated")  # of hits none is
        part = select(*columns, *sums, count, known_dollars, unpriced, estimated).join_from(lines, owner)
        parts.append(part.where(*_conditions(owner, namespace, since)).group_by(*columns))
    united = union_all(*parts).subquery()
    counts = (*Usage.model_fields, "count", "known", "unpriced", "estimated", "cached", "cached_tokens", "avoided")
    sums = [func.sum(united.c[name]).label(name) for name in counts]
    group_columns = [united.c[c.name] for c in columns]
    return select(*group_columns, *sums).group_by(*group_columns)


def _group(by: str, owner: Table) -> ColumnElement[Any]:
    """What a decision, a recall, a rewriting or a batch is counted under, as ``name``."""
    if by == "all" or (by == "mode" and owner is not decisions):
        return func.coalesce(None, by if by == "all" else MODES[owner.name]).label("name")
    return owner.c[by].label("name")


def _conditions(owner: Table, namespace: str | None, since: datetime | None) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if namespace is not None:
        conditions.append(owner.c.namespace == namespace)
    if since is not None:
        conditions.append(owner.c.created_at >= since)
    return conditions


def _is_uncached() -> ColumnElement[bool]:
    """Whether a decision's teacher alone was estimated by a version that knew of no cache."""
    return decisions.c.teacher_dollars.is_not(None) & decisions.c.cache_regret.is_(None)


def _usage(row: Any) -> Usage:
    return Usage(**{name: int(row[name] or 0) for name in Usage.model_fields})


def _cached(row: Any) -> dict[str, Any]:
    """Figures of the calls that the response cache answered."""
    avoided = row["avoided"] or Decimal(0)
    return {"cached_calls": int(row["cached"]), "cached_tokens": int(row["cached_tokens"]), "avoided_dollars": avoided}


def _summary(name: str, head: Any, bill: Any) -> Summary:
    """`head` is None for a group without steps, `bill` for one without calls."""
    unpriced = int(bill["unpriced"]) if bill else 0
    known_dollars = (bill["known"] if bill else None) or Decimal(0)
    dollars = None if unpriced else known_dollars
    steps, unestimated = (head.steps, int(head.unestimated or 0)) if head else (0, 0)
    known_teacher = (head.teacher if head else None) or Decimal(0)
    teacher = None if unestimated else known_teacher
    return Summary(
        group=str(name),
        steps=steps,
        deferred=int(head.deferred or 0) if head else 0,
        usage=_usage(bill) if bill else Usage(),
        dollars=dollars,
        known_dollars=known_dollars,
        unpriced_calls=unpriced,
        estimated_calls=int(bill["estimated"]) if bill else 0,
        teacher_dollars=teacher,
        saved_dollars=None if dollars is None or teacher is None else teacher - dollars,
        known_teacher_dollars=known_teacher,
        known_saved_dollars=known_teacher - known_dollars,
        unestimated_steps=unestimated,
        known_cache_regret=(head.regret if head else None) or Decimal(0),
        uncached_steps=int(head.uncached or 0) if head else 0,
        **(_cached(bill) if bill else {}),
    )


def break_even(demonstrations: Decimal, teacher: Decimal, cascade: Decimal) -> float | None:
    """Episodes after which the demonstrations have paid for themselves (IDC, "break-even").

    Args:
        demonstrations: Dollars that collecting them cost.
        teacher: Dollars of an episode by the teacher alone.
        cascade: Dollars of an episode by the cascade.

    Returns:
        The demonstrations' cost over what an episode saves; None when it saves nothing.

    >>> break_even(Decimal(12), teacher=Decimal("0.50"), cascade=Decimal("0.10"))
    30.0
    """
    saved = teacher - cascade
    return float(demonstrations / saved) if saved > 0 else None
