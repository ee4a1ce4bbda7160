"""One run of an agent on one task: the steps so far, and what becomes of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from agentcascade import conversation, planning
from agentcascade.actions import text_of
from agentcascade.errors import ConfigError, EpisodeClosed, InvalidRequest
from agentcascade.types import Call, Decision, EpisodeEnd, Message, Mode, Step, Tool, Trajectory, new_id, now

if TYPE_CHECKING:
    from agentcascade.cascade import Cascade
    from agentcascade.response import CascadeCompletion


class Episode:
    """Answers the model calls of one agent run; `finish` closes it.

    `goal` defaults to the first user message; `id` to a random one; `mode` and `namespace` to the configuration's. In
    mode ``collect`` a successful episode is banked by `finish`. One call at a time: an agent's steps are a sequence.
    """

    def __init__(
        self,
        cascade: Cascade,
        *,
        goal: str = "",
        plan: str = "",
        category: str = "",
        id: str | None = None,
        namespace: str | None = None,
        mode: Mode | None = None,
        seed: int | None = None,
    ) -> None:
        self.cascade = cascade
        self.id = id or new_id("ep")
        self.goal, self.plan, self.category = goal, plan, category
        self.namespace = namespace or cascade.config.bank.namespace
        self.mode: Mode = mode or cascade.config.mode
        self.seed = cascade.config.seed if seed is None else seed
        self.steps: list[Step] = []
        self.decisions: list[Decision] = []
        self._preparation: list[Call] = []
        self._thought = ""
        self._model = ""
        self._closed = False
        self._started = now()
        cascade.check_mode(self.mode)

    async def complete(
        self, messages: Sequence[Message], *, tools: Sequence[Tool] | None = None, **options: Any
    ) -> CascadeCompletion:
        """The next assistant message, as an OpenAI `ChatCompletion` with the `Decision` in its `agentcascade` field.

        `messages` is the whole conversation, as for any chat API. Raises `EpisodeClosed` after `finish`,
        `InvalidRequest` for unusable messages or options, and the provider's own error when the teacher fails.
        """
        if self._closed:
            raise EpisodeClosed(f"episode {self.id} was finished: start a new one with cascade.episode()")
        if options.pop("stream", None):
            raise InvalidRequest("stream=True is not supported here: the verdict needs whole samples")
        if options.pop("n", 1) != 1:
            raise InvalidRequest("n must be 1: an agent takes one action a step; router.options.n sets the samples")
        conversation.check(messages)
        if not self.steps and self.mode == "collect":
            await self._prepare(messages)
        sent = planning.with_plan(messages, self.plan) if self.plan else list(messages)
        if self._thought and not self.steps:
            sent = planning.opening_with(sent, self._thought)
        situation = conversation.read(
            messages,
            self.cascade.actions,
            goal=self.goal,
            plan=self.plan,
            namespace=self.namespace,
            episode=self.id,
        )
        completion, decision = await self.cascade.step(
            sent,
            situation=situation,
            mode=self.mode,
            tools=tools,
            seed=self.seed + 1000 * len(self.steps),
            options=options,
            before=self._take_preparation(),
        )
        message = completion.messages[0]
        if self._thought and not self.steps:
            message = planning.opened(message, self._thought)
        self.goal = self.goal or situation.goal
        reasoning, action = conversation.split(message, self.cascade.actions)
        self.steps.append(Step(observation=situation.observation, reasoning=reasoning, action=action))
        self.decisions.append(decision)
        self._model = completion.model
        from agentcascade.response import chat_completion

        return chat_completion(completion, message, decision)

    async def _prepare(self, messages: Sequence[Message]) -> None:
        """The plan and the first thought, where the configuration asks for them."""
        settings, teacher = self.cascade.config.collect, self.cascade.teacher
        assert teacher is not None
        if settings.plan and not self.plan:
            self.plan = await self._ask(messages, planning.PLAN, "plan")
        if settings.first_thought and not self._thought:
            answer = await self._ask(messages, planning.FIRST_THOUGHT, "first-thought")
            self._thought = planning.first_thought(answer)

    async def _ask(self, messages: Sequence[Message], question: str, purpose: Literal["plan", "first-thought"]) -> str:
        """The teacher's text; the call goes onto the bill of the first step."""
        assert self.cascade.teacher is not None
        answer = await self.cascade.teacher.complete(
            planning.asking(messages, question), seed=self.seed, timeout=self.cascade.config.deadline_seconds
        )
        self._preparation.append(Call.of("teacher", purpose, answer))
        return text_of(answer.messages[0]).strip()

    def _take_preparation(self) -> list[Call]:
        taken, self._preparation = self._preparation, []
        return taken

    def trajectory(self, success: bool) -> Trajectory:
        """The episode so far, without the steps that `collect.drop_observations` rules out."""
        return Trajectory(
            namespace=self.namespace,
            goal=self.goal,
            plan=self.plan,
            category=self.category,
            steps=without_failed(self.steps, self.cascade.config.collect.drop_observations),
            success=success,
            model=self._model,
            metadata={"episode": self.id},
        )

    async def finish(self, success: bool) -> bool:
        """Close the episode; in mode ``collect`` a success is banked. Returns whether the bank grew.

        When banking fails the error is raised, the episode stays open and `finish` can be called again.
        """
        if self._closed:
            raise EpisodeClosed(f"episode {self.id} was finished already")
        banked = False
        if self.mode == "collect" and success and self.steps:
            if self.cascade.bank is None:
                raise ConfigError(
                    "mode 'collect' needs a bank to put demonstrations into: make the cascade with build()"
                )
            banked = await self.cascade.bank.add(self.trajectory(success))
        self._closed = True
        if self.cascade.recorder is not None:
            self.cascade.recorder.finished(self._end(success))
        return banked

    def _end(self, success: bool) -> EpisodeEnd:
        return EpisodeEnd(
            episode=self.id,
            namespace=self.namespace,
            goal=self.goal,
            plan=self.plan,
            mode=self.mode,
            success=success,
            steps=len(self.steps),
            started_at=self._started,
        )


def without_failed(steps: Sequence[Step], marks: Sequence[str]) -> tuple[Step, ...]:
    """`steps` without the actions that led to an observation containing one of `marks`.

    The world did not change, so what was observed before the failed action also introduces the one after it.
    """
    kept: list[Step] = []
    for step in steps:
        if kept and any(mark in step.observation for mark in marks):
            kept[-1] = step.model_copy(update={"observation": kept[-1].observation})
        else:
            kept.append(step)
    return tuple(kept)
