"""Early stopping of a run: models are checked before it, and a policy that keeps failing alike is ended."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping

from agentcascade.assembly import components
from agentcascade.assembly.components import OWN_CLASS, RECORDED
from agentcascade.billing.door import Door, Tab
from agentcascade.config.sections import ModelConfig
from agentcascade.errors import BenchError, EmptyCompletion, describe
from agentcascade.models.tokens import token_counter
from agentcascade.types import Message

MAX_ALIKE_FAILURES = 5
"""Failures of one kind in a row that end a policy"""
QUESTION: list[Message] = [{"role": "user", "content": "Say yes."}]
_VARYING = re.compile(r"0x[0-9a-f]+|\b[0-9a-f-]{16,}\b|\d+")


def check_models_answer(models: Mapping[str, ModelConfig | None]) -> None:
    """Check that each remote model, by its role, answers one short question; all are asked at once.

    Raises `BenchError` with every model that gave no answer, and why.
    """
    remote = {f"{role} {m.name}": m for role, m in models.items() if m is not None and _is_remote(m.name)}
    failures = asyncio.run(_ask_all(remote)) if remote else []
    if failures:
        raise BenchError(
            f"{'; '.join(failures)}: see the model's name, its key, and its address (--api-base) and --timeout where "
            "it is your own. Nothing else was asked or paid for"
        )


def _is_remote(name: str) -> bool:
    return not name.startswith(("offline/", RECORDED)) and OWN_CLASS.fullmatch(name) is None


async def _ask_all(models: Mapping[str, ModelConfig]) -> list[str]:
    async def one(what: str, config: ModelConfig) -> str | None:
        try:
            model, seconds = components.make_model(config, token_counter()), config.timeout_seconds
            await Door().call(model, QUESTION, {}, role="teacher", purpose="other", bill=Tab(), seconds=seconds + 1)
        except EmptyCompletion:  # it was there, and billed: what it says to a real question is its own affair
            return None
        except Exception as error:
            return f"the {what} does not answer ({describe(error)})"
        return None

    return [f for f in await asyncio.gather(*(one(*each) for each in models.items())) if f is not None]


class FailureBreaker:
    """Circuit breaker: counts consecutive failures of one kind, by what failed."""

    def __init__(self, alike: int = MAX_ALIKE_FAILURES) -> None:
        self._alike = alike
        self._last: dict[str, tuple[str, int]] = {}

    def is_one_too_many(self, what: str, failure: str | None) -> bool:
        """Count a failure of `what` (None: a success, which resets the count); whether it is one too many."""
        if failure is None:
            self._last.pop(what, None)
            return False
        kind = failure_kind(failure)
        before, count = self._last.get(what, ("", 0))
        self._last[what] = kind, count + 1 if before == kind else 1
        return self._last[what][1] >= self._alike


def failure_kind(failure: str) -> str:
    """Kind of a failure: its message with numbers and ids replaced."""
    return _VARYING.sub("#", failure)[:80]
