"""Checks, when a cascade is built, that the batches of its audits can be sent."""

from __future__ import annotations

import logging

from agentcascade.config.load import CascadeConfig
from agentcascade.errors import NoBatches, describe
from agentcascade.event_loop import LoopThread
from agentcascade.lifetime import close_models
from agentcascade.protocols import ChatModel

log = logging.getLogger("agentcascade.audit")

SECONDS = 5.0
"""For the question whether an endpoint has batches."""


def is_batched(config: CascadeConfig) -> bool:
    """Whether the configuration has audits that go by batches."""
    return config.audit.batch and config.audit.rate > 0


def check_batches(teacher: ChatModel) -> None:
    """Ask the teacher's endpoint whether it has batches; one that does not answer is taken to have some.

    Raises:
        NoBatches: It has none.
    """
    from agentcascade.batches.providers import provider_of

    provider = provider_of(teacher)

    async def check() -> None:
        try:
            await provider.check()
        finally:
            await close_models([teacher])

    thread = LoopThread()
    try:
        thread.run(check(), seconds=SECONDS)
    except NoBatches:
        raise
    except Exception as error:
        log.warning("audit.batch: %s does not say whether it has batches (%s)", teacher.name, describe(error))
    finally:
        thread.close()
