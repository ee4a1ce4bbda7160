"""Rounds of audits in the database, so that what a process drew, sent and did not judge is judged by the next one.

A round is written, redacted, before anything of it is sent. Who leads it holds it for a while, again and again; of a
process that is gone it is taken over. How far it is judged is counted in its row, by whoever holds it, so that each
audit is judged once.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import NamedTuple

from sqlalchemy import delete, select, update

from agentcascade.errors import describe
from agentcascade.redaction.redactor import Redactor
from agentcascade.storage.database import Database
from agentcascade.storage.record_lines import to_line
from agentcascade.storage.tables import audit_entries, audit_rounds
from agentcascade.storage.trajectories import chunks
from agentcascade.types import Frozen, Shadow, new_id, now

log = logging.getLogger("agentcascade.audit")

HOLD = timedelta(minutes=5)
"""For which a round is its holder's, unless it says again that it is there."""


class DrawnAudit(Frozen):
    """What of a drawn step is needed to judge it, whoever does.

    Args:
        shadow: Its record, without the teacher's answer; None where nobody need be asked, or it could not be redacted.
        is_asked: Whether the teacher is asked.
        action: The student's action key.
        tools: Names of the tools that were offered.
        wants_json: Whether the caller asked for JSON.
    """

    shadow: Shadow | None = None
    is_asked: bool = False
    action: str = ""
    tools: tuple[str, ...] = ()
    wants_json: bool = False


class AskedAudit(Frozen):
    """By which request the teacher was asked: its key, and, where several share it, the codes and this one's place."""

    key: str
    codes: tuple[str, ...] = ()
    place: int = 0


class StoredAudit(NamedTuple):
    """A drawn step, and how it was asked; None where nothing was sent for it."""

    drawn: DrawnAudit
    asked: AskedAudit | None


class StoredRound(NamedTuple):
    """A round that was taken over: `judged` of its audits are done with."""

    id: str
    judged: int
    audits: Sequence[StoredAudit]


class AuditRoundStore:
    """Rounds of audits in a database; all of it blocks.

    Args:
        database: Where they are.
        redactor: Redacts what is stored.
    """

    def __init__(self, database: Database, redactor: Redactor) -> None:
        self._database, self._redactor = database, redactor
        self.renew()

    def renew(self) -> None:
        """Hold nothing from now on, as after a fork."""
        self.owner: str = new_id("ow")

    def redacted(self, action: str) -> str:
        """An action key as it is stored, to be compared with one that is."""
        return self._redactor.text(action).encode(errors="replace").decode()

    def put(self, cascade: str, model: str, drawn: Sequence[DrawnAudit]) -> str:
        """Write a round of a cascade whose teacher is `model`, and hold it; returns its id."""
        id, present = new_id("ar"), now()
        lines = [to_line(self._safe(one)) for one in drawn]
        with self._database.begin(write=True) as connection:
            row = {"id": id, "cascade": cascade[:200], "model": model[:200], "owner": self.owner, "judged": 0}
            connection.execute(audit_rounds.insert(), [row | {"created_at": present, "held_until": present + HOLD}])
            rows = [{"round": id, "position": i, "drawn": line, "asked": None} for i, line in enumerate(lines)]
            for part in chunks(rows):
                connection.execute(audit_entries.insert(), list(part))
        return id

    def note_asked(self, id: str, asked: Mapping[int, AskedAudit]) -> None:
        """Write by which requests the audits at these positions are asked: before they are sent."""
        with self._database.begin(write=True) as connection:
            for position, one in asked.items():
                at = (audit_entries.c.round == id) & (audit_entries.c.position == position)
                connection.execute(update(audit_entries).where(at).values(asked=one.model_dump_json()))

    def note_judged(self, id: str, position: int) -> bool:
        """Count the audit at `position` as judged; False where another process holds the round, or has judged it."""
        mine = (audit_rounds.c.id == id) & (audit_rounds.c.owner == self.owner) & (audit_rounds.c.judged == position)
        with self._database.begin(write=self._database.is_sqlite) as connection:
            return connection.execute(update(audit_rounds).where(mine).values(judged=position + 1)).rowcount == 1

    def hold(self, ids: Sequence[str]) -> None:
        """Say that the holder of these rounds is there."""
        self._keep(ids, now() + HOLD)

    def release(self, ids: Sequence[str]) -> None:
        """Leave rounds to whoever comes."""
        self._keep(ids, now() - HOLD)

    def end(self, id: str) -> None:
        """Forget a round that is judged."""
        with self._database.begin(write=True) as connection:
            connection.execute(delete(audit_entries).where(audit_entries.c.round == id))
            connection.execute(delete(audit_rounds).where(audit_rounds.c.id == id))

    def take_over(self, cascade: str, model: str) -> list[StoredRound]:
        """Rounds of the cascade and teacher that nobody holds, oldest first; they are held from now on."""
        present = now()
        free = (audit_rounds.c.cascade == cascade[:200]) & (audit_rounds.c.model == model[:200])
        free &= audit_rounds.c.held_until < present
        with self._database.begin() as connection:
            query = select(audit_rounds.c.id, audit_rounds.c.judged).where(free).order_by(audit_rounds.c.created_at)
            found = connection.execute(query).all()
        taken = []
        for id, _ in found:
            values = {"owner": self.owner, "held_until": present + HOLD}
            taking = update(audit_rounds).where(audit_rounds.c.id == id, free).values(**values)
            with self._database.begin(write=True) as connection:
                if connection.execute(taking).rowcount != 1:
                    continue
                judged = connection.execute(select(audit_rounds.c.judged).where(audit_rounds.c.id == id)).scalar_one()
                rows = select(audit_entries).where(audit_entries.c.round == id).order_by(audit_entries.c.position)
                audits = [_read(row["drawn"], row["asked"]) for row in connection.execute(rows).mappings()]
            taken.append(StoredRound(id, judged, audits))
        return taken

    def _keep(self, ids: Sequence[str], until: object) -> None:
        if ids:
            mine = audit_rounds.c.id.in_(list(ids)) & (audit_rounds.c.owner == self.owner)
            with self._database.begin(write=True) as connection:
                connection.execute(update(audit_rounds).where(mine).values(held_until=until))

    def _safe(self, drawn: DrawnAudit) -> DrawnAudit:
        """Redacted; where that fails, without content: such an audit is a failed one to whoever takes it over."""
        if drawn.shadow is None:
            return drawn
        try:
            changed = {
                "shadow": self._redactor.shadow(drawn.shadow),
                "action": self._redactor.text(drawn.action),
                "tools": self._redactor.value(drawn.tools),
            }
            return drawn.model_copy(update=changed)
        except Exception as error:
            log.error("redaction fails, an audit that waits for its batch is not stored: %s", describe(error))
            return DrawnAudit(is_asked=True)


def _read(drawn: str, asked: str | None) -> StoredAudit:
    """As it was stored; one that cannot be read, of a newer version say, is a failed audit and holds up no other."""
    try:
        return StoredAudit(
            DrawnAudit.model_validate_json(drawn), AskedAudit.model_validate_json(asked) if asked else None
        )
    except (ValueError, RecursionError) as error:
        log.warning("an audit that another process left cannot be read (%s): a failed one", type(error).__name__)
        return StoredAudit(DrawnAudit(is_asked=True), None)
