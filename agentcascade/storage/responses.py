"""Responses kept for their clients (`previous_response_id`), sealed: whoever has the database alone cannot read them.

A conversation must come back as it was, so it cannot be redacted. Its key is made of the response's id, which is
random, known to the client, and kept nowhere else: the database has a digest of it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any, NamedTuple

from sqlalchemy import delete, select

from agentcascade.errors import InvalidRequest
from agentcascade.storage.database import Database
from agentcascade.storage.sealing import seal, unseal
from agentcascade.storage.tables import responses
from agentcascade.storage.trajectories import chunks
from agentcascade.types import now

MOST_EARLIER = 2_000
"""Responses in one conversation."""
MOST_BYTES = 64_000_000
"""Of one conversation."""


class KeptResponse(NamedTuple):
    """A response with what it answered."""

    id: str
    episode: str
    earlier: Sequence[str]
    """Ids of the responses before it, oldest first."""
    input: Sequence[Any]
    """The items that this request added."""
    response: dict[str, Any]


class ResponseStore:
    """Responses by namespace and id. Blocks: call it in a thread."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def save(self, namespace: str, kept: KeptResponse) -> None:
        """Keep a response. Raises `StorageError`, and `InvalidRequest` for a conversation that is too long."""
        if len(kept.earlier) >= MOST_EARLIER:
            raise InvalidRequest(f"a conversation has at most {MOST_EARLIER:,} responses: begin another one")
        body = json.dumps(kept._asdict(), separators=(",", ":"), default=str).encode()
        row = {
            "key": _key(namespace, kept.id),
            "namespace": namespace,
            "created_at": now(),
            "body": seal(_sealing_key(kept.id), body),
        }
        with self._database.begin(write=self._database.is_sqlite) as connection:
            connection.execute(responses.insert(), row)

    def find(self, namespace: str, id: str) -> KeptResponse | None:
        """The response; None for one that is not kept in this namespace."""
        return self.find_all(namespace, [id]).get(id)

    def find_all(self, namespace: str, ids: Sequence[str]) -> dict[str, KeptResponse]:
        """Those that are kept. Raises `InvalidRequest` where they are larger than a conversation may be."""
        wanted = {_key(namespace, id): id for id in ids}
        found: dict[str, KeptResponse] = {}
        room = MOST_BYTES
        with self._database.reading() as connection:
            for part in chunks(sorted(wanted)):
                for row in connection.execute(select(responses).where(responses.c.key.in_(part))):
                    body = _unsealed(wanted[row.key], row.body, room)
                    room -= len(body)
                    found[wanted[row.key]] = KeptResponse(**json.loads(body))
        return found

    def conversation(self, namespace: str, id: str) -> list[KeptResponse] | None:
        """The response and those before it, oldest first; None where one of them is not kept any more."""
        last = self.find(namespace, id)
        if last is None:
            return None
        found = self.find_all(namespace, last.earlier)
        return [*(found[i] for i in last.earlier), last] if len(found) == len(last.earlier) else None

    def delete(self, namespace: str, id: str) -> bool:
        """Forget a response; returns whether it was kept."""
        with self._database.begin(write=self._database.is_sqlite) as connection:
            gone = connection.execute(delete(responses).where(responses.c.key == _key(namespace, id)))
        return bool(gone.rowcount)


def _key(namespace: str, id: str) -> str:
    return blake2b(f"{namespace}\0{id}".encode(errors="replace"), digest_size=32, person=b"ac-response-row").hexdigest()


def _sealing_key(id: str) -> bytes:
    return blake2b(id.encode(errors="replace"), digest_size=32, person=b"ac-response-key").digest()


def _unsealed(id: str, data: bytes, room: int) -> bytes:
    body = unseal(_sealing_key(id), data, room)
    if body is None:
        raise InvalidRequest(f"this conversation has more than {MOST_BYTES:,} bytes: send its input yourself")
    return body
