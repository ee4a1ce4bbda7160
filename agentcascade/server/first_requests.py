"""First requests: what the first one would wait for, clients and their packages, is made before the server serves."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from agentcascade.cascade import Cascade
from agentcascade.errors import describe

log = logging.getLogger("agentcascade.server")


def prepare(cascades: Iterable[Cascade]) -> None:
    """Make the clients that the models of `cascades` have in the running event loop, and load the token counter.

    What cannot be made is left to the request that needs it, which says why.
    """
    for context in (cascade.context for cascade in cascades):
        context.count("first")
        for model in (context.teacher, context.student, *(student.model for student in context.students)):
            make = getattr(model, "prepare", None)
            if make is not None:
                try:
                    make()
                except Exception as error:
                    log.debug("the client of %s is not made before its first request: %s", model, describe(error))
