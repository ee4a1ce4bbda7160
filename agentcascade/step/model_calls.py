"""Model calls of a step: within the budgets, watched, on the step's bill, in the form that each model understands."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import zip_longest
from typing import Any, NamedTuple

from agentcascade.errors import EmptyCompletion
from agentcascade.messages import replace_lone_surrogates
from agentcascade.models import structured_output, tool_call_ids
from agentcascade.models.effort import USUAL, EffortModel
from agentcascade.protocols import ChatModel
from agentcascade.step.answer_options import check_essential
from agentcascade.step.caching import CachedRequest, cached_request
from agentcascade.step.context import StepContext
from agentcascade.step.effort_ceiling import capped, is_one_model
from agentcascade.step.record import StepRecord
from agentcascade.step.request import Request
from agentcascade.types import Call, Completion, Delta, Message, Purpose, Role

REPEATED = frozenset({"act", "sample", "shadow", "audit"})
"""Purposes of calls whose prompts the next step's begin with."""
NOTHING: Message = {"role": "assistant", "content": ""}
"""Stands for a sample that the model failed to give: it votes for nothing."""

FORWARDED_OPTIONS = {
    *("tool_choice", "parallel_tool_calls", "response_format", "stop", "max_tokens", "max_completion_tokens"),
    *("top_p", "frequency_penalty", "presence_penalty", "user"),
}
"""Options of a request that mean the same to every model: the student gets no others. Some are one provider's own, and
headers or addresses may hold what only the teacher's provider may see."""


class StudentReply(NamedTuple):
    """A student's message, with the mean log-probability and the number of its tokens where they are known."""

    message: Message
    logprob: float | None = None
    tokens: int | None = None
    finish_reason: str = ""


class Batch(NamedTuple):
    """Samples of one request to the student, and its line on the bill, where it got as far as that."""

    replies: list[StudentReply]
    call: Call | None


class ModelCalls:
    """Calls student and teacher for one step."""

    def __init__(self, context: StepContext, request: Request, record: StepRecord) -> None:
        self._context = context
        self._request = request
        self._record = record
        self._switching = context.teacher is not None and context.student is not None

    async def sample(self, size: int, drawn: int, purpose: Purpose = "sample", *, more: bool = False) -> Batch:
        """`size` student messages, the first of them number `drawn`; `NOTHING` for each that did not come.

        `more`: further ones may follow, for which the prompt is sent again.
        """
        context, request = self._context, self._request
        settings = context.config.sampling
        assert context.student is not None
        model = capped(context.student, request.ceiling)
        seed = request.options.get("seed")
        options = {
            **{k: v for k, v in request.options.items() if k in FORWARDED_OPTIONS},
            "n": size,
            "temperature": settings.temperature if request.temperature is None else request.temperature,
            "seed": (request.seed if seed is None else seed) + drawn,
            "tools": request.tools,
            "timeout": settings.timeout_seconds,
        }
        if settings.logprobs:
            options["logprobs"] = True
        constrained = structured_output.vllm_option(settings, context.config.actions, model.name, request.options)
        if constrained:  # a second form would contradict it
            options = {k: v for k, v in options.items() if k != "response_format"} | constrained
        try:
            sent = self._sent(request.prompt, "student")
            completion = await self._call("student", purpose, model, sent, options, repeats=more or drawn > 0)
        except EmptyCompletion as error:
            self._record.add_failure("student", error)
            context.health.add_failure(model.name, error)
            billed = error.completion
            return Batch([StudentReply(NOTHING)] * size, Call.of("student", purpose, billed) if billed else None)
        context.health.add_success(model.name)
        n = len(completion.messages)
        reasons = completion.finish_reasons[:n]
        answers = zip_longest(completion.messages, completion.logprobs[:n], completion.tokens[:n], reasons)
        replies = [
            StudentReply(self._named(m, "student", drawn + i), p, t, r or "") for i, (m, p, t, r) in enumerate(answers)
        ]
        replies = [*replies, *[StudentReply(NOTHING)] * size][:size]
        return Batch(replies, Call.of("student", purpose, completion))

    def teacher_request(self, messages: Sequence[Message]) -> tuple[ChatModel, Sequence[Message], dict[str, Any]]:
        """The teacher, and what it is asked: messages and options in the form that it understands."""
        request = self._request
        assert self._context.teacher is not None
        model = capped(self._context.teacher, request.ceiling)
        options = {
            **{k: v for k, v in request.options.items() if k != structured_output.CHOICES},
            "tools": request.tools,
            "timeout": self._context.config.deadline_seconds,
        }
        if request.n > 1:
            options["n"] = request.n
        check_essential(model, options)
        return model, self._sent(messages, "teacher"), options

    async def ask_teacher(self, messages: Sequence[Message], purpose: Purpose = "act") -> Completion:
        """The teacher's answer, live to `request.on_delta` where there is one."""
        model, sent, options = self.teacher_request(messages)
        try:
            completion = await self._call("teacher", purpose, model, sent, options, self._live())
        except EmptyCompletion as error:
            if error.completion is None or not error.completion.messages:
                raise
            completion = error.completion  # its caller sees it as it is: an error would be repeated, and paid again
        answers = tuple(self._named(m, "teacher", i) for i, m in enumerate(completion.messages))
        return completion.model_copy(update={"messages": answers})

    async def ask(
        self,
        model: ChatModel,
        messages: Sequence[Message],
        purpose: Purpose,
        options: Mapping[str, Any],
        seconds: float | None = None,
    ) -> Completion:
        """A call of another model that the step needs, on its bill, within so many seconds."""
        return await self._call("student", purpose, model, messages, options, seconds=seconds)

    async def _call(
        self,
        role: Role,
        purpose: Purpose,
        model: ChatModel,
        messages: Sequence[Message],
        options: Mapping[str, Any],
        on_delta: Callable[[Delta], None] | None = None,
        repeats: bool = False,
        seconds: float | None = None,
    ) -> Completion:
        config = self._context.config
        if isinstance(model, EffortModel) and model.effort.share is not None:
            options = {**options, **await self._usual(model)}
        request = CachedRequest(messages, options)
        if purpose in REPEATED:
            episode = self._record.situation.episode
            request = cached_request(self._context, model, messages, options, episode, repeats=repeats)
        completion = await self._context.door.call(
            model,
            request.messages,
            request.options,
            role=role,
            purpose=purpose,
            bill=self._record,
            accounts=self._request.accounts,
            seconds=seconds or (config.sampling.timeout_seconds if role == "student" else config.deadline_seconds),
            on_delta=on_delta,
            namespace=self._record.situation.namespace,
            cache_use=self._request.cache_use,
            known=self._request.known,
        )
        if request.breakpoints and not completion.cached_response:
            self._context.breakpoint_worth.add(model, completion.usage)
        if isinstance(model, EffortModel) and model.is_silenced(options):
            self._record.add_note(f"effort {model.effort}: {model.name} cannot think where a tool is forced")
        if isinstance(model, EffortModel) and (refused := model.refused):
            self._record.add_note(f"effort {model.effort}: {model.name} refuses {', '.join(sorted(refused))}")
        return completion

    async def _usual(self, model: EffortModel) -> dict[str, float]:
        """The tokens of which a relative effort is a share; none while nothing is recorded."""
        context, namespace = self._context, self._record.situation.namespace
        usual = await context.usual_thinking.of(context.database, namespace, model.name, context.clock)
        return {} if usual is None else {USUAL: usual}

    def _live(self) -> Callable[[Delta], None] | None:
        on_delta = self._request.on_delta
        if on_delta is None:
            return None
        rename = tool_call_ids.rename_stream_ids("teacher", self._salt(0)) if self._switching else _same

        def send(delta: Delta) -> None:
            on_delta(rename(replace_lone_surrogates(delta)))

        return send

    def _sent(self, messages: Sequence[Message], role: Role) -> Sequence[Message]:
        if not self._switching:
            return messages
        context, known = self._context, self._request.known
        asked = context.student if role == "student" else context.teacher
        beside = (context.teacher,) if role == "student" else context.rungs
        named = role == "student" and bool(context.students)
        if asked is not None and (named or is_one_model(asked, beside)):
            return tool_call_ids.messages_for_model(messages, role, context.ids, asked.name, known)
        return tool_call_ids.messages_for_model(messages, role, context.ids, known=known)

    def _named(self, message: Message, role: Role, index: int) -> Message:
        if not self._switching or not message.get("tool_calls"):
            return message
        named = tool_call_ids.assign_ids(message, role, self._salt(index))
        model = self._context.student if role == "student" else self._context.teacher
        self._context.ids.remember(message, named, model.name if model else "")
        return named

    def _salt(self, index: int) -> str:
        return f"{self._record.id}:{index}"


def _same(delta: Delta) -> Delta:
    return delta
