"""The model calls of one step: within the budget, watched, put on the bill, in the form that each model understands."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, NamedTuple

from agentcascade.errors import EmptyCompletion
from agentcascade.messages import replace_lone_surrogates
from agentcascade.models import structured_output, tool_call_ids
from agentcascade.protocols import ChatModel
from agentcascade.step.record import StepRecord
from agentcascade.types import Account, Completion, Delta, Message, Purpose, Role, Tool

if TYPE_CHECKING:
    from agentcascade.cascade import Cascade

NOTHING: Message = {"role": "assistant", "content": ""}
"""Stands for a sample that the model failed to give: it votes for nothing."""

SHARED = {
    *("tool_choice", "parallel_tool_calls", "response_format", "stop", "max_tokens", "max_completion_tokens"),
    *("top_p", "frequency_penalty", "presence_penalty", "user"),
}
"""Options of a request that mean the same to every model: the student gets no others. Some are one provider's own, and
headers or addresses may hold what only the teacher's provider may see."""


class Said(NamedTuple):
    """A student's message, with the mean log-probability and the number of its tokens where they are known."""

    message: Message
    logprob: float | None = None
    tokens: int | None = None


class Request:
    """What one step asks of a model: the caller's messages, and the same with demonstrations once there are some.

    `temperature` and `k`, where they are set, replace those of the configuration.
    """

    def __init__(
        self,
        messages: Sequence[Message],
        tools: Sequence[Tool] | None = None,
        seed: int = 0,
        options: Mapping[str, Any] | None = None,
        *,
        n: int = 1,
        on_delta: Callable[[Delta], None] | None = None,
        accounts: Sequence[Account] = (),
    ) -> None:
        self.messages, self.tools, self.seed, self.options = messages, tools, seed, dict(options or {})
        self.n, self.on_delta, self.accounts = n, on_delta, tuple(accounts)
        self.temperature: float | None = None
        self.k: int | None = None
        self.remembered = self.prompt = messages
        self.memory_tokens = self.demonstration_tokens = 0

    def remember(self, messages: Sequence[Message], tokens: int) -> None:
        """`messages` are the caller's with a memory of so many tokens."""
        self.remembered = self.prompt = messages
        self.memory_tokens = tokens


class Caller:
    """Calls student and teacher for one step."""

    def __init__(self, cascade: Cascade, request: Request, record: StepRecord) -> None:
        self._cascade, self._request, self._record = cascade, request, record
        self._switching = cascade.teacher is not None and cascade.student is not None

    async def samples(self, size: int, drawn: int, purpose: Purpose = "sample") -> list[Said]:
        """`size` student messages, the first of them number `drawn`; `NOTHING` for each that did not come."""
        model, settings, request = self._cascade.student, self._cascade.config.sampling, self._request
        assert model is not None
        options = {
            **{k: v for k, v in request.options.items() if k in SHARED},
            "n": size,
            "temperature": settings.temperature if request.temperature is None else request.temperature,
            "seed": request.options.get("seed", request.seed) + drawn,
            "tools": request.tools,
            "timeout": settings.timeout_seconds,
        }
        if settings.logprobs:
            options["logprobs"] = True
        constrained = structured_output.option(settings, self._cascade.config.actions, model.name, request.options)
        if constrained:  # a second form would contradict it
            options = {k: v for k, v in options.items() if k != "response_format"} | constrained
        messages = self._sent(request.prompt, "student")
        try:
            completion = await self._call("student", purpose, model, messages, options)
        except EmptyCompletion as error:
            self._record.failed("student", error)
            self._cascade.standing.failed(model.name, error)
            return [Said(NOTHING)] * size
        self._cascade.standing.worked(model.name)
        n = len(completion.messages)
        told = zip_longest(completion.messages, completion.logprobs[:n], completion.tokens[:n])
        answers = [Said(self._named(m, "student", drawn + i), p, t) for i, (m, p, t) in enumerate(told)]
        return [*answers, *[Said(NOTHING)] * size][:size]

    async def answer(self, messages: Sequence[Message], purpose: Purpose = "act") -> Completion:
        """The teacher's answer, live to `request.on_delta` where there is one."""
        model, request = self._cascade.teacher, self._request
        assert model is not None
        sent = self._sent(messages, "teacher")
        options = {
            **{k: v for k, v in request.options.items() if k != structured_output.CHOICES},
            "tools": request.tools,
            "timeout": self._cascade.config.deadline_seconds,
        }
        if request.n > 1:
            options["n"] = request.n
        live = None
        if (on_delta := request.on_delta) is not None:
            rename = tool_call_ids.rename_stream_ids("teacher", self._salt(0)) if self._switching else _same
            live = lambda delta: on_delta(rename(replace_lone_surrogates(delta)))  # noqa: E731
        try:
            completion = await self._call("teacher", purpose, model, sent, options, live)
        except EmptyCompletion as error:
            if error.completion is None or not error.completion.messages:
                raise
            completion = error.completion  # its caller sees it as it is: an error would be repeated, and paid again
        answers = tuple(self._named(m, "teacher", i) for i, m in enumerate(completion.messages))
        return completion.model_copy(update={"messages": answers})

    async def other(
        self, model: ChatModel, messages: Sequence[Message], purpose: Purpose, options: Mapping[str, Any]
    ) -> Completion:
        """A call of another model that the step needs, on its bill."""
        return await self._call("student", purpose, model, messages, options)

    async def _call(
        self,
        role: Role,
        purpose: Purpose,
        model: ChatModel,
        messages: Sequence[Message],
        options: Mapping[str, Any],
        on_delta: Callable[[Delta], None] | None = None,
    ) -> Completion:
        config = self._cascade.config
        return await self._cascade.door.call(
            model,
            messages,
            options,
            role=role,
            purpose=purpose,
            bill=self._record,
            accounts=self._request.accounts,
            seconds=config.sampling.timeout_seconds if role == "student" else config.deadline_seconds,
            on_delta=on_delta,
        )

    def _sent(self, messages: Sequence[Message], role: Role) -> Sequence[Message]:
        return tool_call_ids.messages_for_model(messages, role, self._cascade.ids) if self._switching else messages

    def _named(self, message: Message, role: Role, index: int) -> Message:
        if not self._switching or not message.get("tool_calls"):
            return message
        named = tool_call_ids.assign_ids(message, role, self._salt(index))
        self._cascade.ids.remember(message, named)
        return named

    def _salt(self, index: int) -> str:
        return f"{self._record.id}:{index}"


def _same(delta: Delta) -> Delta:
    return delta
