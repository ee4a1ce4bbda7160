"""Secret that signs the dashboard's sessions: the configured one, else one of this start of the server."""

from __future__ import annotations

import logging
import os
import secrets
from functools import cache
from typing import TYPE_CHECKING

from agentcascade._util import known_secrets

if TYPE_CHECKING:
    from agentcascade.config.sections import ServerConfig

VARIABLE = "AGENTCASCADE_WORKERS_SESSION_SECRET"
"""How the worker processes of one `serve` learn the secret that they share."""
log = logging.getLogger("agentcascade.server")


def new_secret() -> str:
    """A random secret of 256 bits."""
    return secrets.token_urlsafe(32)


@cache
def of_process() -> str:
    """The secret of this process, or of the server that it is a worker of; the same after SIGHUP."""
    return os.environ.get(VARIABLE) or new_secret()


def session_secret(settings: ServerConfig, *, replicated: bool = False) -> str:
    """What sessions are signed with; where servers may be `replicated` and none is configured, that is logged."""
    if settings.session_secret is not None:
        secret = settings.session_secret.get_secret_value()
    else:
        secret = of_process()
        if replicated and not settings.open:
            log.warning(
                "server.session_secret is not set: who signs in to the dashboard here is unknown to other servers over "
                "this database, and to this one after a restart. Set AGENTCASCADE_SERVER__SESSION_SECRET to the same "
                "text of at least 32 random characters everywhere"
            )
    known_secrets.register(secret, configured=True)
    return secret
