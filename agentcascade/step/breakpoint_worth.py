"""Worth of prompt-cache breakpoints: what was read from the cache, less what writing to it cost more, as it is billed.

Writing to a cache is dearer than not caching. Where an agent's prompts are never read again (a clock in its system
prompt, one call an episode, steps further apart than the cache lives), what the provider reports says so, and
breakpoints are left out, but for a share of the episodes, in which they are tried again.
"""

from __future__ import annotations

from agentcascade._util import forking
from agentcascade._util.stable_draw import included
from agentcascade.protocols import ChatModel
from agentcascade.types import Usage

ENOUGH = 20
"""Requests with breakpoints before it is judged whether they are worth it."""
FORGET = 0.98
"""Weight of the requests before, at each request: about the last fifty count."""
RETRIED = 0.05
"""Share of the episodes in which breakpoints that were no use are set again."""


class BreakpointWorth:
    """What breakpoints saved and cost, by model, as the providers' own reports say. Thread-safe."""

    def __init__(self) -> None:
        self._lock = forking.lock()
        self._worth: dict[str, tuple[float, float]] = {}
        """Model → (dollars saved by what was read less what writing cost more, requests), both forgetting."""

    def tries(self, model: str, episode: str) -> bool:
        """Whether breakpoints are worth setting in this episode."""
        saved, requests = self._worth.get(model, (0.0, 0.0))
        return requests < ENOUGH or saved >= 0 or included(episode, RETRIED, "breakpoints")

    def add(self, model: ChatModel, usage: Usage) -> None:
        """A request with breakpoints was answered with this usage."""
        plain = Usage(input=usage.cached_input + usage.cache_write + usage.cache_write_1h)
        cached = usage.model_copy(update={"input": 0, "output": 0, "reasoning": 0})
        before, after = model.dollars(plain), model.dollars(cached)
        if before is None or after is None:
            return
        with self._lock:
            saved, requests = self._worth.get(model.name, (0.0, 0.0))
            self._worth[model.name] = FORGET * saved + float(before - after), FORGET * requests + 1
