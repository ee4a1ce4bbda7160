"""Economics in the server's log: at its start, what each cascade costs beside its teacher, and what would help."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from agentcascade.cascade import Cascade
from agentcascade.errors import describe

log = logging.getLogger("agentcascade.server")


def log_outlooks(cascades: Iterable[Cascade]) -> None:
    """Log the outlook of each cascade that asks a student, as a warning where it does not save. Never raises."""
    from agentcascade.economics.outlook import recorded_outlook

    for cascade in cascades:
        try:
            outlook = recorded_outlook(cascade.context)
        except Exception as error:  # what is served does not hang on it
            log.warning("what cascade %s costs beside its teacher is not known: %s", cascade.name, describe(error))
            continue
        if outlook is not None and cascade.config.mode in ("cascade", "shadow"):
            log.log(logging.INFO if outlook.pays else logging.WARNING, "%s", ". ".join(outlook.lines()))
