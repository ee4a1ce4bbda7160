"""Sessions of the dashboard: signed texts that stand for a key until it is revoked, its holder signs out, or 12 hours.

A session is signed with a secret of the server over the key's stored hash: who reads the database can sign none, and
who knows a key's hash and number of ended sessions cannot either. Nothing is stored for a session, so none can be had
in numbers that fill a table; signing out ends all of the key's, by a number in its row that each of them names.
"""

from __future__ import annotations

import hmac
import re
import time

from agentcascade._util.threads import apart
from agentcascade.errors import InvalidKey
from agentcascade.storage.keys import NEW_SECONDS, ApiKey, Keys, StoredKey

SESSION = re.compile(r"([a-z0-9]{12})\.([0-9]{1,12})\.([0-9]{1,9})\.([0-9a-f]{64})")
OVER = "the session is over: sign in again"


class Sessions:
    """Opens, checks and ends sessions of keys.

    Args:
        keys: Those of the server.
        secret: Of the server, known to every process that shall know its sessions.
    """

    def __init__(self, keys: Keys, secret: str) -> None:
        self._keys = keys
        self._secret = secret.encode()

    async def open(self, token: str, seconds: float) -> str:
        """A text that stands for a valid key for so long, but is not the key. Raises `InvalidKey`."""
        key = await self._keys.check(token)
        # signing out a moment ago, at another replica, must not end what begins now
        stored = await self._keys.stored(key.id, NEW_SECONDS)
        if stored is None:
            raise InvalidKey(OVER)
        expires = int(time.time() + seconds)
        return f"{key.id}.{expires}.{stored.sessions_ended}.{self._sign(stored, expires, stored.sessions_ended)}"

    async def check(self, session: str) -> ApiKey:
        """The key of a session that is not over. Raises `InvalidKey`."""
        stored, sessions_ended = await self._verified(session)
        if stored.sessions_ended != sessions_ended or not stored.key.valid:
            raise InvalidKey(OVER)
        return stored.key

    async def end(self, session: str) -> None:
        """End this session and all others of its key, on every replica within seconds; one that is over is left.

        Raises `StorageError` where the database does not take it: then none has ended.
        """
        try:
            stored, sessions_ended = await self._verified(session)
        except InvalidKey:
            return
        await apart(self._keys.end_sessions, stored.key.id, sessions_ended)

    async def _verified(self, session: str) -> tuple[StoredKey, int]:
        """The key that a session was opened for, and its number. Raises `InvalidKey` for one that we did not sign."""
        parts = SESSION.fullmatch(session)
        if parts is None:
            raise InvalidKey(OVER)
        id, expires, sessions_ended = parts[1], int(parts[2]), int(parts[3])
        stored = await self._keys.stored(id)
        if stored is None or expires < time.time():
            raise InvalidKey(OVER)
        if not hmac.compare_digest(self._sign(stored, expires, sessions_ended), parts[4]):
            raise InvalidKey(OVER)
        return stored, sessions_ended

    def _sign(self, stored: StoredKey, expires: int, sessions_ended: int) -> str:
        signed = f"agentcascade dashboard session {stored.key.id} {stored.hash} {expires} {sessions_ended}"
        return hmac.new(self._secret, signed.encode(), "sha256").hexdigest()
