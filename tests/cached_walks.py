"""Episodes of a cascade whose models are behind providers that keep prompt caches, on a clock that is told the time."""

from __future__ import annotations

from typing import Any

from agentcascade.actions.base import TextActions
from agentcascade.cascade import Cascade
from agentcascade.config.load import CascadeConfig
from agentcascade.models.pricing import Price
from agentcascade.routers.step.consistency import Unanimity
from agentcascade.step.context import StepContext
from agentcascade.types import Decision, Mode
from tests.cascades import Recorder
from tests.prompt_caches import CachedModel, Clock

TEACHER = Price(input="2", cached_input="0.5", output="8")
WRITES = Price(input="3", cached_input="0.3", cache_write="3.75", output="15")
STUDENT = Price(input="0.1", output="0.4")
ANSWER = "go on to the next room, and look"


class Walk:
    """An episode of a cascade whose student takes the steps that `accepts` says, at the times of `pauses`."""

    def __init__(
        self,
        accepts: list[bool],
        *,
        price: Price = TEACHER,
        name: str = "openai/t",
        mode: Mode = "cascade",
        student: Price = STUDENT,
        **config: Any,
    ):
        self.clock, self.accepts, self.step = Clock(), accepts, 0
        self.teacher = CachedModel(lambda _: ANSWER, price, self.clock, name=name)
        self.cascade = Cascade(
            StepContext(
                config=CascadeConfig(mode=mode, retrieval={"k": 0}, **config),
                router=Unanimity(1),
                count=lambda text: len(text.split()),
                teacher=self.teacher,
                student=CachedModel(lambda _: ANSWER, student, self.clock, name="openai/s"),
                actions=TextActions(),
                validators=(lambda action, situation: None if self.accepts[self.step] else "not this time",),
                recorder=Recorder(),
                clock=self.clock,
            )
        )

    async def run(self, pauses: list[float], system: str = "rules " * 1500, episode: str = "ep") -> list[Decision]:
        messages = [{"role": "system", "content": system}, {"role": "user", "content": "put the mug on the desk"}]
        of = self.cascade.episode(id=episode, goal="put the mug on the desk")
        for self.step, pause in enumerate(pauses):
            self.clock.now += pause
            answer = await of.complete(messages)
            seen = {"role": "user", "content": f"you see {self.step}: " + "a shelf " * 40}
            messages = [*messages, answer.choices[0].message.model_dump(exclude_none=True), seen]
        return list(of.decisions)
