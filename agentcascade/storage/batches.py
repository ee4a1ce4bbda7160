"""Batches in the database: which requests were sent in which, so that none is sent, and none is billed, twice.

A batch is ``prepared`` (its requests are claimed, nothing was sent), ``submitting`` (the provider may have it),
``submitted`` (the provider's id is known), ``billed`` (so is each request) and ``ended`` (its reservation is settled,
too). One that never reached its provider is ``dropped``, and deleted when its reservation is given back. Every change
says from which state it leads, so that of several processes one makes it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple

from sqlalchemy import Connection, RowMapping, delete, func, select, update

from agentcascade.errors import InvalidRequest
from agentcascade.storage.database import Database
from agentcascade.storage.tables import batch_calls, batch_requests, batches
from agentcascade.storage.trajectories import chunks
from agentcascade.types import Call, Purpose, Role, now

OPEN = ("prepared", "submitting", "submitted")
CLAIMING = ("waiting", "succeeded")
"""States of requests that are not sent again: under way, or answered and not yet taken."""


class Batch(NamedTuple):
    """A batch as the database knows it.

    Args:
        id: Ours; also the name of its reservation, and in the provider's metadata.
        job: What it is for, to be shown.
        namespace: Whose money it is.
        role: In which the model answers.
        purpose: What for, as the ledger sums it up.
        model: Its name.
        api_base: Address of the endpoint; empty for the provider's own.
        provider_id: The provider's name of it; empty as long as that is not known.
        state: See above.
        status: In the provider's words, as last heard.
        error: What is wrong with it as a whole.
        requests: How many it holds.
        reserved: The most dollars that it may cost.
        created_at: When its requests were claimed.
        changed_at: When it came into its state.
        ended_at: When its results were billed.
    """

    id: str
    job: str
    namespace: str
    role: Role
    purpose: Purpose
    model: str
    api_base: str
    requests: int
    reserved: Decimal | None
    created_at: datetime
    changed_at: datetime
    provider_id: str = ""
    state: str = "prepared"
    status: str = ""
    error: str = ""
    ended_at: datetime | None = None

    @property
    def is_over(self) -> bool:
        """Whether nothing more comes of it, and it is billed."""
        return self.state in ("billed", "ended")


class ClaimedRequest(NamedTuple):
    """A request of a batch: its custom id and key, and the bounds by which its bill is checked, in tokens."""

    id: str
    batch: str
    key: str
    state: str
    answers: int
    prompt_tokens: int
    output_tokens: int
    error: str = ""


class BilledRequest(NamedTuple):
    """What became of a request, what it did cost, and what it would have cost at once."""

    id: str
    state: str
    error: str
    call: Call | None
    ordinary: Decimal | None


class BatchBill(NamedTuple):
    """Dollars of batches, beside what the same requests would have cost at once."""

    batches: int
    requests: int
    dollars: Decimal | None
    ordinary: Decimal | None


class BatchStore:
    """Batches and their requests in a database."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def find(self, keys: Sequence[str]) -> dict[str, ClaimedRequest]:
        """Those of the keys that are under way, or answered and not taken."""
        claimed: dict[str, ClaimedRequest] = {}
        with self.database.begin() as connection:
            for part in chunks(sorted(set(keys))):
                claimed |= _find(connection, part)
        return claimed

    def prepare(self, batch: Batch, requests: Sequence[ClaimedRequest]) -> bool:
        """Claim the requests for a batch; False, and nothing is written, where another process has claimed one."""
        with self.database.begin(write=True) as connection:
            for part in chunks([r.key for r in requests]):
                if _find(connection, part):
                    return False
            connection.execute(batches.insert(), [batch._asdict() | {"episode": ""}])
            for rows in chunks(requests):
                connection.execute(batch_requests.insert(), [row._asdict() for row in rows])
        return True

    def change(self, id: str, before: str, after: str, **values: Any) -> bool:
        """Lead a batch from one state into another; False where it is not in the first."""
        if before != after:
            values |= {"changed_at": now()}
        query = update(batches).where(batches.c.id == id, batches.c.state == before)
        with self.database.begin(write=self.database.is_sqlite) as connection:
            return connection.execute(query.values(state=after, **values)).rowcount == 1

    def drop(self, id: str, before: str) -> bool:
        """Free the requests of a batch that never reached its provider; False as of `change`."""
        with self.database.begin(write=True) as connection:
            dropping = update(batches).where(batches.c.id == id, batches.c.state == before)
            if connection.execute(dropping.values(state="dropped", changed_at=now())).rowcount != 1:
                return False
            connection.execute(delete(batch_requests).where(batch_requests.c.batch == id))
        return True

    def unsettled(self) -> Sequence[tuple[str, Decimal]]:
        """Batches that are over, with what they did cost, whose reservations are not known to be settled."""
        query = select(batches.c.id).where(batches.c.state.in_(("billed", "dropped")))
        with self.database.begin() as connection:
            ids = list(connection.execute(query).scalars())
        return [(id, self.known_dollars_of(id)) for id in ids]

    def note_settled(self, id: str) -> None:
        """A batch that is over has its reservation settled."""
        with self.database.begin(write=True) as connection:
            connection.execute(delete(batches).where(batches.c.id == id, batches.c.state == "dropped"))
            ending = update(batches).where(batches.c.id == id, batches.c.state == "billed")
            connection.execute(ending.values(state="ended"))

    def finish(self, id: str, status: str, error: str, billed: Sequence[BilledRequest]) -> bool:
        """Bill every request of the batch, at once or not at all; False where that was done before."""
        with self.database.begin(write=True) as connection:
            values = {"state": "billed", "status": status, "error": error, "changed_at": now(), "ended_at": now()}
            ending = update(batches).where(batches.c.id == id, batches.c.state == "submitted").values(**values)
            if connection.execute(ending).rowcount != 1:
                return False
            lines = [
                r.call.model_dump(exclude={"usage"})
                | r.call.usage.model_dump()
                | {"batch": id, "request": r.id, "ordinary": r.ordinary}
                for r in billed
                if r.call is not None
            ]
            for part in chunks(lines):
                connection.execute(batch_calls.insert(), list(part))
            by_state: dict[tuple[str, str], list[str]] = {}
            for r in billed:
                by_state.setdefault((r.state, r.error), []).append(r.id)
            for (state, why), ids in by_state.items():
                for part in chunks(ids):
                    changed = update(batch_requests).where(batch_requests.c.id.in_(part))
                    connection.execute(changed.values(state=state, error=why))
        return True

    def take(self, ids: Sequence[str]) -> None:
        """Note that what was answered is kept elsewhere: the same request is sent anew from now on."""
        with self.database.begin(write=self.database.is_sqlite) as connection:
            for part in chunks(ids):
                answered = (batch_requests.c.id.in_(part)) & (batch_requests.c.state == "succeeded")
                connection.execute(update(batch_requests).where(answered).values(state="taken"))

    def requests_of(self, id: str) -> list[ClaimedRequest]:
        """The requests of a batch."""
        with self.database.begin() as connection:
            rows = connection.execute(select(batch_requests).where(batch_requests.c.batch == id))
            return [ClaimedRequest(**row) for row in rows.mappings()]

    def get(self, id: str) -> Batch | None:
        """The batch of that id, or the only one whose id begins so; None where there is none.

        Raises:
            InvalidRequest: Several begin so.
        """
        query = select(batches).where(batches.c.id.startswith(id, autoescape=True)).limit(2)
        with self.database.begin() as connection:
            rows = connection.execute(query).mappings().all()
        if len(rows) > 1 and id not in {row["id"] for row in rows}:
            raise InvalidRequest(f"several batches begin with '{id}': give more of the id")
        return next((_batch(row) for row in rows if row["id"] == id or len(rows) == 1), None)

    def newest(self, *, open_only: bool = False, limit: int = 50) -> list[Batch]:
        """Batches, newest first."""
        query = select(batches).order_by(batches.c.created_at.desc(), batches.c.id).limit(limit)
        query = query.where(batches.c.state.in_(OPEN) if open_only else batches.c.state != "dropped")
        with self.database.begin() as connection:
            return [_batch(row) for row in connection.execute(query).mappings()]

    def provider_ids(self, model: str) -> list[str]:
        """The provider's names of all batches of a model that are known here."""
        query = select(batches.c.provider_id).where(batches.c.model == model, batches.c.provider_id != "")
        with self.database.begin() as connection:
            return list(connection.execute(query).scalars())

    def dollars_of(self, id: str) -> Decimal | None:
        """What the batch did cost, as it is billed; None where a price is not known."""
        query = select(func.sum(batch_calls.c.dollars), func.count() - func.count(batch_calls.c.dollars))
        with self.database.begin() as connection:
            dollars, unpriced = connection.execute(query.where(batch_calls.c.batch == id)).one()
        return None if unpriced else dollars or Decimal(0)

    def known_dollars_of(self, id: str) -> Decimal:
        """The same, without calls whose price is not known."""
        query = select(func.sum(batch_calls.c.dollars)).where(batch_calls.c.batch == id)
        with self.database.begin() as connection:
            return connection.execute(query).scalar() or Decimal(0)

    def outcomes_of(self, id: str) -> Mapping[str, int]:
        """How many of its requests are in which state."""
        state = batch_requests.c.state
        query = select(state, func.count()).where(batch_requests.c.batch == id).group_by(state)
        with self.database.begin() as connection:
            return {name: int(count) for name, count in connection.execute(query)}

    def bill(self, namespace: str | None = None, since: datetime | None = None) -> BatchBill:
        """What batches did cost, and would have cost at once; None where a price is not known."""
        unpriced = func.count() - func.count(batch_calls.c.dollars)
        columns = func.count(batches.c.id.distinct()), func.count(), func.sum(batch_calls.c.dollars)
        query = select(*columns, func.sum(batch_calls.c.ordinary), unpriced).join_from(batch_calls, batches)
        if namespace is not None:
            query = query.where(batches.c.namespace == namespace)
        if since is not None:
            query = query.where(batches.c.created_at >= since)
        with self.database.begin() as connection:
            number, requests, dollars, ordinary, unknown = connection.execute(query).one()
        if unknown:
            return BatchBill(number, requests, None, None)
        return BatchBill(number, requests, dollars or Decimal(0), ordinary or Decimal(0))


def _find(connection: Connection, keys: Sequence[str]) -> dict[str, ClaimedRequest]:
    query = select(batch_requests).where(batch_requests.c.key.in_(keys), batch_requests.c.state.in_(CLAIMING))
    return {row["key"]: ClaimedRequest(**row) for row in connection.execute(query).mappings()}


def _batch(row: RowMapping) -> Batch:
    return Batch(**{name: row[name] for name in Batch._fields})
