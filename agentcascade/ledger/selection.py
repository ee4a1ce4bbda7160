"""Selection of steps by filters: client, cascade, model, period, who took them; as SQL conditions on decisions."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from sqlalchemy import Connection, Table, exists, select

from agentcascade.ledger.conditions import Conditions
from agentcascade.storage.tables import calls, decisions
from agentcascade.types import Frozen

Taken = Literal["", "student", "deferred"]


class Selection(Frozen):
    """Steps of a period, of one namespace or (None) of all, narrowed by what is not empty."""

    namespace: str | None = None
    since: datetime
    until: datetime
    cascade: str = ""
    model: str = ""
    """That was called in the step, by whatever role."""
    taken: Taken = ""
    """``student``: by the student; ``deferred``: by the teacher, where the student could have been asked."""

    @property
    def is_narrowed(self) -> bool:
        """Whether it asks for more than a namespace and a period, which have an index."""
        return bool(self.cascade or self.model or self.taken)

    def narrowing(self) -> Conditions:
        """Conditions beyond namespace and period."""
        found: Conditions = []
        if self.cascade:
            found.append(decisions.c.cascade == self.cascade)
        if self.model:
            call = calls.alias()
            found.append(exists().where(call.c.decision == decisions.c.id, call.c.model == self.model))
        if self.taken == "student":
            found.append(decisions.c.answered_by == "student")
        if self.taken == "deferred":
            found.append((decisions.c.mode == "cascade") & (decisions.c.answered_by == "teacher"))
        return found

    def period(self, table: Table = decisions, time: str = "created_at") -> Conditions:
        """Conditions that an index over the time, or over (namespace, time), answers."""
        within = [table.c[time] >= self.since, table.c[time] < self.until]
        return within if self.namespace is None else [table.c.namespace == self.namespace, *within]

    def conditions(self) -> Conditions:
        """All conditions on decisions."""
        return [*self.period(), *self.narrowing()]

    def newest(self, connection: Connection, steps: int) -> Selection:
        """The selection with `since` so late that at most so many steps lie in its period, whoever took them.

        One walk along an index finds the time; every question to what it gives is bounded.
        """
        time = decisions.c.created_at
        times = select(time).where(*self.period()).order_by(time.desc()).offset(steps).limit(1)
        floor = connection.execute(times).scalar()
        return self if floor is None else self.model_copy(update={"since": floor})
