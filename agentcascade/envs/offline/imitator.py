"""`offline/imitator`: a deterministic in-context learner, the offline stand-in for a cheap student.

It is not a language model. It sees nothing but its prompt, copies by analogy from the demonstrations in it (see
`analogy`), and at a temperature above 0 draws from its own scores, so that its agreement with itself says how sure it
is. Its tokens are counted and billed like a model's, at prices that the user names.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Sequence
from decimal import Decimal
from hashlib import blake2b
from typing import Any

from agentcascade.envs.offline.analogy import Candidate, candidates
from agentcascade.envs.offline.prompt_parser import parse_prompt
from agentcascade.envs.offline.stand_in import StandIn
from agentcascade.errors import InvalidRequest
from agentcascade.models.tokens import count_messages
from agentcascade.prompts.additions import by_default
from agentcascade.prompts.read_back import with_structure
from agentcascade.protocols import TokenCounter
from agentcascade.types import Completion, Message, Tool, Usage

DOUBT = 0.05
"""Added to every score, so that where nothing fits well the draws differ."""
NOTHING_KNOWN = Candidate("look", "I do not know what to do, so I look around.", 0.0)


class Imitator(StandIn):
    """Implements `ChatModel`. The same messages, seed and temperature give the same answers in any process."""

    name = "offline/imitator"

    def __init__(self, count: TokenCounter, dollars: Callable[[Usage], Decimal | None], seed: int = 0) -> None:
        super().__init__(count, dollars)
        self._seed = seed

    async def complete(
        self,
        messages: Sequence[Message],
        *,
        n: int = 1,
        temperature: float | None = None,
        seed: int | None = None,
        tools: Sequence[Tool] | None = None,
        timeout: float | None = None,
        **options: Any,
    ) -> Completion:
        """`n` independent draws with seeds `seed`, `seed` + 1 …: in whatever requests they come, they are the same.

        The prompt is billed once. Raises `InvalidRequest` without messages.
        """
        if not messages:
            raise InvalidRequest("messages is empty: send at least one user message")
        started = time.perf_counter()
        messages = with_structure(messages)  # it may have come over HTTP
        found = candidates(parse_prompt(messages)) or [NOTHING_KNOWN]
        words = json.dumps([by_default(m) for m in messages], sort_keys=True, default=str)
        digest = blake2b(words.encode(), digest_size=8).hexdigest()
        chosen = [
            draw(found, temperature or 0.0, random.Random(f"{self._seed} {(seed or 0) + sample} {digest} 0"))
            for sample in range(n)
        ]
        texts = [f"Thought: {c.thought}\nAction: {c.action}" for c in chosen]
        usage = Usage(input=count_messages(messages, self._count), output=sum(map(self._count, texts)))
        return Completion(
            model=self.name,
            messages=tuple({"role": "assistant", "content": text} for text in texts),
            finish_reasons=("stop",) * n,
            usage=usage,
            dollars=self.dollars(usage),
            seconds=time.perf_counter() - started,
        )


def draw(found: Sequence[Candidate], temperature: float, rng: random.Random) -> Candidate:
    """The best candidate at temperature 0, else one drawn with probability ∝ (score + doubt)^(1/temperature)."""
    if temperature <= 0:
        return found[0]
    weights = [((c.score + DOUBT) / (found[0].score + DOUBT)) ** (1 / temperature) for c in found]
    return rng.choices(found, weights)[0]
